"""Products with packed matrices, whose integers are unpacked within the product.

For one row on a CPU that is a loop over blocks of the inputs, whose body is elementwise in the
outputs, which XLA turns into vector instructions; several rows are multiplied with tiles of the
matrix that fit into a cache. These forms were chosen by measurement (launch/benchmarks/RESULTS.md
7): others that say the same are up to ten times as slow. A few rows on a GPU are for
`packed_kernel`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.decoder.packed import Packed, axes_of, dequantized, tile_of
from gatrec_jax.lm.decoder.packed_kernel import has_kernel, kernel_product
from gatrec_jax.lm.folders.gguf_blocks import BLOCK

# Numbers of a tile.
_FEW_TILE, _TILE = 1 << 20, 1 << 22
_SUMS = 4
# XLA divides each step among threads, which costs more than it gains below this many outputs. What
# it writes into a row of an array, in place, it does not divide.
_WIDE = 4096


# Traced once for all matrices of a shape, which are many.
@jax.jit
def vector_product(x: jax.Array, matrix: Packed) -> jax.Array:
  """W x in float32, [out]. Args: x: [in] float. matrix: W, [out, in]."""
  blocks, bits, out = matrix.words.shape
  supers = blocks // matrix.scale.shape[0]
  x = x.astype(jnp.float32).reshape(blocks, BLOCK)
  parts = matrix.parts
  of_parts = x.reshape(blocks, parts, -1).sum(axis=-1)
  of_blocks = x.sum(axis=-1)
  scaled = x * np.exp2(-_shifts_left(bits)).astype(np.float32)

  def added(number: jax.Array) -> jax.Array:
    """[out]: a block's part. Everything in it is [out] or a number: XLA makes one loop of it."""

    def own(values: jax.Array, place: jax.Array = number) -> jax.Array:
      return jax.lax.dynamic_index_in_dim(values, place, keepdims=False)

    words, inputs, sums = own(matrix.words), own(scaled), own(of_parts)
    scale = own(matrix.scale, number // supers)
    found = jnp.float32(0.0)
    for part in range(parts):
      product = _block_product(words, inputs, bits=bits, part=part, parts=parts)
      if matrix.offset:
        product -= matrix.offset * sums[part]
      several = matrix.multipliers
      found += product * (scale if several is None else scale * own(several, number * parts + part))
    if matrix.minimum is not None:
      minimum = own(matrix.minimum, number // supers)
      if matrix.minimum_multipliers is not None:
        minimum *= own(matrix.minimum_multipliers)
      found -= minimum * own(of_blocks)
    return found

  def step(number: jax.Array, total: jax.Array) -> jax.Array:
    if out > _WIDE:
      return total + added(number)
    row = number % 2
    own = jax.lax.dynamic_index_in_dim(total, row, keepdims=False) + added(number)
    return jax.lax.dynamic_update_index_in_dim(total, own, row, 0)

  start = jnp.zeros(out if out > _WIDE else (2, out))
  total = jax.lax.fori_loop(0, blocks, step, start)
  return total if out > _WIDE else total.sum(axis=0)


def _block_product(
  words: jax.Array, inputs: jax.Array, *, bits: int, part: int, parts: int
) -> jax.Array:
  """[out]: the integers of a part of a block times its inputs.

  Args:
    words: [bits, out] int32.
    inputs: [32], divided by the powers of two by which integers are too large where they lie.
    part, parts: the first, second … of equal parts.
  """
  sums: list[Any] = [0.0] * _SUMS  # several, as an addition waits for the last one
  for place in range(part * BLOCK // parts, (part + 1) * BLOCK // parts):
    word, shift = divmod(place * bits, 32)
    if shift + bits == 32:  # in place, the highest bit would be a sign
      integers = jax.lax.shift_right_logical(words[word], shift)
    else:
      integers = words[word] & (((1 << bits) - 1) << shift)
    sums[place % _SUMS] += integers.astype(jnp.float32) * inputs[place]
  return (sums[0] + sums[1]) + (sums[2] + sums[3])


def _shifts_left(bits: int) -> np.ndarray:
  """[32] int: how far left the integers of a block lie as `_block_product` takes them."""
  shifts = np.arange(BLOCK) * bits % 32
  return np.where(shifts + bits == 32, 0, shifts)


@functools.partial(jax.jit, static_argnames="few")
def tiled_product(x: jax.Array, matrix: Packed, *, few: bool) -> jax.Array:
  """x Wᵀ in float32, [rows, out], over tiles of outputs, which are dequantized one by one.

  Args: x: [rows, in] float. matrix: W, [out, in]. few: whether tiles fit into a core's own cache,
    as a few rows need them.
  """
  arrays, out = axes_of(matrix), matrix.shape[0]
  width = _width_of_tiles(matrix, few=few)

  def product(first: jax.Array | int, width: int) -> jax.Array:
    return _dot(x, tile_of(arrays, first, width, matrix, x.dtype))

  def step(number: jax.Array, total: jax.Array) -> jax.Array:
    first = number * width
    return jax.lax.dynamic_update_slice(total, product(first, width), (0, first))

  whole = out // width
  total = jax.lax.fori_loop(0, whole, step, jnp.zeros((len(x), out)))
  if rest := out - whole * width:
    total = total.at[:, whole * width :].set(product(whole * width, rest))
  return total


@jax.jit
def transposed_product(y: jax.Array, matrix: Packed) -> jax.Array:
  """y W in float32, [rows, in], over tiles. Args: y: [rows, out] float. matrix: W, [out, in]."""
  arrays, (out, inputs) = axes_of(matrix), matrix.shape
  width = _width_of_tiles(matrix, few=False)

  def product(first: jax.Array | int, width: int) -> jax.Array:
    own = jax.lax.dynamic_slice_in_dim(y, first, width, axis=1)
    return _dot(own, tile_of(arrays, first, width, matrix, y.dtype).T)

  whole = out // width
  total = jax.lax.fori_loop(
    0, whole, lambda n, total: total + product(n * width, width), jnp.zeros((len(y), inputs))
  )
  rest = out - whole * width
  return total + product(whole * width, rest) if rest else total


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def packed_product(x: jax.Array, matrix: Packed, few: bool) -> jax.Array:
  """x Wᵀ in float32, [rows, out], in the form for the device. Differentiable in x alone.

  Args: x: [rows, in] float. matrix: W, [out, in]. few: whether these are single tokens.
  """
  if few and len(x) == 1:
    on_cpu = lambda x, matrix: vector_product(x[0], matrix)[None]  # noqa: E731
  else:
    on_cpu = functools.partial(tiled_product, few=few)
  on_gpu = kernel_product if few and has_kernel(len(x), matrix) else _whole_product
  return jax.lax.platform_dependent(x, matrix, cpu=on_cpu, cuda=on_gpu, default=_whole_product)


def _forward(x: jax.Array, matrix: Packed, few: bool) -> tuple[jax.Array, Any]:
  # An empty array carries the dtype.
  return packed_product(x, matrix, few), (matrix, x[:0])


def _backward(few: bool, kept: Any, gradient: jax.Array) -> tuple[jax.Array, None]:
  matrix, like = kept
  return transposed_product(gradient.astype(like.dtype), matrix).astype(like.dtype), None


packed_product.defvjp(_forward, _backward)


def _whole_product(x: jax.Array, matrix: Packed) -> jax.Array:
  return _dot(x, dequantized(matrix, x.dtype))


def _dot(x: jax.Array, values: jax.Array) -> jax.Array:
  """A product in float32; by default, GPUs and TPUs multiply float32 numbers in fewer bits."""
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return jnp.dot(x, values, precision=precision, preferred_element_type=jnp.float32)


def _width_of_tiles(matrix: Packed, *, few: bool) -> int:
  out, inputs = matrix.shape
  return min(out, max(1, (_FEW_TILE if few else _TILE) // inputs))
