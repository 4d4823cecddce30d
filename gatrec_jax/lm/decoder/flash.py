"""Causal attention as a Pallas kernel (FlashAttention): no [T, T] scores in memory.

Each program of the kernel handles a block of queries of one head. It loops over the key blocks that
these queries can see, keeps a running maximum and sum of the softmax, and writes its output once.
The same body runs on NVIDIA GPUs (Triton), TPUs (Mosaic) and, interpreted, on CPUs; blocks, padding
and compiler parameters are chosen per platform when the program is lowered.

Only the forward pass is a kernel. The backward pass recomputes attention in plain XLA, one chunk
of queries at a time: also in linear memory, but no faster than ordinary attention.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu

# Masked scores are set to a finite value because -inf - -inf is NaN: if the first block of a row is
# all masked, its weights are 2**0, which the first unmasked score then multiplies by 0.
MASKED = -1e30
# The kernel's softmax uses powers of 2, the exponential that the hardware provides.
LOG2_E = math.log2(math.e)
# Shared memory on a GPU for a tile of queries, and for one of keys or values, by item size.
# Compiled kernels need at most 96 KiB for bfloat16 (consumer GPUs have 99), 49 KiB for float32.
GPU_QUERY_BYTES = {2: 32_768, 4: 16_384}
GPU_KEY_BYTES = {2: 16_384, 4: 8_192}
# Triton kernels of jax index elements with int32; beyond this they would read the wrong memory.
GPU_ELEMENTS = 2**31
TPU_LANES = 128
TPU_BLOCK = 256
# VMEM of a core for everything but a head's keys and values: query and output tiles, scores,
# temporaries.
TPU_SPARE_BYTES = 16 * 2**20
BACKWARD_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class _Options:
  """The caller's settings; hashable, so that equal layers share one trace."""

  scale: float
  window: int | None
  softcap: float | None
  block_queries: int | None
  block_keys: int | None
  interpret: bool | None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """How a platform runs the kernel: rows per block, padded head size, compiler settings."""

  block_queries: int
  block_keys: int
  head_size: int
  lengths_spec: pl.BlockSpec
  key_buffers: pl.Buffered | None
  compiler_params: plgpu.CompilerParams | pltpu.CompilerParams | None
  interpret: bool


def flash_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  lengths: jax.Array,
  *,
  scale: float,
  window: int | None,
  softcap: float | None,
  block_queries: int | None = None,
  block_keys: int | None = None,
  interpret: bool | None = None,
) -> jax.Array:
  """Causal attention over right-padded rows; scores and sums in float32.

  Query i attends to keys j ≤ i with j < lengths and, with a window, j > i - window. Key blocks that
  no query of a block attends to are not read.

  Differentiable in query, key and value (see the module), provided the loss ignores padding. Under
  a mesh, call it in a `shard_map`: XLA cannot partition a kernel and would gather the arrays (GPU)
  or fail (TPU). On a TPU the keys and values of one head must fit into VMEM, which limits T: 16,384
  tokens of head size 128 in bfloat16 take 8 MiB, which just fits into the 16 MiB of a v4.

  Args:
    query: [B, T, Hq, D] float32 or bfloat16. key, value: [B, T, Hkv, D], same dtype; query head h
      uses head h // (Hq / Hkv). Padding must be finite.
    lengths: [B] int32, number of tokens of each row, at most T.
    scale: multiplies the scores. softcap: if set, scores become softcap · tanh(score / softcap).
    window: number of keys a query attends to, including its own; None for no limit.
    block_queries, block_keys: rows of a tile; None chooses by platform and head size. Rounded up to
      a size that the platform supports: powers of two from 16, or multiples of 128 on a TPU.
    interpret: True runs the kernel as plain XLA operations (slow, for tests); None does so only on
      CPUs; False never.
  Returns: [B, T, Hq, D] in query's dtype; rows at or beyond lengths are finite but meaningless.
  Raises: ValueError for incompatible shapes, dtypes or options, or arrays of 2³¹ elements;
    NotImplementedError for a platform without a kernel.
  """
  _check_arrays(query, key, value, lengths)
  counts = {"window": window, "block_queries": block_queries, "block_keys": block_keys}
  for name, size in counts.items():
    if size is not None and size < 1:
      raise ValueError(f"flash_attention: {name} is {size}; must be at least 1, or None")
  if softcap is not None and not softcap > 0:
    raise ValueError(f"flash_attention: softcap is {softcap}; must be above 0, or None")
  options = _Options(float(scale), window, softcap, block_queries, block_keys, interpret)
  # A length beyond T would read past the end of the arrays.
  lengths = jnp.clip(lengths, 0, query.shape[1]).astype(jnp.int32)
  return _attention(query, key, value, lengths, options)


def _check_arrays(query: jax.Array, key: jax.Array, value: jax.Array, lengths: jax.Array) -> None:
  if query.ndim != 4 or key.ndim != 4:
    raise ValueError(f"flash_attention: query {query.shape}, key {key.shape}; must be [B, T, H, D]")
  batch, tokens, heads, size = query.shape
  kv_heads = key.shape[2]
  if key.shape != (batch, tokens, kv_heads, size) or value.shape != key.shape:
    raise ValueError(
      f"flash_attention: key {key.shape} and value {value.shape} do not match query {query.shape}"
    )
  if kv_heads == 0 or heads % kv_heads:
    raise ValueError(
      f"flash_attention: {heads} query heads are no multiple of {kv_heads} key heads"
    )
  if lengths.shape != (batch,):
    raise ValueError(f"flash_attention: lengths {lengths.shape}; must be [{batch}]")
  if query.dtype not in (jnp.float32, jnp.bfloat16) or {key.dtype, value.dtype} != {query.dtype}:
    raise ValueError(
      f"flash_attention: dtypes {query.dtype}, {key.dtype}, {value.dtype}; "
      "must be all float32 or all bfloat16"
    )
  elements = math.prod(query.shape[:3]) * _power_of_two(max(size, 16))
  if elements >= GPU_ELEMENTS:
    raise ValueError(f"flash_attention: query {query.shape} has 2**31 elements; split the batch")


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
@functools.partial(jax.jit, static_argnums=4)
def _attention(
  query: jax.Array, key: jax.Array, value: jax.Array, lengths: jax.Array, options: _Options
) -> jax.Array:
  size, itemsize, tokens = query.shape[-1], query.dtype.itemsize, query.shape[1]
  run = functools.partial(_call, options=options)
  gpu_plan = _gpu_plan(options, tokens, size, itemsize)
  gpu = functools.partial(run, plan=gpu_plan)
  tpu = functools.partial(run, plan=_tpu_plan(options, tokens, size, itemsize))
  as_if_gpu = dataclasses.replace(gpu_plan, compiler_params=None, interpret=True)
  interpreted = functools.partial(run, plan=as_if_gpu)
  if options.interpret:
    return interpreted(query, key, value, lengths)
  # Chosen at lowering, not by `jax.default_backend()`: a program may be exported to, or placed on,
  # a platform other than the default.
  platforms: dict[str, Callable[..., jax.Array]] = {"cuda": gpu, "tpu": tpu}
  if options.interpret is None:
    platforms["cpu"] = interpreted
  return lax.platform_dependent(query, key, value, lengths, **platforms)


def _gpu_plan(options: _Options, tokens: int, size: int, itemsize: int) -> _Plan:
  """Triton: the sides of a tile are powers of two, and at least 16 for matrix products."""
  padded = _power_of_two(max(size, 16))
  row_bytes = padded * itemsize
  most = _power_of_two(max(tokens, 16))
  queries = options.block_queries or min(128, max(16, GPU_QUERY_BYTES[itemsize] // row_bytes))
  keys = options.block_keys or min(64, max(16, GPU_KEY_BYTES[itemsize] // row_bytes))
  return _Plan(
    block_queries=min(_power_of_two(max(queries, 16)), most),
    block_keys=min(_power_of_two(max(keys, 16)), most),
    head_size=padded,
    lengths_spec=pl.BlockSpec(),
    key_buffers=None,
    # Without explicit parameters jax uses its Mosaic backend, which needs Hopper or later.
    compiler_params=plgpu.CompilerParams(num_warps=4 if padded <= 64 else 8, num_stages=2),
    interpret=False,
  )


def _tpu_plan(options: _Options, tokens: int, size: int, itemsize: int) -> _Plan:
  """Mosaic: memory is tiled by 128 lanes, so padding the head size to them costs nothing."""
  most = _round_up(tokens, TPU_LANES)
  queries = min(_round_up(options.block_queries or TPU_BLOCK, TPU_LANES), most)
  keys = min(_round_up(options.block_keys or TPU_BLOCK, TPU_LANES), most)
  padded = _round_up(size, TPU_LANES)
  resident = 2 * _round_up(tokens, keys) * padded * itemsize
  return _Plan(
    block_queries=queries,
    block_keys=keys,
    head_size=padded,
    lengths_spec=pl.BlockSpec(memory_space=pltpu.SMEM),
    # Keys change only once for all query blocks of the heads that share them. A second buffer to
    # prefetch the next ones would halve the longest T.
    key_buffers=pl.Buffered(1),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "parallel"),
      vmem_limit_bytes=resident + TPU_SPARE_BYTES,
    ),
    interpret=False,
  )


def _call(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  lengths: jax.Array,
  *,
  options: _Options,
  plan: _Plan,
) -> jax.Array:
  batch, tokens, heads, size = query.shape
  group = heads // key.shape[2]
  keys = _head_major(key, plan.block_keys, plan.head_size)
  values = _head_major(value, plan.block_keys, plan.head_size)
  queries = _head_major(query, plan.block_queries, plan.head_size)
  query_spec = pl.BlockSpec(
    (None, None, plan.block_queries, plan.head_size), lambda b, h, i: (b, h, i, 0)
  )
  key_spec = pl.BlockSpec(
    (None, None, keys.shape[2], plan.head_size),
    lambda b, h, i: (b, lax.div(h, group), 0, 0),
    pipeline_mode=plan.key_buffers,
  )
  kernel = functools.partial(
    _kernel,
    block_keys=plan.block_keys,
    scale=options.scale,
    window=options.window,
    softcap=options.softcap,
  )
  out = pl.pallas_call(
    kernel,
    grid=(batch, heads, queries.shape[2] // plan.block_queries),
    in_specs=[plan.lengths_spec, query_spec, key_spec, key_spec],
    out_specs=query_spec,
    out_shape=jax.ShapeDtypeStruct(queries.shape, query.dtype),
    compiler_params=plan.compiler_params,
    interpret=plan.interpret,
    name="flash_attention",
  )(lengths, queries, keys, values)
  return out.transpose(0, 2, 1, 3)[:, :tokens, :, :size]


def _kernel(
  lengths_ref: jax.Ref,
  query_ref: jax.Ref,
  key_ref: jax.Ref,
  value_ref: jax.Ref,
  out_ref: jax.Ref,
  *,
  block_keys: int,
  scale: float,
  window: int | None,
  softcap: float | None,
) -> None:
  """One block of queries of one head: [block_queries, D] against keys and values [T, D]."""
  length = lengths_ref[pl.program_id(0)]
  block_queries, size = query_ref.shape
  first = pl.program_id(2) * block_queries
  # lax.div instead of `//`: the sign test of `//` does not lower for TPUs without one attached.
  end = jnp.minimum(first + block_queries, length)
  end_block = jnp.where(first < length, lax.div(end + block_keys - 1, block_keys), 0)
  first_block = 0 if window is None else lax.div(jnp.maximum(first - window + 1, 0), block_keys)
  query = query_ref[...]
  # With float32 inputs, no TF32 and no bfloat16 passes.
  precision = lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT
  product = functools.partial(
    lax.dot_general, precision=precision, preferred_element_type=jnp.float32
  )
  row = first + lax.broadcasted_iota(jnp.int32, (block_queries, block_keys), 0)

  def step(
    block: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    highest, total, out = carry
    start = pl.multiple_of(block * block_keys, block_keys)
    rows = pl.ds(start, block_keys)
    scores = product(query, key_ref[rows, :], (((1,), (1,)), ((), ())))
    if softcap is None:
      scores *= scale * LOG2_E
    else:
      scores = softcap * LOG2_E * jnp.tanh(scores * (scale / softcap))
    column = start + lax.broadcasted_iota(jnp.int32, (block_queries, block_keys), 1)
    seen = column <= row  # which implies column < length for every row within length
    if window is not None:
      seen &= column > row - window
    scores = jnp.where(seen, scores, MASKED)
    new_highest = jnp.maximum(highest, scores.max(axis=1, keepdims=True))
    weights = jnp.exp2(scores - new_highest)
    shrink = jnp.exp2(highest - new_highest)
    total = total * shrink + weights.sum(axis=1, keepdims=True)
    values = value_ref[rows, :]
    out = out * shrink + product(weights.astype(values.dtype), values, (((1,), (0,)), ((), ())))
    return new_highest, total, out

  column_shape = (block_queries, 1)
  initial = (
    jnp.full(column_shape, MASKED, jnp.float32),
    jnp.zeros(column_shape, jnp.float32),
    jnp.zeros((block_queries, size), jnp.float32),
  )
  _, total, out = lax.fori_loop(first_block, end_block, step, initial)
  # A block of padding has seen no keys; its rows become 0.
  out_ref[...] = (out / jnp.where(total == 0.0, 1.0, total)).astype(out_ref.dtype)


def _forward(
  query: jax.Array, key: jax.Array, value: jax.Array, lengths: jax.Array, options: _Options
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  return _attention(query, key, value, lengths, options), (query, key, value)


def _backward(
  options: _Options, residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
  query, key, value = residuals
  _, pull = jax.vjp(lambda *arrays: _chunked_attention(*arrays, options), query, key, value)
  return *pull(cotangent), None


_attention.defvjp(_forward, _backward)


def _chunked_attention(
  query: jax.Array, key: jax.Array, value: jax.Array, options: _Options
) -> jax.Array:
  """The same attention in plain XLA; its gradient keeps the scores of one chunk at a time.

  Lengths are not needed: no query within its length sees padding, and queries at padding get no
  gradient.
  """
  batch, tokens, heads, size = query.shape
  kv_heads = key.shape[2]
  chunk = min(BACKWARD_CHUNK, tokens)
  count = -(-tokens // chunk)
  padded = jnp.pad(query, ((0, 0), (0, count * chunk - tokens), (0, 0), (0, 0)))
  chunks = padded.reshape(batch, count, chunk, kv_heads, heads // kv_heads, size)
  column = jnp.arange(tokens)
  precision = lax.Precision.HIGHEST if query.dtype == jnp.float32 else lax.Precision.DEFAULT
  product = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)

  @jax.checkpoint
  def attend(index: jax.Array, queries: jax.Array) -> jax.Array:
    scores = product("bqkgd,btkd->bkgqt", queries, key) * options.scale
    if options.softcap is not None:
      scores = options.softcap * jnp.tanh(scores / options.softcap)
    row = (index * chunk + jnp.arange(chunk))[:, None]
    seen = column <= row
    if options.window is not None:
      seen &= column > row - options.window
    weights = jax.nn.softmax(jnp.where(seen, scores, MASKED), axis=-1)
    return product("bkgqt,btkd->bqkgd", weights.astype(value.dtype), value).astype(query.dtype)

  out = lax.map(lambda pair: attend(*pair), (jnp.arange(count), chunks.swapaxes(0, 1)))
  return out.swapaxes(0, 1).reshape(batch, count * chunk, heads, size)[:, :tokens]


def _head_major(array: jax.Array, block: int, size: int) -> jax.Array:
  """Reshapes [B, T, H, D] to [B, H, T', D'], zero-padded to a multiple of `block` and to `size`.

  Heads come first because a TPU tiles the last two axes, and a block must hold whole tiles.
  """
  tokens, own_size = array.shape[1], array.shape[3]
  missing = _round_up(tokens, block) - tokens
  padded = jnp.pad(array, ((0, 0), (0, missing), (0, 0), (0, size - own_size)))
  return padded.transpose(0, 2, 1, 3)


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple


def _power_of_two(number: int) -> int:
  return 1 << (number - 1).bit_length()
