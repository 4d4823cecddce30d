"""Small numeric helpers: unit vectors, settings that may be traced, dropout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def unit(vectors: jax.Array) -> jax.Array:
  """[..., D] vectors scaled to length 1; a zero vector stays zero, with zero gradient.

  >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(3))
  [[0.6 0.8]
   [0.  0. ]]
  """
  square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
  safe = jnp.where(square > 0, square, 1.0)
  return jnp.where(square > 0, vectors * jax.lax.rsqrt(safe), 0.0)


def is_off(value: Any) -> bool:
  """Whether a setting is known to be 0; False for traced values."""
  return isinstance(value, int | float) and value == 0


def drop(key: Array, values: Array, rate: Any) -> Array:
  """Dropout: each value becomes 0 with probability `rate` (may be traced), else value ÷ (1 − rate).

  `key` is consumed.

  >>> sorted(set(drop(jax.random.key(0), jnp.ones(100), 0.5).tolist()))
  [0.0, 2.0]
  """
  if is_off(rate):
    return values
  kept = jax.random.bernoulli(key, 1 - rate, values.shape)
  return jnp.where(kept, values / (1 - rate), 0.0)
