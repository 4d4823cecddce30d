"""Matrices that stay in 4 or 8 bits, as GGUF files store them."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.folders.gguf_blocks import BLOCK, Words
from gatrec_jax.sharding.placement import to_device


@flax.struct.dataclass
class Packed:
  """A matrix [out, in]: scale · multiplier · (integer − offset) − minimum · minimum_multiplier.

  Attributes:
    words: [in / 32, bits, out] int32: 32 integers of an output, in order, from the lowest bits.
    scale: [in / 32, out] float32, or [in / 256, out], one for eight blocks.
    multipliers: [in / 32, out] int8, or [in / 16, out], one for each half of a block; None for 1.
    minimum: like `scale`; None for 0. minimum_multipliers: [in / 32, out] int8; None for 1.
    bits: 4 or 8. offset: that is taken off.
  """

  words: jax.Array
  scale: jax.Array
  multipliers: jax.Array | None
  minimum: jax.Array | None
  minimum_multipliers: jax.Array | None
  bits: int = flax.struct.field(pytree_node=False)
  offset: int = flax.struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, int]:
    """(out, in)."""
    return self.words.shape[2], self.words.shape[0] * BLOCK

  @property
  def size(self) -> int:
    """The number of weights."""
    return math.prod(self.shape)

  @property
  def parts(self) -> int:
    """Parts of a block that have a scale each."""
    return 1 if self.multipliers is None else self.multipliers.shape[0] // self.words.shape[0]

  def rows(self, chosen: jax.Array) -> Packed:
    """[R, in]: some rows of the matrix. Args: chosen: [R] int32."""
    return jax.tree.map(lambda leaf: leaf[..., chosen], self)


def packed_words(words: Words, place: Callable[[np.ndarray], jax.Array] = to_device) -> Packed:
  """What a file has, on a device. Args: place: puts an array there."""
  arrays = (words.scale, words.multipliers, words.minimum, words.minimum_multipliers)
  placed = [None if one is None else place(one) for one in arrays]
  return Packed(place(words.words), *placed, bits=words.bits, offset=words.offset)


def dequantized(matrix: Packed, dtype: jnp.dtype = jnp.float32) -> jax.Array:
  """The values [in, out], transposed. Computed in float32, exactly as the `gguf` package does."""
  return tile_of(axes_of(matrix), 0, matrix.shape[0], matrix, dtype)


def axes_of(matrix: Packed) -> tuple[jax.Array | None, ...]:
  """Its arrays with six axes that broadcast.

  They are: groups of blocks that share a scale, blocks of a group, their parts, words of a part,
  integers of a word, outputs.
  """
  blocks, bits, out = matrix.words.shape
  supers, parts = matrix.scale.shape[0], matrix.parts
  each = blocks // supers

  def shaped(values: jax.Array | None, *shape: int) -> jax.Array | None:
    return None if values is None else values.reshape(*shape, *[1] * (5 - len(shape)), out)

  return (
    shaped(matrix.words, supers, each, parts, bits // parts),
    shaped(matrix.scale, supers),
    shaped(matrix.multipliers, supers, each, parts),
    shaped(matrix.minimum, supers),
    shaped(matrix.minimum_multipliers, supers, each),
  )


def tile_of(
  arrays: tuple[jax.Array | None, ...],
  first: jax.Array | int,
  width: int,
  matrix: Packed,
  dtype: jnp.dtype,
) -> jax.Array:
  """[in, width]: some outputs of a matrix, dequantized. Args: arrays: from `axes_of`."""
  words, scale, multipliers, minimum, minimum_multipliers = (
    None if one is None else jax.lax.dynamic_slice_in_dim(one, first, width, axis=-1)
    for one in arrays
  )
  shifts = matrix.bits * jnp.arange(BLOCK // matrix.bits, dtype=jnp.int32)[:, None]
  values = (((words >> shifts) & ((1 << matrix.bits) - 1)) - matrix.offset).astype(jnp.float32)
  values *= scale if multipliers is None else scale * multipliers
  if minimum is not None:
    values -= minimum if minimum_multipliers is None else minimum * minimum_multipliers
  # With a reshape among them, XLA would compute all places anew, number by number.
  return jax.lax.optimization_barrier(values.astype(dtype)).reshape(-1, width)
