"""Attention by one GPU program per node and head, each over the edges of its own row.

Pallas kernels for Triton. No array of the size of the edges times a width is written, and no two
programs write to the same place, so the sums are the same in every run. The forward pass and the
derivatives with respect to receivers and edges go over the rows of receivers. Derivatives with
respect to senders go over the rows of the transposed edges and recompute the logits.

The degrees of users and items differ by orders of magnitude. Rows are launched by degree class, so
that short rows do not occupy wide blocks. Rows longer than a block loop over several blocks with an
online softmax.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gatrec_jax.ops.attention.edges import MASKED, Edges, Sums
from gatrec_jax.ops.attention.logits import Logits, Terms
from gatrec_jax.ops.attention.pallas_kernels import (
  ByReceiver,
  BySender,
  Gradient,
  Side,
  Tables,
  forward_kernel,
  receiver_kernel,
  sender_kernel,
)

Array = jax.Array

_BOUNDS = (16, 64, 256, None)  # the largest degree of each class
# Numbers in a block [B, D] and in a warp's share of it: about four blocks are alive in a backward
# step, and this is what fits in registers. The scalars of an edge take the space of some columns.
_BLOCK_NUMBERS, _WARP_NUMBERS, _EDGE_NUMBERS = 4096, 1024, 16
_MAX_BLOCK, _MAX_WIDTH = 256, 512


class RowsLayout(NamedTuple):
  """Receiver-sorted edges as rows, by receiver and by sender.

  Attributes:
    start: [N + 1] int32; the edges of receiver i are start[i] to start[i + 1] − 1.
    rows: nodes with incoming edges by class of in-degree, at most 16, 64, 256, and more; each
      [nodes of the class] int32, highest degree first, so that long rows do not start last.
    edge_by_sender: [E] int32, a permutation: the edges sorted by sender.
    sender_start: [N + 1] int32, likewise for senders, in the order of `edge_by_sender`.
    sender_rows: nodes with outgoing edges by class of out-degree, as `rows`.
  """

  start: Any
  rows: tuple[Any, ...]
  edge_by_sender: Any
  sender_start: Any
  sender_rows: tuple[Any, ...]


def supports(platform: str, width: int) -> str:
  """The reason why the kernels cannot run on a platform; "" if they can.

  Args:
    platform: as returned by `jax.default_backend()`.
    width: D, columns of a head.
  """
  if platform not in ("gpu", "cuda", "rocm"):
    return f"row kernels are for GPUs, not for {platform}"
  if width > _MAX_WIDTH:
    return f"row kernels hold at most {_MAX_WIDTH} columns of a head, not {width}"
  return ""


def make_rows_layout(senders: np.ndarray, receivers: np.ndarray, num_nodes: int) -> RowsLayout:
  """The layout of edges; numpy arrays.

  Args:
    senders, receivers: [E] int in [0, num_nodes); `receivers` ascending.
    num_nodes: N.
  """
  senders, receivers = np.asarray(senders), np.asarray(receivers)
  if np.any(receivers[1:] < receivers[:-1]):
    raise ValueError("edges must be sorted by receiver")
  start, rows = _rows_of(receivers, num_nodes)
  sender_start, sender_rows = _rows_of(senders, num_nodes)
  edge_by_sender = np.argsort(senders, kind="stable").astype(np.int32)
  return RowsLayout(start, rows, edge_by_sender, sender_start, sender_rows)


def _rows_of(ends: np.ndarray, num_nodes: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
  """Row starts [N + 1], and the nodes with edges by class of degree."""
  degrees = np.bincount(ends, minlength=num_nodes)
  start = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
  falling = np.argsort(-degrees, kind="stable").astype(np.int32)
  classes = np.searchsorted(_BOUNDS[:-1], degrees[falling])
  there = degrees[falling] > 0
  return start, tuple(falling[there & (classes == c)] for c in range(len(_BOUNDS)))


def rows_sums(
  logits: Logits,
  values: Array,
  terms: Terms,
  edges: Edges,
  *,
  heads: int,
  keep: Array | None,
  interpret: bool = False,
) -> Sums:
  """The sums of attention, differentiable by values, terms, features, where (if float) and keep.

  Args:
    logits: the kind of attention.
    values: [N, H · D] float. terms: what the logits read besides; last axes are H or H · D.
    edges: receiver-sorted, with a `RowsLayout`.
    heads: H.
    keep: [E, H] float, dropout multipliers of the weights, or None.
    interpret: run the kernels as plain JAX, on any device, slowly.
  """
  features, where = edges.features, edges.where
  tables = Tables(
    values,
    terms.source,
    terms.target,
    jax.tree.map(_as_rows, terms.params),
    [features[:, f] for f in range(features.shape[1])],
    None if where is None else where.astype(jnp.float32),
    keep,
  )
  layout = edges.layout
  sides = (
    Side(layout.rows, layout.start, None, edges.senders),
    Side(layout.sender_rows, layout.sender_start, layout.edge_by_sender, edges.receivers),
  )
  slope = jnp.asarray(terms.slope, jnp.float32).reshape(1, 1)
  return _sums(logits, heads, interpret, tables, sides, slope)


def _as_rows(param: Array) -> Any:
  """[M] -> [1, M]; [F, M] -> F times [1, M], which kernels index as they would [F, M]."""
  if param.ndim == 1:
    return param[None]
  return [param[f : f + 1] for f in range(param.shape[0])]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sums(
  logits: Logits,
  heads: int,
  interpret: bool,
  tables: Tables,
  sides: tuple[Side, Side],
  slope: Array,
) -> Sums:
  num_nodes, width = tables.values.shape
  begin = Sums(
    jnp.zeros((num_nodes, width), jnp.float32),
    jnp.zeros((num_nodes, heads), jnp.float32),
    jnp.full((num_nodes, heads), MASKED, jnp.float32),
  )
  kernel = functools.partial(forward_kernel, logits, heads)
  return _over_rows(
    kernel, sides[0], (tables, slope), begin, heads=heads, width=width // heads, interpret=interpret
  )


def _sums_forward(logits: Logits, heads: int, interpret: bool, *arguments: Any) -> tuple[Sums, Any]:
  sums = _sums(logits, heads, interpret, *arguments)
  return sums, (arguments, sums.shift)


def _sums_backward(
  logits: Logits, heads: int, interpret: bool, kept: Any, gradient: Sums
) -> tuple[Any, ...]:
  (tables, (incoming, outgoing), slope), shift = kept
  num_nodes, width = tables.values.shape
  operands = (tables, slope, Gradient(shift, gradient.weighted, gradient.total))
  launch = functools.partial(
    _over_rows, operands=operands, heads=heads, width=width // heads, interpret=interpret
  )

  def zeros(like: Array) -> Array:
    return jnp.zeros(like.shape, jnp.float32)

  def per_edge(like: Array) -> Array:
    return jnp.zeros((like.shape[0], heads), jnp.float32)

  by_receiver = launch(
    functools.partial(receiver_kernel, logits, heads),
    incoming,
    found=ByReceiver(
      zeros(tables.target),
      jax.tree.map(lambda row: jnp.zeros((num_nodes, row.shape[1]), jnp.float32), tables.params),
      *jax.tree.map(per_edge, (tables.features, tables.where, tables.keep)),
    ),
  )
  by_sender = launch(
    functools.partial(sender_kernel, logits, heads),
    outgoing,
    found=BySender(*jax.tree.map(zeros, (tables.values, tables.source))),
  )
  found = Tables(
    by_sender.values,
    by_sender.source,
    by_receiver.target,
    jax.tree.map(lambda parts: jnp.sum(parts, axis=0, keepdims=True), by_receiver.params),
    *jax.tree.map(lambda parts: jnp.sum(parts, axis=1), (by_receiver.features, by_receiver.where)),
    by_receiver.keep,
  )
  return jax.tree.map(lambda array, like: array.astype(like.dtype), found, tables), None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _over_rows(
  kernel: Callable[..., None],
  side: Side,
  operands: Any,
  found: Any,
  *,
  heads: int,
  width: int,
  interpret: bool,
) -> Any:
  """Runs a kernel for all rows and heads, class by class, longest rows first.

  Args:
    kernel: of `rows_kernels`, with logits and heads; fills in the rows of found.
    side: whose rows.
    operands: a pytree of arrays that programs read.
    found: a pytree of float32 arrays, changed in place; what no program writes stays.
    heads: H. width: D. interpret: as in `rows_sums`.
  """
  lanes = pl.next_power_of_2(width)
  shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), found)
  for bound, ids in reversed(list(zip(_BOUNDS, side.rows, strict=True))):
    if not ids.shape[0]:
      continue
    block = min(bound or _MAX_BLOCK, _MAX_BLOCK, _BLOCK_NUMBERS // lanes)
    warps = max(block * max(lanes, _EDGE_NUMBERS) // _WARP_NUMBERS, 1)
    read = (side._replace(rows=ids), operands)
    first, changed = len(jax.tree.leaves(read)), len(jax.tree.leaves(found))
    (found,) = pl.pallas_call(
      functools.partial(kernel, block=block, loop=bound is None or bound > block),
      grid=(ids.shape[0], heads),
      out_shape=(shapes,),
      input_output_aliases={first + i: i for i in range(changed)},
      compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=2),
      interpret=interpret,
    )(*read, found)
  return found
