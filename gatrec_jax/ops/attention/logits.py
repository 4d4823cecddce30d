"""The logits of each kind of attention, shared by all implementations.

A kind is a function of an edge: the value and terms of its sender, the terms of its receiver, and
its features. Arrays may have any leading axes that broadcast; heads are flattened into the last
axis, [..., H · D]. Each implementation chooses how the two operations on the head axis are done
(`Operations`): XLA's CPU backend computes matrix products many times faster than reductions over
short axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Operations(NamedTuple):
  """Attributes:
  per_head: (x [..., H · D], vector [H · D]) -> [..., H], the dot products head by head.
  outer: (feature [...], row [M]) -> [..., M], their outer product.
  """

  per_head: Callable[[Array, Array], Array]
  outer: Callable[[Array, Array], Array]


class Terms(NamedTuple):
  """The arguments of a kind of attention besides the values.

  Attributes:
    source, target: [N, M] float32, gathered by senders and by receivers; source may be None.
    params: a pytree of parameters.
    slope: [] float32, of the LeakyReLU; not differentiated.
  """

  source: Array | None
  target: Array
  params: Any
  slope: Array


Logits = Callable[[Array, Array | None, Array, Sequence[Array], Any, Array, Operations], Array]
"""(value [..., H · D], source, target, F features [...], params, slope, ops) -> [..., H]."""


def logits_v2(
  value: Array,
  source: None,
  target: Array,
  features: Sequence[Array],
  params: Any,
  slope: Array,
  ops: Operations,
) -> Array:
  """aᵀ LeakyReLU(W_s x_j + W_t x_i + W_e e_ij). Params: a [H · D], W_e [F, H · D]."""
  vector, kernel = params
  hidden = value + target
  for f, feature in enumerate(features):
    hidden += ops.outer(feature, kernel[f])
  return ops.per_head(leaky(hidden, slope), vector)


def logits_v1(
  value: Array,
  source: Array,
  target: Array,
  features: Sequence[Array],
  params: Any,
  slope: Array,
  ops: Operations,
) -> Array:
  """LeakyReLU(a_s·Wx_j + a_t·Wx_i + a_e·e_ij), the first two given. Params: a_e [F, H]."""
  total = source + target
  for f, feature in enumerate(features):
    total += ops.outer(feature, params[f])
  return leaky(total, slope)


def logits_light(
  value: Array,
  source: Array,
  target: Array,
  features: Sequence[Array],
  params: Any,
  slope: Array,
  ops: Operations,
) -> Array:
  """LeakyReLU(a_s·x_j + a_t·x_i) + a_e·e_ij, the first two given. Params: a_e [F, H]."""
  total = leaky(source + target, slope)
  for f, feature in enumerate(features):
    total += ops.outer(feature, params[f])
  return total


def leaky(x: Array, slope: Array) -> Array:
  """LeakyReLU with a slope that may be traced."""
  return jnp.where(x >= 0, x, slope * x)


def matrix_operations(heads: int) -> Operations:
  """Operations as matrix products, forward and backward."""
  return Operations(functools.partial(_per_head, heads), _outer)


def dots_of_heads(values: Array, vectors: Sequence[Array]) -> list[Array]:
  """The dot products of [N, H, D] values with vectors [H, D], head by head: [N, H] float32 each.

  One matrix product makes all of them, and one their gradient by the values.
  """
  heads = values.shape[1]
  flat = values.reshape(values.shape[0], -1).astype(jnp.float32)
  blocks = _blocks(heads, flat.shape[1])
  matrix = jnp.concatenate([blocks * vector.reshape(-1, 1) for vector in vectors], axis=1)
  return jnp.split(product(flat, matrix), len(vectors), axis=1)


def head_sums(x: Array, heads: int) -> Array:
  """[..., H · D] -> [..., H], sums over D."""
  return product(x, _blocks(heads, x.shape[-1]))


def spread_heads(x: Array, width: int) -> Array:
  """[..., H] -> [..., H · D], each number repeated; `width` is H · D."""
  return product(x, _blocks(x.shape[-1], width).T)


def product(a: Array, b: Array) -> Array:
  """a @ b in float32 (on accelerators too)."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def column_sums(x: Array) -> Array:
  """[..., M] -> [M], the sums over all leading axes."""
  flat = x.reshape(-1, x.shape[-1])
  return product(jnp.ones((1, flat.shape[0]), x.dtype), flat)[0]


def _blocks(heads: int, width: int) -> Array:
  """[H · D, H], 1 where a column is of the head."""
  return jnp.repeat(jnp.eye(heads, dtype=jnp.float32), width // heads, axis=0)


@jax.custom_vjp
def _outer(feature: Array, row: Array) -> Array:
  return feature[..., None] * row


def _outer_forward(feature: Array, row: Array) -> tuple[Array, tuple[Array, Array]]:
  return _outer(feature, row), (feature, row)


def _outer_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
  feature, row = kept
  flat = gradient.reshape(-1, gradient.shape[-1])
  return product(gradient, row), product(feature.reshape(1, -1), flat)[0]


_outer.defvjp(_outer_forward, _outer_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _per_head(heads: int, x: Array, vector: Array) -> Array:
  return product(x, _blocks(heads, x.shape[-1]) * vector[:, None])


def _per_head_forward(heads: int, x: Array, vector: Array) -> tuple[Array, tuple[Array, Array]]:
  return _per_head(heads, x, vector), (x, vector)


def _per_head_backward(
  heads: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  del heads
  x, vector = kept
  spread = spread_heads(gradient, x.shape[-1])
  return spread * vector, column_sums(spread * x)


_per_head.defvjp(_per_head_forward, _per_head_backward)
