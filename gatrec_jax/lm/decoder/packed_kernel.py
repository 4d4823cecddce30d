"""Products of a few rows with a packed matrix as a Pallas kernel for NVIDIA GPUs (Triton).

Decoding reads every weight once per token, so its speed is that of memory: the kernel reads the
packed words and unpacks them in registers. Each program has a tile of outputs and a share of the
inputs, as many shares as it takes to occupy a GPU; the shares are added up afterwards.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.folders.gguf_blocks import BLOCK

# Rows that a program holds sums of, in registers.
MOST_ROWS = 8
_TILE, _LEAST_TILE = 128, 16
_PROGRAMS = 512


def has_kernel(rows: int, matrix: Packed) -> bool:
  """Whether `kernel_product` takes so many rows, and a matrix of this many outputs."""
  return 0 < rows <= MOST_ROWS and math.gcd(matrix.shape[0], _TILE) >= _LEAST_TILE


def kernel_product(x: jax.Array, matrix: Packed, *, interpret: bool = False) -> jax.Array:
  """x Wᵀ in float32, [rows, out]. Under a mesh, XLA gathers the matrix first.

  Args: x: [rows, in] float. matrix: W, [out, in]; both as `has_kernel` takes them. interpret:
    whether to run it as plain XLA operations, for tests.
  """
  blocks, bits, out = matrix.words.shape
  rows, parts, supers = len(x), matrix.parts, matrix.scale.shape[0]
  tile = math.gcd(out, _TILE)
  wanted = -(-_PROGRAMS * tile // out)
  shares = max(n for n in range(1, blocks + 1) if blocks % n == 0 and n <= wanted)

  def of_outputs(values: jax.Array) -> tuple[jax.Array, pl.BlockSpec]:
    """All of an array for a tile of outputs, its last axis."""
    shape, before = values.shape, values.ndim - 1
    return values, pl.BlockSpec((*shape[:-1], tile), lambda place, _: (*[0] * before, place))

  whole = pl.BlockSpec((rows, blocks, BLOCK), lambda *_: (0, 0, 0))
  given = [(x.astype(jnp.float32).reshape(rows, blocks, BLOCK), whole)]
  given += [of_outputs(matrix.words), of_outputs(matrix.scale)]
  if matrix.multipliers is not None:
    given.append(of_outputs(matrix.multipliers.reshape(blocks, parts, out)))
  if matrix.minimum is not None:
    given.append(of_outputs(matrix.minimum))
  if matrix.minimum_multipliers is not None:
    given.append(of_outputs(matrix.minimum_multipliers))
  kernel = functools.partial(
    _kernel,
    bits=bits,
    offset=matrix.offset,
    parts=parts,
    supers=blocks // supers,
    multiplied=matrix.multipliers is not None,
    reduced=matrix.minimum is not None,
  )
  sums = pl.pallas_call(
    kernel,
    grid=(out // tile, shares),
    in_specs=[spec for _, spec in given],
    out_specs=pl.BlockSpec((1, rows, tile), lambda place, share: (share, 0, place)),
    out_shape=jax.ShapeDtypeStruct((shares, rows, out), jnp.float32),
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name="packed_product",
  )(*[values for values, _ in given])
  return sums.sum(axis=0)


def _kernel(
  x_ref: jax.Ref,
  words_ref: jax.Ref,
  scale_ref: jax.Ref,
  *others: jax.Ref,
  bits: int,
  offset: int,
  parts: int,
  supers: int,
  multiplied: bool,
  reduced: bool,
) -> None:
  """A tile of outputs over a share of the blocks. Args: others: those that there are; the sums."""
  *scales, out_ref = others
  multipliers_ref = scales.pop(0) if multiplied else None
  minimum_ref = scales.pop(0) if reduced else None
  minimum_multipliers_ref = scales.pop(0) if scales else None
  rows, tile = out_ref.shape[1:]
  count = words_ref.shape[0] // pl.num_programs(1)
  first = pl.program_id(1) * count

  def step(number: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    block = first + number
    shifts = bits * lax.broadcasted_iota(jnp.int32, (bits, BLOCK // bits, tile), 1)
    integers = ((words_ref[block][:, None] >> shifts) & ((1 << bits) - 1)) - offset
    integers = integers.astype(jnp.float32).reshape(parts, BLOCK // parts, tile)
    scale = scale_ref[lax.div(block, supers)]
    several = None if multipliers_ref is None else multipliers_ref[block].astype(jnp.float32)
    minimum = None if minimum_ref is None else minimum_ref[lax.div(block, supers)]
    if minimum_multipliers_ref is not None:
      minimum *= minimum_multipliers_ref[block].astype(jnp.float32)
    found = []
    for row in range(rows):
      inputs = x_ref[row, block]
      sums = (integers * inputs.reshape(parts, BLOCK // parts)[:, :, None]).sum(axis=1)
      total = totals[row] + (sums if several is None else sums * several).sum(axis=0) * scale
      found.append(total if minimum is None else total - minimum * inputs.sum())
    return tuple(found)

  start = tuple(jnp.zeros((tile,), jnp.float32) for _ in range(rows))
  for row, total in enumerate(lax.fori_loop(0, count, step, start)):
    out_ref[0, row] = total
