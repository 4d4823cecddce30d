"""The key-value cache: fixed shapes, one slot per token, filled from the left."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.lm.decoder.config import DecoderConfig

EMPTY = -1


class Cache(NamedTuple):
  """Keys and values of earlier tokens.

  Rows may have empty slots, marked in `positions`. This allows prompts of different lengths in one
  batch, in which all rows write their next token into the same slot.

  Attributes:
    keys, values: one [B, Hk, S, d] array per layer.
    positions: [B, S] int32, the position of the token in each slot; `EMPTY` for an empty slot.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  positions: jax.Array


def with_room(cache: Cache, slots: int) -> Cache:
  """Appends empty slots to the cache, up to `slots` in total."""
  more = slots - cache.positions.shape[1]

  def widened(array: jax.Array) -> jax.Array:
    return jnp.pad(array, ((0, 0), (0, 0), (0, more), (0, 0)))

  positions = jnp.pad(cache.positions, ((0, 0), (0, more)), constant_values=EMPTY)
  return Cache(tuple(map(widened, cache.keys)), tuple(map(widened, cache.values)), positions)


def visible(
  cache_positions: jax.Array, query_positions: jax.Array, window: int | None
) -> jax.Array:
  """Mask of the cache slots that each query may attend to.

  Args: cache_positions: [B or 1, S] int32. query_positions: [B, T] int32. window: as in `Layer`.
  Returns: [B, T, S] bool.
  """
  slot, query = cache_positions[:, None, :], query_positions[:, :, None]
  seen = (slot != EMPTY) & (slot <= query)
  return seen if window is None else seen & (query - slot < window)


def cache_bytes(config: DecoderConfig, *, rows: int, slots: int, dtype: str) -> int:
  """Returns the size of a cache of `rows` by `slots` tokens, in bytes."""
  one = rows * slots * config.kv_heads * config.head_size * jnp.dtype(dtype).itemsize
  return 2 * len(config.layers) * one + rows * slots * 4
