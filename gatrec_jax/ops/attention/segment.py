"""Attention by scattering chunks of receiver-sorted edges: for CPUs, and for any graph.

One pass over the edges suffices: since they are sorted, only the first receiver of a chunk can have
edges in earlier chunks, so that the online softmax rescales one row per chunk. The backward pass
reads the edges once more and recomputes the logits. Besides the arrays of the nodes, only one chunk
is in memory, for any number of edges. With a layout of `blocks`, the forward pass adds up block by
block; the backward pass takes the chunks in any order.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.ops.attention.blocks import BlocksLayout
from gatrec_jax.ops.attention.edges import MASKED, Edges, Sums, gather, gather_sorted, merged
from gatrec_jax.ops.attention.logits import (
  Logits,
  Terms,
  head_sums,
  matrix_operations,
  spread_heads,
)

Array = jax.Array

# Numbers in a chunk's rows [chunk, H · D]: half a core's cache, or enough to occupy a device.
_CPU_CHUNK, _DEVICE_CHUNK = 1 << 18, 1 << 26
_SORTED = {"indices_are_sorted": True, "mode": "promise_in_bounds"}


class _Chunks(NamedTuple):
  """The edges in chunks of C, [chunks, C, …] each; where and keep may be None."""

  senders: Array
  receivers: Array
  features: Array
  where: Array | None
  keep: Array | None


def default_chunk(width: int) -> int:
  """Edges per chunk for the default device. Args: width: H · D."""
  numbers = _CPU_CHUNK if jax.default_backend() == "cpu" else _DEVICE_CHUNK
  return max(numbers // max(width, 1), 256)


def segment_sums(
  logits: Logits,
  values: Array,
  terms: Terms,
  edges: Edges,
  *,
  heads: int,
  keep: Array | None,
  chunk: int,
) -> Sums:
  """The sums of attention, differentiable by values, terms, features, where (if float) and keep.

  Args:
    logits: the kind of attention.
    values: [N, H · D] float. terms: the other arguments of the logits.
    edges: receiver-sorted. heads: H.
    keep: [E, H] float, dropout multipliers of the weights, or None.
    chunk: edges handled at once; 0 = `default_chunk`.
  """
  bounds = None
  if isinstance(edges.layout, BlocksLayout):
    chunks, bounds = _blocks(edges, keep)
  else:
    size = chunk or default_chunk(values.shape[1])
    chunks = _consecutive(edges, keep, min(size, max(edges.senders.shape[0], 1)), values.shape[0])
  return _sums(
    logits, heads, values, terms.source, terms.target, terms.params, chunks, terms.slope, bounds
  )


def _consecutive(edges: Edges, keep: Array | None, size: int, num_nodes: int) -> _Chunks:
  """Chunks of `size` consecutive edges."""
  pad = -edges.senders.shape[0] % size
  where = edges.where
  if where is None and pad:
    where = jnp.ones(edges.senders.shape[0], jnp.float32)
  return _Chunks(
    # Padding edges end at the last node, which keeps the receivers sorted; they count 0 times.
    senders=_chunked(edges.senders, size),
    receivers=_chunked(edges.receivers, size, fill=num_nodes - 1),
    features=_chunked(edges.features, size),
    where=None if where is None else _chunked(where.astype(jnp.float32), size),
    keep=None if keep is None else _chunked(keep, size),
  )


def _blocks(edges: Edges, keep: Array | None) -> tuple[_Chunks, Array]:
  """The chunks of the edges' layout, and its bounds."""
  layout = edges.layout
  real = layout.edge >= 0
  edge = jnp.maximum(layout.edge, 0)
  where = real if edges.where is None else jnp.where(real, edges.where[edge], 0)
  return _Chunks(
    layout.senders,
    layout.receivers,
    gather(edges.features, edge),
    where.astype(jnp.float32),
    None if keep is None else gather(keep, edge),
  ), layout.bounds


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(
  logits: Logits,
  heads: int,
  values: Array,
  source: Array | None,
  target: Array,
  params: Any,
  chunks: _Chunks,
  slope: Array,
  bounds: Array | None,
) -> Sums:
  num_nodes, width = values.shape
  ops = matrix_operations(heads)

  def step(sums: Sums, chunk: _Chunks) -> Sums:
    weighted, total, shift = sums
    receivers, first = chunk.receivers, chunk.receivers[0]
    value = gather(values, chunk.senders).astype(jnp.float32)
    scores = logits(
      value,
      _gathered(source, chunk.senders),
      _gathered_sorted(target, receivers),
      _columns(chunk.features),
      params,
      slope,
      ops,
    )
    if chunk.where is not None:
      scores = jnp.where(chunk.where[:, None] > 0, scores, MASKED)
    former = shift[first]
    shift = shift.at[receivers].max(scores, **_SORTED)
    scale = jnp.exp(former - shift[first])
    total = total.at[first].multiply(scale)
    weighted = weighted.at[first].multiply(spread_heads(scale, width))
    weight = _exponentials(scores, shift, chunk)
    total = total.at[receivers].add(weight, **_SORTED)
    if chunk.keep is not None:
      weight = weight * chunk.keep
    message = spread_heads(weight, width) * value
    return Sums(weighted.at[receivers].add(message, **_SORTED), total, shift)

  begin = Sums(
    jnp.zeros((num_nodes, width), jnp.float32),
    jnp.zeros((num_nodes, heads), jnp.float32),
    jnp.full((num_nodes, heads), MASKED, jnp.float32),
  )
  if bounds is None:
    return jax.lax.scan(lambda sums, chunk: (step(sums, chunk), None), begin, chunks)[0]

  def numbered(number: Array, sums: Sums) -> Sums:
    return step(sums, jax.tree.map(lambda array: array[number], chunks))

  def block(b: Array, sums: Sums) -> Sums:
    return merged(sums, jax.lax.fori_loop(bounds[b], bounds[b + 1], numbered, begin))

  return jax.lax.fori_loop(0, bounds.shape[0] - 1, block, begin)


def _sums_forward(logits: Logits, heads: int, *arguments: Any) -> tuple[Sums, Any]:
  sums = _sums(logits, heads, *arguments)
  return sums, (arguments, sums.shift)


def _sums_backward(logits: Logits, heads: int, kept: Any, gradient: Sums) -> tuple[Any, ...]:
  (values, source, target, params, chunks, slope, _), shift = kept
  num_nodes, width = values.shape
  ops = matrix_operations(heads)

  def step(found: tuple[Any, ...], chunk: _Chunks) -> tuple[tuple[Any, ...], Any]:
    of_values, of_source, of_target, of_params = found
    senders, receivers = chunk.senders, chunk.receivers
    value = gather(values, senders).astype(jnp.float32)
    of_weighted = gather_sorted(gradient.weighted, receivers)

    def again(value: Array, source: Array | None, target: Array, columns: Any, params: Any) -> Any:
      return logits(value, source, target, columns, params, slope, ops)

    scores, pull = jax.vjp(
      again,
      value,
      _gathered(source, senders),
      _gathered_sorted(target, receivers),
      _columns(chunk.features),
      params,
    )
    if chunk.where is not None:
      scores = jnp.where(chunk.where[:, None] > 0, scores, MASKED)
    once = jnp.exp(scores - gather_sorted(shift, receivers))
    weight = once if chunk.where is None else once * chunk.where[:, None]
    of_message = head_sums(of_weighted * value, heads)
    of_weight = of_message if chunk.keep is None else of_message * chunk.keep
    of_weight += gather_sorted(gradient.total, receivers)
    one_value, one_source, one_target, of_columns, one_params = pull(weight * of_weight)
    kept_weight = weight if chunk.keep is None else weight * chunk.keep
    one_value += spread_heads(kept_weight, width) * of_weighted
    found = (
      of_values.at[senders].add(one_value, mode="promise_in_bounds"),
      None if source is None else of_source.at[senders].add(one_source, mode="promise_in_bounds"),
      of_target.at[receivers].add(one_target, **_SORTED),
      jax.tree.map(jnp.add, of_params, one_params),
    )
    per_edge = (
      jnp.stack(of_columns, axis=-1) if of_columns else jnp.zeros_like(chunk.features),
      None
      if chunk.where is None
      else jnp.sum(jnp.where(chunk.where[:, None] > 0, once * of_weight, 0.0), axis=1),
      None if chunk.keep is None else weight * of_message,
    )
    return found, per_edge

  def zeros(array: Array) -> Array:
    return jnp.zeros(array.shape, jnp.float32)

  begin = jax.tree.map(zeros, (values, source, target, params))
  found, (of_features, of_where, of_keep) = jax.lax.scan(step, begin, chunks)
  of_values, of_source, of_target, of_params = jax.tree.map(
    lambda array, like: array.astype(like.dtype), found, (values, source, target, params)
  )
  of_chunks = _Chunks(None, None, of_features, of_where, of_keep)
  return of_values, of_source, of_target, of_params, of_chunks, None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _exponentials(scores: Array, shift: Array, chunk: _Chunks) -> Array:
  """[C, H] exponentials of the scores relative to their receivers' shifts, 0 where masked."""
  weight = jnp.exp(scores - gather_sorted(shift, chunk.receivers))
  return weight if chunk.where is None else weight * chunk.where[:, None]


def _gathered(table: Array | None, index: Array) -> Array | None:
  return None if table is None else gather(table, index).astype(jnp.float32)


def _gathered_sorted(table: Array, index: Array) -> Array:
  return gather_sorted(table, index).astype(jnp.float32)


def _columns(features: Array) -> list[Array]:
  return [features[:, f] for f in range(features.shape[1])]


def _chunked(array: Array, size: int, *, fill: int = 0) -> Array:
  """[E, …] -> [chunks, size, …], the last chunk padded with `fill`."""
  pad = -array.shape[0] % size
  if pad:
    widths = [(0, pad)] + [(0, 0)] * (array.ndim - 1)
    array = jnp.pad(array, widths, constant_values=fill)
  return array.reshape(array.shape[0] // size, size, *array.shape[1:])
