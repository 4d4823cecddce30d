"""The cache of keys and values: fixed shapes, one slot a token, filled from the left."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.lm.decoder.config import DecoderConfig

EMPTY = -1


class Cache(NamedTuple):
  """Keys and values of earlier tokens.

  Rows may have holes: a slot counts only where `positions` says which token it holds. So prompts of
  different lengths stand side by side, and all rows write their next token into the same slot.

  Attributes:
    keys, values: one [B, Hk, S, d] array a layer.
    positions: [B, S] int32, the position of the token in each slot, `EMPTY` where there is none.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  positions: jax.Array


def with_room(cache: Cache, slots: int) -> Cache:
  """The cache with empty slots behind, so that it has `slots` of them."""
  more = slots - cache.positions.shape[1]

  def wide(array):
    return jnp.pad(array, ((0, 0), (0, 0), (0, more), (0, 0)))

  positions = jnp.pad(cache.positions, ((0, 0), (0, more)), constant_values=EMPTY)
  return Cache(tuple(map(wide, cache.keys)), tuple(map(wide, cache.values)), positions)


def visible(
  cache_positions: jax.Array, query_positions: jax.Array, window: int | None
) -> jax.Array:
  """Which slots each query may see.

  Args: cache_positions: [B or 1, S] int32. query_positions: [B, T] int32. window: as in a layer.
  Returns: [B, T, S] bool.
  """
  slot, query = cache_positions[:, None, :], query_positions[:, :, None]
  seen = (slot != EMPTY) & (slot <= query)
  return seen if window is None else seen & (query - slot < window)


def cache_bytes(config: DecoderConfig, *, rows: int, slots: int, dtype: str) -> int:
  """Bytes of a cache of that size."""
  one = rows * slots * config.kv_heads * config.head_size * jnp.dtype(dtype).itemsize
  return 2 * len(config.layers) * one + rows * slots * 4
