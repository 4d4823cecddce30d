"""Encodes texts as vectors and caches them on disk by the hashes of text and encoder.

The cache is a folder per encoder with append-only shards. A shard gets its final name only when it
is complete, so that runs can share a cache and be killed at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import CONSOLE, Log

if TYPE_CHECKING:
  from gatrec_jax.lm.folders.encoder_source import EncoderSource
  from gatrec_jax.profiles.lexical import LexicalEncoder

SAVE_EVERY_SECONDS = 60.0
_LEXICAL_BATCH = 8192
KEY_BYTES = 32

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""An encoded batch: rows [n] int64, vectors [n, D] float32, truncated [n] bool."""


@dataclasses.dataclass(frozen=True)
class TextEncoder:
  """Interface of text encoders.

  Attributes:
    name, where: for messages: which encoder, and how it was found.
    content_hash: of everything that determines the vectors, including the settings.
    dimension: D.
    max_tokens: longer texts are truncated; 0 for no limit.
    cacheable: whether vectors should be cached on disk.
    encode_batches: texts -> batches in any order; each row occurs once.
  """

  name: str
  where: str
  content_hash: str
  dimension: int
  max_tokens: int
  cacheable: bool
  encode_batches: Callable[[Sequence[str]], Iterator[Batch]]

  def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts without a cache: vectors [N, D] float32, and [N] bool, which were truncated."""
    vectors = np.zeros((len(texts), self.dimension), np.float32)
    truncated = np.zeros(len(texts), bool)
    for rows, batch, cut in self.encode_batches(texts):
      vectors[rows], truncated[rows] = batch, cut
    return vectors, truncated


@dataclasses.dataclass(frozen=True)
class EmbedReport:
  """Statistics of a call of `embed_texts`.

  Attributes:
    encoder, where: which encoder, and how it was found.
    texts: number of texts. missing: number of None among them, which get a zero vector.
    encoded: distinct texts encoded. cached: distinct texts found in the cache.
    truncated: texts truncated to `max_tokens`.
    max_tokens: the limit; 0 for none.
    seconds: spent encoding.
  """

  encoder: str
  where: str
  texts: int
  missing: int
  encoded: int
  cached: int
  truncated: int
  max_tokens: int
  seconds: float

  @property
  def truncated_share(self) -> float:
    """Share of truncated texts among those that are not missing."""
    return self.truncated / max(1, self.texts - self.missing)

  @property
  def texts_per_second(self) -> float:
    return self.encoded / self.seconds if self.seconds > 0 else 0.0


def open_encoder(
  source: EncoderSource,
  *,
  max_tokens: int = 256,
  dtype: str = "float32",
  prompt: str = "",
  pooling: str = "auto",
) -> TextEncoder:
  """Loads the encoder that `resolve_encoder` found in a folder.

  The lexical encoder has to be fitted first; see `lexical_text_encoder`.

  Args:
    source: from `resolve_encoder`.
    max_tokens: longer texts are truncated.
    dtype: of the arithmetic, `float32` or `bfloat16`; vectors are float32.
    prompt: prefix of every text; "" for the folder's own.
    pooling: `mean`, `last`, or `auto` for the folder's own.
  """
  from gatrec_jax.lm.decoder.config import DecoderConfig
  from gatrec_jax.lm.encoder import encode as neural
  from gatrec_jax.lm.encoder.load import load_encoder

  model = load_encoder(
    source.folder, dtype=dtype, name=source.name, prompt=prompt or None, pooling=pooling
  )

  def encode_batches(texts: Sequence[str]) -> Iterator[Batch]:
    ids, truncated = neural.tokenize(model, texts, max_tokens=max_tokens)
    for rows, vectors in neural.encode_batches(model, ids):
      yield rows, vectors, truncated[rows]

  limit = min(max_tokens, model.max_tokens)
  settings = f"{source.content_hash} {limit} {dtype}" + (f" {prompt}" if prompt else "")
  if pooling != "auto" or isinstance(model.config, DecoderConfig):
    settings += f" pooling {'+'.join(model.head.modes)}"  # not said by the folder's files
  return TextEncoder(
    name=source.name,
    where=source.where,
    content_hash=hashlib.sha256(settings.encode()).hexdigest(),
    dimension=model.dimension,
    max_tokens=limit,
    cacheable=True,
    encode_batches=encode_batches,
  )


def lexical_text_encoder(encoder: LexicalEncoder, *, where: str) -> TextEncoder:
  """A fitted `LexicalEncoder` as a `TextEncoder`."""
  from gatrec_jax.profiles.lexical import encode_lexical

  def encode_batches(texts: Sequence[str]) -> Iterator[Batch]:
    for first in range(0, len(texts), _LEXICAL_BATCH):
      part = texts[first : first + _LEXICAL_BATCH]
      rows = np.arange(first, first + len(part))
      yield rows, encode_lexical(encoder, part), np.zeros(len(part), bool)

  return TextEncoder(
    name="lexical (TF-IDF + SVD)",
    where=where,
    content_hash=encoder.content_hash,
    dimension=encoder.dimension,
    max_tokens=0,
    # It is refitted whenever a text changes, and encoding is fast.
    cacheable=False,
    encode_batches=encode_batches,
  )


def embed_texts(
  texts: Sequence[str | None], encoder: TextEncoder, *, cache_dir: str | Path, log: Log = CONSOLE
) -> tuple[np.ndarray, EmbedReport]:
  """Vectors of texts; only texts that are not in the cache are encoded.

  Args:
    texts: N strings; None for missing texts.
    encoder: from `open_encoder`.
    cache_dir: folder of the cache.
    log: where progress goes.
  Returns: [N, D] float32 with zero rows for None, and a report.
  Raises: InputError if the cache cannot be written or the encoder returns non-finite numbers.
  """
  # One row per distinct text, in the order of first occurrence.
  row_of: dict[str, int] = {}
  for text in texts:
    if text is not None:
      row_of.setdefault(text, len(row_of))
  unique = list(row_of)
  vectors = np.zeros((len(unique), encoder.dimension), np.float32)
  truncated = np.zeros(len(unique), bool)
  keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in unique]
  folder = Path(cache_dir) / encoder.content_hash[:16]
  known = _read_cache(folder, keys, vectors, truncated) if encoder.cacheable else set()
  todo = [row for row, key in enumerate(keys) if key not in known]
  start = time.perf_counter()
  if todo:
    batches = encoder.encode_batches([unique[row] for row in todo])
    pending: list[int] = []

    def save() -> None:
      if encoder.cacheable and pending:
        _write_shard(folder, keys, vectors, truncated, pending)
        pending.clear()

    saved = start
    with contextlib.ExitStack() as stack:
      stack.callback(save)  # also on interruption, so that no work is lost
      show = stack.enter_context(log.progress("embed", total=len(todo)))
      done = 0
      for places, batch, cut in batches:
        if not np.isfinite(batch).all():
          raise InputError(f"{encoder.name}: returns non-finite vectors; its weights are damaged")
        rows = [todo[place] for place in places]
        vectors[rows], truncated[rows] = batch, cut
        pending += rows
        done += len(rows)
        show(done, **{"texts/s": done / max(time.perf_counter() - start, 1e-9)})
        if time.perf_counter() - saved > SAVE_EVERY_SECONDS:
          save()
          saved = time.perf_counter()
  seconds = time.perf_counter() - start

  result = np.zeros((len(texts), encoder.dimension), np.float32)
  present = [place for place, text in enumerate(texts) if text is not None]
  rows = [row_of[texts[place]] for place in present]
  result[present] = vectors[rows]
  return result, EmbedReport(
    encoder=encoder.name,
    where=encoder.where,
    texts=len(texts),
    missing=len(texts) - len(present),
    encoded=len(todo),
    cached=len(unique) - len(todo),
    truncated=int(truncated[rows].sum()),
    max_tokens=encoder.max_tokens,
    seconds=seconds,
  )


def _read_cache(
  folder: Path, keys: Sequence[bytes], vectors: np.ndarray, truncated: np.ndarray
) -> set[bytes]:
  """Copies cached rows into the arrays and returns their keys; damaged shards are removed."""
  row_of = {key: row for row, key in enumerate(keys)}
  known = set()
  for path in sorted(folder.glob("*.npz")):
    try:
      with np.load(path, allow_pickle=False) as shard:
        shard_keys, shard_vectors, cut = shard["keys"], shard["vectors"], shard["truncated"]
      count = len(shard_keys)
      if (
        shard_keys.shape != (count, KEY_BYTES)
        or shard_vectors.shape != (count, vectors.shape[1])
        or cut.shape != (count,)
      ):
        raise ValueError("arrays of unexpected shapes")
    except OSError as error:  # another run may have removed it
      warnings.warn(f"{path}: cannot be read ({error.strerror}); ignored", stacklevel=3)
      continue
    except Exception as error:  # zipfile and numpy raise many types of errors for damaged files
      warnings.warn(f"{path}: damaged ({error}); its texts are encoded again", stacklevel=3)
      with contextlib.suppress(OSError):
        path.unlink()
      continue
    for place, key in enumerate(map(bytes, shard_keys)):
      row = row_of.get(key)
      if row is not None:
        vectors[row], truncated[row] = shard_vectors[place], cut[place]
        known.add(key)
  return known


def _write_shard(
  folder: Path,
  keys: Sequence[bytes],
  vectors: np.ndarray,
  truncated: np.ndarray,
  rows: Sequence[int],
) -> None:
  """Writes the rows as one shard, named by the hash of its texts, so that equal shards coincide."""
  joined = b"".join(keys[row] for row in rows)
  path = folder / f"{hashlib.sha256(joined).hexdigest()[:32]}.npz"
  try:
    with runs.atomic_path(path) as temporary, temporary.open("wb") as file:
      np.savez(
        file,
        keys=np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES),
        vectors=vectors[rows],
        truncated=truncated[rows],
      )
  except OSError as error:
    raise InputError(f"{folder}: vectors cannot be saved: {error.strerror or error}") from None
