"""Causal attention of decoder blocks, over the current tokens and over a cache of earlier ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.errors import InputError

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "pallas")
# Queries are processed in blocks, because a block needs only the keys before its end. The number of
# blocks is limited because each of them is compiled separately.
QUERY_BLOCK = 128
MOST_BLOCKS = 8
# Keys are padded to a multiple of this: on a CPU, products of these widths round alike (those of 20
# and 36 keys did not), so a text's logits do not depend on how far its row is padded.
KEY_MULTIPLE = 64
MASKED = -1e30  # finite, so a fully masked row gives finite values instead of NaN


class Keys(NamedTuple):
  """Keys and values, and which of them each query may attend to.

  Attributes:
    key, value: [R, Hk, S, d], where R divides B: each row is shared by B / R consecutive rows of
      the batch.
    visible: [B, T, S] bool.
  """

  key: jax.Array
  value: jax.Array
  visible: jax.Array


def resolve_attention(
  implementation: str, *, head_size: int, softcap: float | None, dtype: jnp.dtype
) -> str:
  """Resolves `auto` to the implementation to use, and checks any other choice.

  Raises: InputError if the implementation does not exist or does not support the model.
  """
  if implementation not in IMPLEMENTATIONS:
    raise InputError(
      f"not one of {', '.join(IMPLEMENTATIONS)}", field="attention", value=implementation
    )
  platform = jax.default_backend()
  # Limits of cuDNN in jax.nn.dot_product_attention; head sizes up to 256 would need a Hopper card.
  limits = {
    "needs a GPU": platform in ("gpu", "cuda", "rocm"),
    "needs bfloat16": dtype in (jnp.bfloat16, jnp.float16),
    f"does not support heads of size {head_size}": head_size % 8 == 0 and head_size <= 128,
    "does not support a soft-cap": softcap is None,
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
  """Causal self-attention of a batch of sequences.

  Args:
    query: [B, T, H, d]. key, value: [B, T, Hk, d]; Hk divides H.
    lengths: [B] int32, tokens of each row; the rest is padding.
    segments: [B, T] int32; tokens attend only within their segment; None for a single segment.
    window: number of tokens attended to, including the query's own; None for no limit.
    scale: multiplies the scores. softcap: c in c·tanh(score / c); None for no cap.
    implementation: `xla`, `cudnn` or `pallas`; packed rows always use `xla`.
  Returns: [B, T, H, d] in the dtype of `query`; values at padding are meaningless.
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

  # Row by row, the scores stay in a CPU's cache: half the time for 8 rows of 512 tokens.
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
  """`self_attention` in plain XLA operations, one block of queries after another."""
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
  """Attention with one softmax over several groups of keys, such as a cache and new tokens.

  If rows of the batch share a row of keys (a common prefix), their queries are folded into one
  matrix and multiplied with it once.

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
  mixed = (mixed / total).astype(query.dtype)  # dividing [T, d] is cheaper than dividing [T, S]
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
  """Matrix product batched over the two leading axes, accumulated in float32."""
  precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
  return jnp.matmul(left, right, precision=precision, preferred_element_type=jnp.float32)
