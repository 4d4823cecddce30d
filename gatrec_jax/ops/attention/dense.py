"""Attention over dense tiles of the adjacency matrix: for small or dense graphs, and for TPUs.

Only tiles with an edge are kept, so that the two empty quarters of a bipartite graph's matrix cost
nothing. A tile is masked attention of R receivers over S senders with an online softmax, as in
FlashAttention (Dao et al. 2022); the backward pass recomputes its logits. Nothing is scattered, and
the weighted sums are matrix products, in bfloat16 if the values are.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.ops.attention.edges import MASKED, Edges, Sums
from gatrec_jax.ops.attention.logits import Logits, Terms, matrix_operations, spread_heads

Array = jax.Array


class DenseLayout(NamedTuple):
  """The tiles, sorted by receivers, then by senders. Repeated edges lie in separate tiles.

  Attributes:
    receivers, senders: [T] int32, the block of R receivers and the block of S senders of each tile.
    cells: [T, R, S] int32, the edge in each cell; −1 for none.
    features: [T, R, S, F] float32, of these edges; 0 for none.
  """

  receivers: Array
  senders: Array
  cells: Array
  features: Array


def default_tile() -> tuple[int, int]:
  """R and S for the default device."""
  return (64, 64) if jax.default_backend() == "cpu" else (256, 256)


def make_dense_layout(
  senders: np.ndarray,
  receivers: np.ndarray,
  features: np.ndarray,
  *,
  tile: tuple[int, int] | None = None,
) -> DenseLayout:
  """The dense tiles of the edges; numpy arrays.

  Args: senders, receivers: [E] int. features: [E, F]. tile: R and S; None = `default_tile`.
  """
  rows, columns = tile or default_tile()
  num_edges = len(senders)
  order = np.lexsort((senders, receivers))
  sent, received = senders[order].astype(np.int64), receivers[order].astype(np.int64)
  # The number of each edge among those between the same two nodes.
  fresh = np.ones(num_edges, bool)
  fresh[1:] = (sent[1:] != sent[:-1]) | (received[1:] != received[:-1])
  place = np.arange(num_edges)
  copy = place - np.maximum.accumulate(np.where(fresh, place, 0))
  key = np.stack([received // rows, sent // columns, copy])
  tiles, index = np.unique(key, axis=1, return_inverse=True)
  index = index.reshape(-1)
  cells = np.full((tiles.shape[1], rows, columns), -1, np.int32)
  cells[index, received % rows, sent % columns] = order
  padded = np.concatenate([features, np.zeros((1, features.shape[1]))]).astype(np.float32)
  return DenseLayout(tiles[0].astype(np.int32), tiles[1].astype(np.int32), cells, padded[cells])


def count_tiles(senders: np.ndarray, receivers: np.ndarray, tile: tuple[int, int]) -> int:
  """Tiles that hold an edge, for the cost of a layout that is not made yet; those that copies of
  edges take are not counted."""
  columns = int(senders.max(initial=0)) // tile[1] + 1
  block = receivers.astype(np.int64) // tile[0] * columns + senders // tile[1]
  return len(np.unique(block))


def dense_sums(
  logits: Logits, values: Array, terms: Terms, edges: Edges, *, heads: int, keep: Array | None
) -> Sums:
  """The sums of attention over `edges.layout`.

  Args, returned: as `segment_sums`. Features are those of the layout, and not differentiated.
  """
  layout = edges.layout
  num_nodes = values.shape[0]
  rows, columns = layout.cells.shape[1:]
  pad = -num_nodes % int(np.lcm(rows, columns))

  def padded(array: Array | None) -> Array | None:
    return None if array is None else jnp.pad(array, ((0, pad), (0, 0)))

  where = edges.where if edges.where is None else edges.where.astype(jnp.float32)
  sums = _sums(
    logits,
    heads,
    padded(values),
    padded(terms.source),
    padded(terms.target),
    terms.params,
    _with_end(where),
    _with_end(keep),
    layout,
    terms.slope,
  )
  return Sums(*(array[:num_nodes] for array in sums))


def _with_end(per_edge: Array | None) -> Array | None:
  """Per-edge numbers with a 0 behind them, which is what index −1 finds."""
  if per_edge is None:
    return None
  return jnp.concatenate([per_edge, jnp.zeros_like(per_edge, shape=(1, *per_edge.shape[1:]))])


class _Tile(NamedTuple):
  """What a tile reads: value, source [1, S, …], target [R, 1, …], the features' columns [R, S], the
  multiplicities [R, S] and keep [R, S, H] or None."""

  value: Array
  source: Array | None
  target: Array
  columns: list[Array]
  count: Array
  keep: Array | None


def _read(
  part: DenseLayout,
  values: Array,
  source: Array | None,
  target: Array,
  where: Array | None,
  keep: Array | None,
) -> _Tile:
  rows, columns = part.cells.shape

  def block(table: Array, number: Array, size: int) -> Array:
    part = jax.lax.dynamic_slice(table, (number * size, 0), (size, table.shape[1]))
    return part.astype(jnp.float32)

  there = (part.cells >= 0).astype(jnp.float32)
  return _Tile(
    value=block(values, part.senders, columns)[None],
    source=None if source is None else block(source, part.senders, columns)[None],
    target=block(target, part.receivers, rows)[:, None],
    columns=[part.features[..., f] for f in range(part.features.shape[-1])],
    count=there if where is None else where[part.cells],
    keep=None if keep is None else keep[part.cells],
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(
  logits: Logits,
  heads: int,
  values: Array,
  source: Array | None,
  target: Array,
  params: Any,
  where: Array | None,
  keep: Array | None,
  layout: DenseLayout,
  slope: Array,
) -> Sums:
  num_nodes, width = values.shape
  rows = layout.cells.shape[1]
  ops = matrix_operations(heads)

  def step(sums: Sums, part: DenseLayout) -> tuple[Sums, None]:
    tile = _read(part, values, source, target, where, keep)
    first = (part.receivers * rows, 0)
    weighted, total, shift = (
      jax.lax.dynamic_slice(array, first, (rows, array.shape[1])) for array in sums
    )
    scores = logits(tile.value, tile.source, tile.target, tile.columns, params, slope, ops)
    scores = jnp.where(tile.count[..., None] > 0, scores, MASKED)
    largest = jnp.maximum(shift, scores.max(axis=1))
    scale = jnp.exp(shift - largest)
    weight = jnp.exp(scores - largest[:, None]) * tile.count[..., None]
    total = total * scale + weight.sum(axis=1)
    if tile.keep is not None:
      weight = weight * tile.keep
    message = _weighted(weight, tile.value[0], values.dtype)
    weighted = weighted * spread_heads(scale, width) + message
    new = (weighted, total, largest)
    return Sums(
      *(
        jax.lax.dynamic_update_slice(array, block, first)
        for array, block in zip(sums, new, strict=True)
      )
    ), None

  begin = Sums(
    jnp.zeros((num_nodes, width), jnp.float32),
    jnp.zeros((num_nodes, heads), jnp.float32),
    jnp.full((num_nodes, heads), MASKED, jnp.float32),
  )
  return jax.lax.scan(step, begin, layout)[0]


def _sums_forward(logits: Logits, heads: int, *arguments: Any) -> tuple[Sums, Any]:
  sums = _sums(logits, heads, *arguments)
  return sums, (arguments, sums.shift)


def _sums_backward(logits: Logits, heads: int, kept: Any, gradient: Sums) -> tuple[Any, ...]:
  (values, source, target, params, where, keep, layout, slope), shift = kept
  rows, columns = layout.cells.shape[1:]
  ops = matrix_operations(heads)

  def step(found: tuple[Any, ...], part: DenseLayout) -> tuple[tuple[Any, ...], None]:
    of_values, of_source, of_target, of_params, of_where, of_keep = found
    tile = _read(part, values, source, target, where, keep)
    first, sender = (part.receivers * rows, 0), (part.senders * columns, 0)
    of_weighted, of_total, largest = (
      jax.lax.dynamic_slice(array, first, (rows, array.shape[1]))
      for array in (gradient.weighted, gradient.total, shift)
    )

    def again(value: Array, source: Array | None, target: Array, params: Any) -> Array:
      return logits(value, source, target, tile.columns, params, slope, ops)

    scores, pull = jax.vjp(again, tile.value, tile.source, tile.target, params)
    there = tile.count[..., None] > 0
    once = jnp.where(there, jnp.exp(scores - largest[:, None]), 0.0)
    weight = once * tile.count[..., None]
    of_message = _products(of_weighted, tile.value[0], heads, values.dtype)
    of_weight = of_message if tile.keep is None else of_message * tile.keep
    of_weight += of_total[:, None]
    one_value, one_source, one_target, one_params = pull(weight * of_weight)
    kept_weight = weight if tile.keep is None else weight * tile.keep
    one_value += _weighted(kept_weight.swapaxes(0, 1), of_weighted, values.dtype)[None]
    if where is not None:
      of_where = of_where.at[part.cells].add((once * of_weight).sum(axis=-1))
    if keep is not None:
      of_keep = of_keep.at[part.cells].add(weight * of_message)
    return (
      _add_block(of_values, one_value[0], sender),
      None if source is None else _add_block(of_source, one_source[0], sender),
      _add_block(of_target, one_target[:, 0], first),
      jax.tree.map(jnp.add, of_params, one_params),
      of_where,
      of_keep,
    ), None

  def zeros(array: Array) -> Array:
    return jnp.zeros(array.shape, jnp.float32)

  like = (values, source, target, params, where, keep)
  found, _ = jax.lax.scan(step, jax.tree.map(zeros, like), layout)
  found = jax.tree.map(lambda array, like: array.astype(like.dtype), found, like)
  return (*found, None, None)


_sums.defvjp(_sums_forward, _sums_backward)


def _weighted(weight: Array, value: Array, dtype: Any) -> Array:
  """[R, S, H] weights and [S, H · D] values -> [R, H · D], head by head, summed in float32."""
  heads = weight.shape[-1]
  split = value.reshape(value.shape[0], heads, -1)
  out = _einsum("rsh,shd->rhd", weight, split, dtype)
  return out.reshape(out.shape[0], -1)


def _products(left: Array, right: Array, heads: int, dtype: Any) -> Array:
  """[R, H · D] and [S, H · D] -> [R, S, H] dot products head by head, summed in float32."""
  left, right = (part.reshape(part.shape[0], heads, -1) for part in (left, right))
  return _einsum("rhd,shd->rsh", left, right, dtype)


def _einsum(pattern: str, left: Array, right: Array, dtype: Any) -> Array:
  return jnp.einsum(
    pattern,
    left.astype(dtype),
    right.astype(dtype),
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def _add_block(table: Array, block: Array, first: tuple[Any, int]) -> Array:
  former = jax.lax.dynamic_slice(table, first, block.shape)
  return jax.lax.dynamic_update_slice(table, former + block, first)
