"""Pallas kernels of attention: each program handles one node's row of edges and one head.

Inside a kernel every array has two axes, edges and columns of one head, either of which may be 1:
[B, D], [B, 1], [1, D] or [1, 1]. Triton needs powers of two, so D is padded with zeros.

A kernel has the arguments (logits, heads, side, operands, _, found, *, block, loop). `side`,
`operands` and `found` are pytrees of references; `_` aliases the outputs `found`. `block` is B,
and `loop` says whether a row may be longer than B. Program (r, h) handles row r and head h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gatrec_jax.ops.attention.edges import MASKED, Sums
from gatrec_jax.ops.attention.logits import Logits, Operations

Array = jax.Array

_OPERATIONS = Operations(
  per_head=lambda x, vector: jnp.sum(x * vector, axis=1, keepdims=True),
  outer=lambda feature, row: feature * row,
)


class Tables(NamedTuple):
  """The arrays that are differentiated. Their last axes are H · m, with one m per array.

  Attributes:
    values: [N, H · D]. source: [N, M] or None. target: [N, M].
    params: a pytree of [1, M].
    features: F columns [E]. where: [E] float32 or None. keep: [E, H] or None.
  """

  values: Any
  source: Any
  target: Any
  params: Any
  features: list[Any]
  where: Any
  keep: Any


class Side(NamedTuple):
  """Edges seen from one of their ends.

  Attributes:
    rows: node ids by class of degree; inside a kernel those of one class.
    start: [N + 1] int32, where rows start.
    order: [E] int32, the edges at these places, or None: the edges as they are.
    others: [E] int32, by edge, the nodes at the other end.
  """

  rows: Any
  start: Any
  order: Any
  others: Any


class Gradient(NamedTuple):
  """What a backward kernel reads besides the inputs: `shift` [N, H] found by the forward pass, and
  the derivatives by the sums, weighted [N, H · D] and total [N, H]."""

  shift: Any
  weighted: Any
  total: Any


class ByReceiver(NamedTuple):
  """What the receivers' rows find: target [N, M], params as [N, M] parts, and the edges' features,
  where and keep as [E, H] parts; where and keep may be None."""

  target: Any
  params: Any
  features: list[Any]
  where: Any
  keep: Any


class BySender(NamedTuple):
  """What the senders' rows find: values [N, H · D]; source [N, M] or None."""

  values: Any
  source: Any


def forward_kernel(
  logits: Logits,
  heads: int,
  side: Side,
  operands: Any,
  _: Any,
  found: Sums,
  *,
  block: int,
  loop: bool,
) -> None:
  """The sums of a receiver."""
  tables, slope = operands
  node = side.rows[pl.program_id(0)]
  part = _Part(pl.program_id(1), heads)
  target = part.load(tables.target, node)
  params = jax.tree.map(lambda row: part.load(row, 0), tables.params)

  def step(edge: Array, inside: Array, sums: Sums) -> Sums:
    seen = _seen(part, tables, edge, inside)
    sender = _entries(side.others, edge, seen.counted)
    value = part.load(tables.values, sender, seen.counted)
    source = part.load_some(tables.source, sender, seen.counted)
    scores = logits(value, source, target, seen.features, params, slope[...], _OPERATIONS)
    scores = jnp.where(seen.counted, scores, MASKED)
    shift = jnp.maximum(sums.shift, jnp.max(scores, axis=0, keepdims=True))
    scale = jnp.exp(sums.shift - shift)
    weight = jnp.where(seen.counted, jnp.exp(scores - shift), 0.0) * seen.multiplicity
    total = sums.total * scale + jnp.sum(weight, axis=0, keepdims=True)
    message = weight * seen.keep * value
    weighted = sums.weighted * scale + jnp.sum(message, axis=0, keepdims=True)
    return Sums(weighted, total, shift)

  begin = Sums(
    part.zeros(tables.values), jnp.zeros((1, 1), jnp.float32), jnp.full((1, 1), MASKED, jnp.float32)
  )
  sums = _over_blocks(side.start, node, step, begin, block=block, loop=loop)
  jax.tree.map(lambda table, array: part.store(table, node, array), found, sums)


def receiver_kernel(
  logits: Logits,
  heads: int,
  side: Side,
  operands: Any,
  _: Any,
  found: ByReceiver,
  *,
  block: int,
  loop: bool,
) -> None:
  """Derivatives with respect to a receiver and its edges, and its share of those of parameters."""
  tables, slope, gradient = operands
  node = side.rows[pl.program_id(0)]
  part = _Part(pl.program_id(1), heads)
  target = part.load(tables.target, node)
  params = jax.tree.map(lambda row: part.load(row, 0), tables.params)
  by_sums = Gradient(*(part.load(table, node) for table in gradient))

  def step(edge: Array, inside: Array, sums: Any) -> Any:
    seen = _seen(part, tables, edge, inside)
    sender = _entries(side.others, edge, seen.counted)
    value = part.load(tables.values, sender, seen.counted)
    source = part.load_some(tables.source, sender, seen.counted)

    def again(target: Array, features: list[Array], params: Any) -> Array:
      return logits(value, source, target, features, params, slope[...], _OPERATIONS)

    scores, pull = jax.vjp(again, target, seen.features, params)
    by = _by_scores(scores, value, seen, by_sums)
    of_target, of_features, of_params = pull(by.scores)
    for table, array in zip(found.features, of_features, strict=True):
      part.store(table, edge, array, inside)
    if found.where is not None:
      part.store(found.where, edge, by.multiplicity, inside)
    if found.keep is not None:
      part.store(found.keep, edge, by.keep, inside)
    return jax.tree.map(jnp.add, sums, (of_target, of_params))

  begin = jax.tree.map(jnp.zeros_like, (target, params))
  sums = _over_blocks(side.start, node, step, begin, block=block, loop=loop)
  jax.tree.map(
    lambda table, array: part.store(table, node, array), (found.target, found.params), sums
  )


def sender_kernel(
  logits: Logits,
  heads: int,
  side: Side,
  operands: Any,
  _: Any,
  found: BySender,
  *,
  block: int,
  loop: bool,
) -> None:
  """Derivatives with respect to a sender."""
  tables, slope, gradient = operands
  node = side.rows[pl.program_id(0)]
  part = _Part(pl.program_id(1), heads)
  value, source = part.load(tables.values, node), part.load_some(tables.source, node)
  params = jax.tree.map(lambda row: part.load(row, 0), tables.params)

  def step(place: Array, inside: Array, sums: Any) -> Any:
    edge = _entries(side.order, place, inside)
    seen = _seen(part, tables, edge, inside)
    receiver = _entries(side.others, edge, seen.counted)
    target = part.load(tables.target, receiver, seen.counted)
    by_sums = Gradient(*(part.load(table, receiver, seen.counted) for table in gradient))

    def again(value: Array, source: Array | None) -> Array:
      return logits(value, source, target, seen.features, params, slope[...], _OPERATIONS)

    scores, pull = jax.vjp(again, value, source)
    by = _by_scores(scores, value, seen, by_sums)
    of_value, of_source = pull(by.scores)
    of_value += jnp.sum(by.kept_weight * by_sums.weighted, axis=0, keepdims=True)
    return jax.tree.map(jnp.add, sums, (of_value, of_source))

  begin = jax.tree.map(jnp.zeros_like, (value, source))
  sums = _over_blocks(side.start, node, step, begin, block=block, loop=loop)
  jax.tree.map(lambda table, array: part.store(table, node, array), tuple(found), sums)


class _Part(NamedTuple):
  """One head's columns of tables [rows, H · m]. Attributes: head: [] int32. heads: H."""

  head: Any
  heads: int

  def load(self, table: Any, index: Any, where: Array | None = None) -> Array:
    """[B or 1, m] float32, m padded to a power of two; index: [B, 1] or scalar, where: [B, 1].

    Zero in padding columns and where `where` is False.
    """
    columns, inside = self._columns(table)
    if where is not None:
      inside = inside & where
    other = jnp.zeros((), table.dtype)
    return plgpu.load(table.at[index, columns], mask=inside, other=other).astype(jnp.float32)

  def load_some(self, table: Any, index: Any, where: Array | None = None) -> Array | None:
    """The same of a table that may be None."""
    return None if table is None else self.load(table, index, where)

  def store(self, table: Any, index: Any, array: Array, where: Array | None = None) -> None:
    """The reverse of `load`."""
    columns, inside = self._columns(table)
    if where is not None:
      inside = inside & where
    plgpu.store(table.at[index, columns], array, mask=inside)

  def zeros(self, table: Any) -> Array:
    """[1, m] float32."""
    return jnp.zeros(self._columns(table)[0].shape, jnp.float32)

  def _columns(self, table: Any) -> tuple[Array, Array]:
    """[1, m] the head's columns, and which of them exist."""
    size = table.shape[1] // self.heads
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, pl.next_power_of_2(size)), 1)
    return self.head * size + lane, lane < size


class _Seen(NamedTuple):
  """The scalars of a block of edges.

  Attributes:
    counted: [B, 1] bool. features: F times [B, 1]. multiplicity, keep: [B, 1], or 1.0 without.
  """

  counted: Array
  features: list[Array]
  multiplicity: Any
  keep: Any


def _seen(part: _Part, tables: Tables, edge: Array, inside: Array) -> _Seen:
  multiplicity, counted = 1.0, inside
  if tables.where is not None:
    multiplicity = _entries(tables.where, edge, inside)
    counted = multiplicity > 0
  features = [_entries(column, edge, counted).astype(jnp.float32) for column in tables.features]
  keep = 1.0 if tables.keep is None else part.load(tables.keep, edge, counted)
  return _Seen(counted, features, multiplicity, keep)


def _entries(column: Any, index: Array, where: Array) -> Array:
  """[B, 1] entries of [E], 0 where not `where`."""
  return plgpu.load(column.at[index], mask=where, other=jnp.zeros((), column.dtype))


class _ByScores(NamedTuple):
  """Derivatives of a block of edges, [B, 1] each: by the scores, multiplicity and keep; and the
  weights with dropout."""

  scores: Array
  multiplicity: Array
  keep: Array
  kept_weight: Array


def _by_scores(scores: Array, value: Array, seen: _Seen, by_sums: Gradient) -> _ByScores:
  once = jnp.where(seen.counted, jnp.exp(scores - by_sums.shift), 0.0)
  weight = once * seen.multiplicity
  of_message = jnp.sum(by_sums.weighted * value, axis=1, keepdims=True)
  of_weight = of_message * seen.keep + by_sums.total
  return _ByScores(weight * of_weight, once * of_weight, weight * of_message, weight * seen.keep)


def _over_blocks(
  start: Any,
  node: Array,
  step: Callable[[Array, Array, Any], Any],
  carry: Any,
  *,
  block: int,
  loop: bool,
) -> Any:
  """`step` (places [B, 1], which are in the row, carry) over a node's row; static `loop`: whether a
  row may be longer than one block."""
  first, end = start[node], start[node + 1]

  def one(number: Any, carry: Any) -> Any:
    place = first + number * block + jax.lax.broadcasted_iota(jnp.int32, (block, 1), 0)
    return step(place, place < end, carry)

  if not loop:
    return one(0, carry)
  return jax.lax.fori_loop(0, jax.lax.div(end - first + block - 1, block), one, carry)
