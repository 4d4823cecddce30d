"""The built-in text encoder, TF-IDF with truncated SVD, which needs no language model."""

from __future__ import annotations

import array
import collections
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.runs.blas import one_blas_thread

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
# Vectors that ARPACK iterates on beyond those wanted. More of them save no products and make each
# step longer.
_SPARE_VECTORS = 32
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

  @functools.cached_property
  def numbered(self) -> tuple[_Known, np.ndarray]:
    """The vocabulary's words by number, and the [V] int64 keys of its terms (`_occurrences`)."""
    words = _Known()
    pairs = [[words.setdefault(w, len(words)) for w in term.split(" ")] for term in self.vocabulary]
    keys = [pair[0] if len(pair) == 1 else (pair[0] + 1) * len(words) + pair[1] for pair in pairs]
    return words, np.array(keys, np.int64)


class _Known(dict[str, int]):
  """Words by number; −1 for others."""

  def __missing__(self, word: str) -> int:
    return -1


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
  words: collections.defaultdict[str, int] = collections.defaultdict()
  words.update(dict.fromkeys(STOP_WORDS, -1))
  words.default_factory = words.__len__
  text, key = _occurrences(texts, words)
  keys, holding = _texts_per_key(text, key)
  usable = (holding >= min_texts) & (holding <= max_share * len(texts))
  if usable.any():
    keys, holding = keys[usable], holding[usable]
  if not keys.size:
    raise InputError("the texts contain no words to learn from", field="encoder", value="lexical")
  names, size = list(words), len(words)
  terms = [
    names[k] if k < size else f"{names[k // size - 1]} {names[k % size]}" for k in keys.tolist()
  ]
  frequent = sorted(range(len(terms)), key=lambda t: (-holding[t], terms[t]))[:max_terms]
  chosen = sorted(frequent, key=terms.__getitem__)
  vocabulary = {terms[t]: column for column, t in enumerate(chosen)}
  weights = np.log((1 + len(texts)) / (1 + holding[chosen])) + 1
  components = _directions(_tf_idf(text, key, keys[chosen], weights, num_texts=len(texts)), dim)
  return _with_hash(vocabulary, weights, components)


def encode_lexical(encoder: LexicalEncoder, texts: Sequence[str]) -> np.ndarray:
  """[N, D] float32 unit vectors of texts; zero for texts without a known term."""
  words, keys = encoder.numbered
  text, key = _occurrences(texts, words)
  table = _tf_idf(text, key, keys, encoder.weights, num_texts=len(texts))
  vectors = table @ encoder.components
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


def _occurrences(texts: Sequence[str], words: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
  """Where terms occur: words with a number, and pairs of adjacent such words.

  Args: words: numbers; −1 or less for words that are in no term.
  Returns: [T] int64 text and [T] int64 key, which is a word's number, or (first + 1) · W + second
    for a pair, with W the number of words after the call.
  """
  numbers, lengths = array.array("q"), []
  for text in texts:
    before = len(numbers)
    numbers.extend(map(words.__getitem__, WORD.findall(text.lower())))
    lengths.append(len(numbers) - before)
  number = np.array(numbers, np.int64)
  where = np.repeat(np.arange(len(texts)), lengths)
  known = number >= 0
  first = np.flatnonzero(known[:-1] & known[1:] & (where[:-1] == where[1:]))
  pair = (number[first] + 1) * len(words) + number[first + 1]
  return np.concatenate([where[known], where[first]]), np.concatenate([number[known], pair])


def _texts_per_key(text: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The distinct keys, ascending, and the number of texts with each. Args: of `_occurrences`."""
  order = np.lexsort((text, key))
  text, key = text[order], key[order]
  new_key = np.diff(key, prepend=-1) > 0
  new_pair = new_key | (np.diff(text, prepend=-1) != 0)
  starts = np.flatnonzero(new_key)
  return key[starts], np.add.reduceat(new_pair, starts, dtype=np.int64) if starts.size else starts


def _tf_idf(
  text: np.ndarray, key: np.ndarray, keys: np.ndarray, weights: np.ndarray, *, num_texts: int
) -> scipy.sparse.csr_array:
  """[N, V] float64, rows of length 1 or 0, with logarithmic term counts.

  Args: text, key: of `_occurrences`; other keys than the [V] `keys` do not count. weights: [V].
  """
  from scipy import sparse

  order = np.argsort(keys)
  place = np.minimum(np.searchsorted(keys, key, sorter=order), len(keys) - 1)
  column = order[place]
  known = keys[column] == key
  where = (text[known], column[known])
  table = sparse.csr_array((np.ones(len(where[0])), where), shape=(num_texts, len(keys)))
  table.sum_duplicates()
  table.data = (1 + np.log(table.data)) * weights[table.indices]
  lengths = np.sqrt(table.power(2).sum(axis=1))
  table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
  return table


def _directions(matrix: scipy.sparse.csr_array, dim: int) -> np.ndarray:
  """[V, D] right singular vectors, largest first, each with its largest entry positive."""
  import scipy.linalg
  from scipy.sparse.linalg import LinearOperator, eigsh

  num_terms = matrix.shape[1]
  with one_blas_thread():
    if dim < min(matrix.shape) // 2:
      # Eigenvectors of MᵀM are orthonormal as they come; `svds` would decompose them once more.
      transposed = matrix.T.tocsr()
      product = LinearOperator(
        (num_terms, num_terms), matvec=lambda x: transposed @ (matrix @ x), dtype=np.float64
      )
      start = np.random.default_rng(0).standard_normal(num_terms)
      iterated = min(num_terms, dim + _SPARE_VECTORS)
      squares, columns = eigsh(product, k=dim, v0=start, ncv=iterated)
      values, rows = np.sqrt(np.maximum(squares, 0)), columns.T
    else:
      # ARPACK cannot find all directions; if nearly all are wanted, the matrix is small.
      _, values, rows = scipy.linalg.svd(matrix.toarray(), full_matrices=False)
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
