"""Gated recurrent units over rows in which several sequences may follow each other."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class GatedRecurrence(nn.Module):
  """Layers of gated recurrent units (Cho et al. 2014), and a linear map of the last one's states.

  Attributes: layers: how many, each of width D.
  """

  layers: int

  @nn.compact
  def __call__(self, vectors: Array, continues: Array) -> Array:
    """[B, T, D] float32, a state after each place.

    Args: vectors: [B, T, D] float32. continues: [B, T] bool, whether a place goes on with the
      sequence of the place before it; else a new one begins.
    """
    width = vectors.shape[-1]
    for number in range(self.layers):
      read = nn.Dense(3 * width, name=f"read_{number}")(vectors)
      kernel = self.param(f"state_{number}", _orthogonal_gates, (width, 3 * width))
      bias = self.param(f"candidate_bias_{number}", nn.initializers.zeros, (width,))
      vectors = gated_states(read, continues, kernel=kernel, bias=bias)
    return nn.Dense(width, name="output")(vectors)


def gated_states(read: Array, continues: Array, *, kernel: Array, bias: Array) -> Array:
  """The states h_t of one layer, with h = 0 where a sequence begins.

  z, r = σ(read_z + h_{t−1} K_z), σ(read_r + h_{t−1} K_r),
  n = tanh(read_n + r ⊙ (h_{t−1} K_n + b)), h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.

  Args:
    read: [B, T, 3 D] float32, of z, r and n. continues: [B, T] bool.
    kernel: K [D, 3 D] float32. bias: b [D] float32.
  Returns: [B, T, D] float32.
  """
  width = len(kernel)

  def step(state: Array, place: tuple[Array, Array]) -> tuple[Array, Array]:
    read, goes_on = place
    state = jnp.where(goes_on[:, None], state, 0.0)
    of_state = state @ kernel
    gates = jax.nn.sigmoid(read[:, : 2 * width] + of_state[:, : 2 * width])
    keep, reset = jnp.split(gates, 2, axis=1)
    new = jnp.tanh(read[:, 2 * width :] + reset * (of_state[:, 2 * width :] + bias))
    state = (1 - keep) * new + keep * state
    return state, state

  begin = jnp.zeros((read.shape[0], width), read.dtype)
  places = jnp.moveaxis(read, 1, 0), jnp.moveaxis(continues, 1, 0)
  return jnp.moveaxis(jax.lax.scan(step, begin, places)[1], 0, 1)


def _orthogonal_gates(key: Array, shape: tuple[int, int]) -> Array:
  """An orthogonal matrix for each of the three gates, side by side."""
  width = shape[0]
  keys = jax.random.split(key, 3)
  return jnp.concatenate([nn.initializers.orthogonal()(k, (width, width)) for k in keys], axis=1)
