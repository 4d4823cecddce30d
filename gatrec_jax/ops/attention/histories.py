"""Attention over histories: each receiver's incoming edges are a row of a padded array."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.ops.attention.logits import leaky, matrix_operations, spread_heads

Array = jax.Array


def history_logits(
  hidden: Array, vector: Array, slope: float, *, heads: int, bias: Array | None = None
) -> Array:
  """[B, L, H] logits aᵀ LeakyReLU(hidden) + bias, as in GATv2 (Brody et al. 2022, eq. 7).

  Args:
    hidden: [B, L, H · D] float32, the sum of the linear maps of event, query and edge features.
    vector: [H · D] float32, a.
    bias: broadcasts to [B, L, H]; None for 0.
  """
  logits = matrix_operations(heads).per_head(leaky(hidden, slope), vector)
  return logits if bias is None else logits + bias


def attend_histories(values: Array, logits: Array, inside: Array) -> tuple[Array, Array]:
  """Sums of each history's values, weighted by a softmax of its logits.

  It is the attention of `attention_v2` over edges from L events to each of B receivers.

  Args:
    values: [B, L, H · D] float32.
    logits: [B, L, H] float32.
    inside: [B, L] bool, which events there are.
  Returns: [B, H · D], 0 for a history without events; and the weights [B, L, H].

  >>> values = jnp.array([[[1.0], [3.0], [9.0]]])  # the last one is padding
  >>> inside = jnp.array([[True, True, False]])
  >>> attend_histories(values, jnp.zeros((1, 3, 1)), inside)[0].tolist()
  [[2.0]]
  """
  there = inside[:, :, None]
  largest = jnp.max(jnp.where(there, logits, -jnp.inf), axis=1, keepdims=True)
  largest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0))
  powers = jnp.where(there, jnp.exp(jnp.where(there, logits - largest, 0.0)), 0.0)
  total = jnp.sum(powers, axis=1, keepdims=True)
  weights = powers / jnp.where(total > 0, total, 1.0)
  spread = spread_heads(weights, values.shape[-1])
  return jnp.sum(spread * values, axis=1), weights
