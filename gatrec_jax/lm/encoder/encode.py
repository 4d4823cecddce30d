"""Embeds texts with an encoder from `load.py`.

`encode` sorts the texts by length, runs them in batches of a few fixed shapes, and returns the
vectors in the order of the texts.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import hidden_states
from gatrec_jax.lm.encoder import bert
from gatrec_jax.lm.encoder.load import Encoder
from gatrec_jax.lm.encoder.pooling import Head, pool
from gatrec_jax.lm.tokens.plain_text import PlainText

# Tokens per batch and device; small on a CPU, so that a batch fits into its cache.
BATCH_TOKENS = {"cpu": 2_048, "other": 65_536}
TOKENIZED_AT_ONCE = 20_000


@dataclasses.dataclass(frozen=True)
class EncodeStats:
  """Statistics of an encoding: texts, truncated texts, tokens after truncation, seconds."""

  texts: int
  truncated: int
  tokens: int
  seconds: float

  @property
  def texts_per_second(self) -> float:
    return self.texts / self.seconds if self.seconds > 0 else 0.0


def encode(
  model: Encoder,
  texts: Sequence[str],
  *,
  max_tokens: int = 256,
  batch_tokens: int | None = None,
  progress: Callable[[int], None] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> tuple[np.ndarray, EncodeStats]:
  """Embeds texts.

  Args:
    model: the encoder.
    texts: N strings, which may be empty.
    max_tokens: longer texts are truncated to this many tokens, special tokens included.
    batch_tokens: tokens per batch and device; None for the device's default.
    progress: called with the number of texts of each finished batch.
    devices: batches are divided over these; None for all local devices.
  Returns: [N, D] float32 vectors, and statistics.
  Raises: InputError if max_tokens leaves no room for text.
  """
  start = time.perf_counter()
  ids, truncated = tokenize(model, texts, max_tokens=max_tokens)
  vectors = np.zeros((len(texts), model.dimension), np.float32)
  for rows, batch in encode_batches(model, ids, batch_tokens=batch_tokens, devices=devices):
    vectors[rows] = batch
    if progress is not None:
      progress(len(rows))
  if not np.isfinite(vectors).all():
    raise InputError(
      f"{model.name}: the encoder gives non-finite vectors; its weights are damaged or overflow in "
      f"{model.dtype}"
    )
  return vectors, EncodeStats(
    texts=len(texts),
    truncated=int(truncated.sum()),
    tokens=sum(map(len, ids)),
    seconds=time.perf_counter() - start,
  )


def tokenize(
  model: Encoder, texts: Sequence[str], *, max_tokens: int = 256
) -> tuple[list[np.ndarray], np.ndarray]:
  """Tokenizes texts, with special tokens.

  Returns: N int32 arrays of 1 to `max_tokens` ids; [N] bool, which texts were truncated.
  Raises: InputError if max_tokens leaves no room for text.
  """
  limit = min(max_tokens, model.max_tokens)
  if limit < max_tokens:
    warnings.warn(
      f"{model.name} has {limit} positions: texts are truncated there, not at "
      f"`encoder_max_tokens={max_tokens}`",
      stacklevel=2,
    )
  specials = model.tokenizer.num_special_tokens_to_add(False)
  if limit <= specials:
    raise InputError(
      f"must be above {specials}, the number of special tokens that {model.name} adds",
      field="encoder_max_tokens",
      value=max_tokens,
    )
  model.tokenizer.enable_truncation(max_length=limit)
  plain = PlainText(model.tokenizer)  # a text that spells "[SEP]" does not get that token
  ids, truncated = [], np.zeros(len(texts), bool)
  for start in range(0, len(texts), TOKENIZED_AT_ONCE):
    part = [model.prompt + text for text in texts[start : start + TOKENIZED_AT_ONCE]]
    if model.lower_case:
      part = [text.lower() for text in part]
    for row, encoding in enumerate(plain.batch(part), start):
      # Without special tokens, an empty text has no tokens.
      ids.append(np.asarray(encoding.ids or [model.padding_id], np.int32))
      if ids[-1].max() >= model.config.vocabulary:
        token = encoding.tokens[int(ids[-1].argmax())]
        raise InputError(
          f"{model.name}: the token {token!r}, which a text contains, has no row in the model's "
          f"table of {model.config.vocabulary}; leave it out of the texts"
        )
      truncated[row] = bool(encoding.overflowing)
  return ids, truncated


def encode_batches(
  model: Encoder,
  ids: Sequence[np.ndarray],
  *,
  batch_tokens: int | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Runs the encoder batch by batch, starting with the longest texts.

  Args: ids: N arrays of token ids, from `tokenize`. The rest as in `encode`.
  Yields: (rows [n] int64, vectors [n, D] float32); each row of `ids` occurs exactly once.
  """
  if not ids:
    return
  devices = list(devices or jax.local_devices())
  kind = "cpu" if devices[0].platform == "cpu" else "other"
  batch_tokens = batch_tokens or BATCH_TOKENS[kind]
  mesh = Mesh(np.array(devices), ("data",))
  by_rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("data",), ()))
  params = jax.device_put(model.params, everywhere)

  def rows_at(length: int) -> int:
    return batch_rows(length, batch_tokens) * len(devices)

  lengths = np.array([len(row) for row in ids], np.int32)
  buckets = bucket_lengths(model.max_tokens)
  bucket_of = np.searchsorted(buckets, lengths)
  running: collections.deque[tuple[np.ndarray, jax.Array]] = collections.deque()
  for bucket in reversed(range(len(buckets))):
    members = np.flatnonzero(bucket_of == bucket)
    members = members[np.argsort(lengths[members], kind="stable")]
    size = rows_at(buckets[bucket])
    for start in range(0, len(members), size):
      rows = members[start : start + size]
      batch = np.full((size, buckets[bucket]), model.padding_id, np.int32)
      for place, row in enumerate(rows):
        batch[place, : lengths[row]] = ids[row]
      # Rows that pad the last batch get length 1, to avoid a division by zero.
      counts = np.ones(size, np.int32)
      counts[: len(rows)] = lengths[rows]
      vectors = embed_tokens(
        params,
        jax.device_put(batch, by_rows),
        jax.device_put(counts, by_rows),
        config=model.config,
        head=model.head,
        dtype=model.dtype,
      )
      running.append((rows, vectors))
      # The next batch is prepared while this one runs.
      if len(running) > 1:
        yield _finished(*running.popleft())
  while running:
    yield _finished(*running.popleft())


@functools.partial(jax.jit, static_argnames=("config", "head", "dtype"))
def embed_tokens(
  params: Mapping[str, Any],
  ids: jax.Array,
  lengths: jax.Array,
  *,
  config: bert.EncoderConfig | DecoderConfig,
  head: Head,
  dtype: str,
) -> jax.Array:
  """Embeds right-padded token ids.

  Args: params: as in `Encoder`. ids: [B, T] int32. lengths: [B] int32, at least 1.
  Returns: [B, D] float32.
  """
  if isinstance(config, DecoderConfig):
    hidden = hidden_states(params["encoder"], ids, config=config, lengths=lengths)
  else:
    model = bert.EncoderModel(config, jnp.dtype(dtype))
    hidden = model.apply({"params": params["encoder"]}, ids, lengths)
  return pool(hidden, lengths, head=head, dense=params["dense"])


def bucket_lengths(limit: int) -> list[int]:
  """Lengths of batches: 16, 32, 48, 64, then four per octave, and `limit`.

  The length that a text is padded to depends only on the text. It therefore always runs in a batch
  of the same shape, and its vector does not depend on the other texts: float32 sums of other shapes
  would round differently.
  """
  steps = [*range(16, 65, 16), *range(96, 129, 32)]
  while steps[-1] < limit:
    steps.extend(steps[-1] + steps[-1] // 4 * np.arange(1, 5))
  return [int(step) for step in steps if step < limit] + [limit]


def batch_rows(length: int, batch_tokens: int) -> int:
  """Number of rows of a batch: as many as fit, rounded down to a multiple of 4 if possible."""
  rows = max(1, batch_tokens // length)
  return rows - rows % 4 if rows >= 4 else rows


def _finished(rows: np.ndarray, vectors: jax.Array) -> tuple[np.ndarray, np.ndarray]:
  return rows, np.asarray(vectors)[: len(rows)]
