"""The built-in text encoder, TF-IDF with truncated SVD, which needs no language model."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import scipy.sparse

WORD = re.compile(r"[^\W_]{2,}")
STOP_WORDS = frozenset(
  """
  a about above after again against all also am an and any are as at be because been before
  being below between both but by can cannot could did do does doing down during each either
  else ever few for from further get gets had has have having he her here hers herself him
  himself his how if in into is it its itself just like may me might more most must my myself
  neither no nor not now of off on once one only or other our ours ourselves out over own same
  shall she should so some such than that the their theirs them themselves then there these they
  this those through to too under until up upon us very was we were what when where which while
  who whom whose why will with within without would yet you your yours yourself yourselves
  """.split()
)
# Singular values below this share of the largest are rounding noise with arbitrary vectors.
MIN_SHARE = 1e-5


@dataclasses.dataclass(frozen=True)
class LexicalEncoder:
  """A fitted TF-IDF + SVD encoder.

  Attributes:
    vocabulary: word or "word word" -> column.
    weights: [V] float64 inverse document frequencies.
    components: [V, D] float64, orthonormal columns.
    content_hash: sha256 of the other attributes.
  """

  vocabulary: dict[str, int]
  weights: np.ndarray
  components: np.ndarray
  content_hash: str

  @property
  def dimension(self) -> int:
    return self.components.shape[1]


def fit_lexical(
  texts: Sequence[str],
  *,
  dim: int = 128,
  min_texts: int = 2,
  max_share: float = 0.5,
  max_terms: int = 50_000,
) -> LexicalEncoder:
  """Fits vocabulary, weights and directions to texts, deterministically to the byte.

  Args:
    texts: N strings.
    dim: number of directions; fewer if the texts span fewer.
    min_texts: minimum number of texts that contain a term.
    max_share: maximum share of texts that contain a term. Both limits are dropped if no term would
      be left.
    max_terms: maximum number of terms; the most frequent ones are kept.
  Raises: InputError if no text contains a word.
  """
  holding: collections.Counter[str] = collections.Counter()
  for text in texts:
    holding.update(set(_terms(text)))
  terms = [t for t, n in holding.items() if min_texts <= n <= max_share * len(texts)]
  terms = terms or list(holding)
  if not terms:
    raise InputError("the texts contain no words to learn from", field="encoder", value="lexical")
  terms = sorted(sorted(terms), key=lambda term: -holding[term])[:max_terms]
  vocabulary = {term: column for column, term in enumerate(sorted(terms))}
  counts = np.array([holding[term] for term in vocabulary], np.float64)
  weights = np.log((1 + len(texts)) / (1 + counts)) + 1
  components = _directions(_tf_idf(texts, vocabulary, weights), dim)
  return _with_hash(vocabulary, weights, components)


def encode_lexical(encoder: LexicalEncoder, texts: Sequence[str]) -> np.ndarray:
  """[N, D] float32 unit vectors of texts; zero for texts without a known term."""
  vectors = _tf_idf(texts, encoder.vocabulary, encoder.weights) @ encoder.components
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  # A text orthogonal to all directions leaves rounding noise, which must not be normalized.
  vectors = np.where(lengths > 1e-9, vectors / np.maximum(lengths, 1e-9), 0.0)
  return vectors.astype(np.float32)


def save_lexical(encoder: LexicalEncoder, folder: str | Path) -> None:
  """Writes `vocabulary.json` and `lexical.npz`, each to a temporary name first."""
  folder = Path(folder)
  terms = json.dumps(list(encoder.vocabulary), ensure_ascii=False)
  with runs.atomic_path(folder / "vocabulary.json") as temporary:
    temporary.write_text(terms, encoding="utf-8")
  with runs.atomic_path(folder / "lexical.npz") as temporary, temporary.open("wb") as file:
    np.savez(file, weights=encoder.weights, components=encoder.components)


def load_lexical(folder: str | Path) -> LexicalEncoder:
  """Reads what `save_lexical` wrote. Raises: InputError if it is missing or damaged."""
  folder = Path(folder)
  try:
    terms = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    with np.load(folder / "lexical.npz", allow_pickle=False) as arrays:
      weights, components = arrays["weights"], arrays["components"]
  except Exception as error:  # zipfile, numpy and zlib raise different errors for damaged files
    raise InputError(f"{folder}: no readable lexical encoder here ({error!r})") from None
  if weights.shape != (len(terms),) or components.shape[:1] != weights.shape:
    raise InputError(f"{folder}: vocabulary.json and lexical.npz do not belong together")
  return _with_hash({term: i for i, term in enumerate(terms)}, weights, components)


def _terms(text: str) -> Iterator[str]:
  """Words that are not stop words, and pairs of adjacent such words."""
  previous = None
  for word in WORD.findall(text.lower()):
    if word in STOP_WORDS:
      previous = None
      continue
    yield word
    if previous is not None:
      yield f"{previous} {word}"
    previous = word


def _tf_idf(
  texts: Sequence[str], vocabulary: dict[str, int], weights: np.ndarray
) -> scipy.sparse.csr_array:
  """[N, V] float64, rows of length 1 or 0, with logarithmic term counts."""
  from scipy import sparse

  starts, columns, values = [0], [], []
  for text in texts:
    counts = collections.Counter(vocabulary[term] for term in _terms(text) if term in vocabulary)
    row = np.array(sorted(counts), np.int64)
    value = (1 + np.log([counts[column] for column in row])) * weights[row]
    columns.append(row)
    values.append(value / max(float(np.linalg.norm(value)), 1e-12))
    starts.append(starts[-1] + len(row))
  data = np.concatenate(values) if values else np.zeros(0)
  indices = np.concatenate(columns) if columns else np.zeros(0, np.int64)
  return sparse.csr_array((data, indices, np.array(starts)), shape=(len(texts), len(vocabulary)))


def _directions(matrix: scipy.sparse.csr_array, dim: int) -> np.ndarray:
  """[V, D] right singular vectors, largest first, each with its largest entry positive."""
  from scipy.sparse.linalg import svds

  size = min(matrix.shape)
  if dim < size // 2:
    start = np.random.default_rng(0).standard_normal(size)
    _, values, rows = svds(matrix, k=dim, v0=start, solver="arpack")
  else:
    # ARPACK cannot find all directions; if nearly all are wanted, the matrix is small.
    _, values, rows = np.linalg.svd(matrix.toarray(), full_matrices=False)
  order = np.argsort(-values, kind="stable")[:dim]
  order = order[values[order] > MIN_SHARE * values.max()]
  rows = rows[order]
  largest = np.abs(rows).argmax(axis=1)
  signs = np.sign(rows[np.arange(len(rows)), largest])
  return np.ascontiguousarray((rows * signs[:, None]).T)


def _with_hash(
  vocabulary: dict[str, int], weights: np.ndarray, components: np.ndarray
) -> LexicalEncoder:
  digest = hashlib.sha256("\n".join(vocabulary).encode())
  digest.update(weights.tobytes())
  digest.update(np.ascontiguousarray(components).tobytes())
  return LexicalEncoder(vocabulary, weights, components, digest.hexdigest())
