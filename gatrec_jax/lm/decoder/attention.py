"""Causal attention of decoder blocks: over the tokens at hand, and over a cache of earlier ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.errors import InputError

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "pallas")
# Queries are taken in blocks, as a block needs only the keys before its end. Not in too many, since
# each is compiled on its own.
QUERY_BLOCK = 128
MOST_BLOCKS = 8
# Keys are padded to a multiple of it: products of these widths round alike on a CPU (of 20 and 36
# keys they did not), so that a text's numbers do not depend on how far its row is padded.
KEY_MULTIPLE = 64
MASKED = -1e30  # finite, so that a row that sees nothing gives numbers and not NaN


class Keys(NamedTuple):
  """Keys and values that queries look at, and which query may see which.

  Attributes:
    key, value: [R, Hk, S, d], R a divisor of B: each row is shared by B / R rows that follow each
      other in the batch.
    visible: [B, T, S] bool.
  """

  key: jax.Array
  value: jax.Array
  visible: jax.Array


def resolve_attention(
  implementation: str, *, head_size: int, softcap: float | None, dtype: jnp.dtype
) -> str:
  """The implementation that `auto` means here; the others are checked.

  Raises: InputError where the implementation does not exist or cannot do what the model needs.
  """
  if implementation not in IMPLEMENTATIONS:
    raise InputError(
      f"not one of {', '.join(IMPLEMENTATIONS)}", field="attention", value=implementation
    )
  platform = jax.default_backend()
  # cuDNN: read in jax.nn.dot_product_attention; head sizes to 256 need a Hopper card.
  limits = {
    "needs a GPU": platform in ("gpu", "cuda", "rocm"),
    "needs bfloat16": dtype in (jnp.bfloat16, jnp.float16),
    f"cannot do heads of {head_size}": head_size % 8 == 0 and head_size <= 128,
    "has no soft-cap": softcap is None,
  }
  missing = [reason for reason, holds in limits.items() if not holds]
  if implementation == "auto":
    return "xla" if missing else "cudnn"
  if implementation == "cudnn" and missing:
    raise InputError(f"it {missing[0]}; use `attention=xla`", field="attention", value="cudnn")
  return implementation


def self_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  lengths: jax.Array,
  segments: jax.Array | None,
  window: int | None,
  scale: float,
  softcap: float | None,
  implementation: str,
) -> jax.Array:
  """Attention of a sequence to itself, causal.

  Args:
    query: [B, T, H, d]. key, value: [B, T, Hk, d]; Hk divides H.
    lengths: [B] int32; tokens from there on are padding.
    segments: [B, T] int32; tokens see only those of their own segment; None for one segment.
    window: tokens seen, the own included; None for all before.
    scale: of the scores. softcap: c in c·tanh(score / c).
    implementation: `xla`, `cudnn` or `pallas`; packed rows always take `xla`.
  Returns: [B, T, H, d] in the dtype of `query`; rows of padding have no meaning.
  """
  if segments is None and implementation == "cudnn":
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      scale=scale,
      is_causal=True,
      query_seq_lengths=lengths,
      key_value_seq_lengths=lengths,
      local_window_size=None if window is None else (window - 1, 0),
      implementation="cudnn",
    )
  if segments is None and implementation == "pallas":
    from gatrec_jax.lm.decoder.flash import flash_attention

    return flash_attention(query, key, value, lengths, scale=scale, window=window, softcap=softcap)
  settings = {"window": window, "scale": scale, "softcap": softcap}
  arrays = (query, key, value, lengths, segments)
  if query.shape[0] == 1 or query.shape[1] < QUERY_BLOCK:
    return _in_blocks(*arrays, **settings)

  def row_by_row(*arrays: jax.Array | None) -> jax.Array:
    def one(row: tuple[jax.Array | None, ...]) -> jax.Array:
      return _in_blocks(*jax.tree.map(lambda array: array[None], row), **settings)[0]

    return jax.lax.map(one, arrays)

  # The scores of one row stay in a CPU's cache: half the time at 8 rows of 512 tokens.
  return jax.lax.platform_dependent(
    *arrays, cpu=row_by_row, default=functools.partial(_in_blocks, **settings)
  )


def _in_blocks(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  lengths: jax.Array,
  segments: jax.Array | None,
  *,
  window: int | None,
  scale: float,
  softcap: float | None,
) -> jax.Array:
  """`self_attention` in plain operations, block of queries by block."""
  length = query.shape[1]
  by_head = (0, 2, 1, 3)
  rest = ((0, 0), (0, -length % KEY_MULTIPLE), (0, 0), (0, 0))
  key, value = (jnp.pad(array, rest).transpose(by_head) for array in (key, value))
  if segments is not None:
    key_segments = jnp.pad(segments, rest[:2])
  size = QUERY_BLOCK * max(1, -(-length // (QUERY_BLOCK * MOST_BLOCKS)))
  blocks = []
  for start in range(0, length, size):
    end = min(start + size, length)
    first = 0 if window is None else max(0, start - window + 1) // KEY_MULTIPLE * KEY_MULTIPLE
    last = end + -end % KEY_MULTIPLE
    rows, columns = jnp.arange(start, end)[:, None], jnp.arange(first, last)[None, :]
    visible = columns <= rows
    if window is not None:
      visible &= rows - columns < window
    visible = visible[None] & (columns[None] < lengths[:, None, None])
    if segments is not None:
      visible &= segments[:, start:end, None] == key_segments[:, None, first:last]
    keys = Keys(key[:, :, first:last], value[:, :, first:last], visible)
    blocks.append(attend(query[:, start:end], [keys], scale=scale, softcap=softcap))
  return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def attend(
  query: jax.Array, keys: Sequence[Keys], *, scale: float, softcap: float | None
) -> jax.Array:
  """One softmax over all groups of keys, the scores of each group computed apart.

  A row of keys that rows of the batch share (a common prefix) is multiplied once, with all their
  queries folded into one matrix.

  Args: query: [B, T, H, d]. keys: the groups. scale, softcap: as in `self_attention`.
  Returns: [B, T, H, d] in the dtype of `query`.
  """
  batch, length, heads, size = query.shape
  kv_heads = keys[0].key.shape[1]
  grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, size)
  scores = []
  for group in keys:
    score = _scores(grouped, group.key) * scale
    if softcap is not None:
      score = softcap * jnp.tanh(score / softcap)
    scores.append(jnp.where(group.visible[:, None, :, None, :], score, MASKED))
  highest = scores[0].max(axis=-1, keepdims=True)
  for score in scores[1:]:
    highest = jnp.maximum(highest, score.max(axis=-1, keepdims=True))
  highest = jax.lax.stop_gradient(highest)
  weights = [jnp.exp(score - highest) for score in scores]
  total = sum(weight.sum(axis=-1, keepdims=True) for weight in weights)
  mixed = sum(_mixed(w.astype(query.dtype), g.value) for w, g in zip(weights, keys, strict=True))
  mixed = (mixed / total).astype(query.dtype)  # on [T, d] instead of on [T, S]
  return mixed.transpose(0, 2, 1, 3, 4).reshape(batch, length, heads, size)


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
  """query [B, T, Hk, G, d], key [R, Hk, S, d] -> [B, Hk, T, G, S] float32."""
  batch, length, kv_heads, group, size = query.shape
  rows = key.shape[0]
  folded = query.reshape(rows, batch // rows, length, kv_heads, group, size)
  folded = folded.transpose(0, 3, 1, 2, 4, 5).reshape(rows, kv_heads, -1, size)
  score = _matmul(folded, key.swapaxes(2, 3))
  score = score.reshape(rows, kv_heads, batch // rows, length, group, -1).swapaxes(1, 2)
  return score.reshape(batch, kv_heads, length, group, -1)


def _mixed(weights: jax.Array, value: jax.Array) -> jax.Array:
  """weights [B, Hk, T, G, S], value [R, Hk, S, d] -> [B, Hk, T, G, d] float32."""
  batch, kv_heads, length, group, slots = weights.shape
  rows = value.shape[0]
  folded = weights.reshape(rows, batch // rows, kv_heads, length, group, slots).swapaxes(1, 2)
  mixed = _matmul(folded.reshape(rows, kv_heads, -1, slots), value)
  mixed = mixed.reshape(rows, kv_heads, batch // rows, length, group, -1).swapaxes(1, 2)
  return mixed.reshape(batch, kv_heads, length, group, -1)


def _matmul(left: jax.Array, right: jax.Array) -> jax.Array:
  """Batched over the two leading axes, summed in float32."""
  precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
  return jnp.matmul(left, right, precision=precision, preferred_element_type=jnp.float32)
