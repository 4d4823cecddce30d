"""Dispatches the sums of attention to an implementation.

The layout of the edges decides: `dense` or `rows`, prepared once on the host; otherwise `segment`,
in the order of `blocks` or, without a layout, in the given order. On a mesh whose `graph` axis has
several devices, edges are sharded along it and each device adds up its own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gatrec_jax.ops.attention.dense import DenseLayout, dense_sums
from gatrec_jax.ops.attention.edges import Edges, Sums
from gatrec_jax.ops.attention.logits import Logits, Terms
from gatrec_jax.ops.attention.pallas import RowsLayout, rows_sums
from gatrec_jax.ops.attention.segment import segment_sums

Array = jax.Array


def attention_sums(
  logits: Logits,
  values: Array,
  terms: Terms,
  edges: Edges,
  *,
  heads: int,
  keep: Array | None,
  chunk: int,
) -> Sums:
  """The sums of attention, by the implementation of the edges' layout.

  Args: as `segment_sums`; `chunk` is read by `segment` alone.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.shape.get("graph", 1) > 1:
    return _by_devices(logits, values, terms, edges, heads=heads, keep=keep, chunk=chunk, mesh=mesh)
  if isinstance(edges.layout, DenseLayout):
    return dense_sums(logits, values, terms, edges, heads=heads, keep=keep)
  if isinstance(edges.layout, RowsLayout):
    return rows_sums(logits, values, terms, edges, heads=heads, keep=keep)
  return segment_sums(logits, values, terms, edges, heads=heads, keep=keep, chunk=chunk)


def _by_devices(
  logits: Logits,
  values: Array,
  terms: Terms,
  edges: Edges,
  *,
  heads: int,
  keep: Array | None,
  chunk: int,
  mesh: jax.sharding.AbstractMesh,
) -> Sums:
  """`segment_sums` of each device's edges, merged. Rows of the result are sharded over `graph`, and
  heads over `model` if it divides their number.

  Each device has a contiguous part of the receiver-sorted edges, so receivers fall into ranges; a
  receiver on a border has edges on both sides, which the common shift accounts for. Every device
  holds the values of all nodes; edges, their temporaries and the results are sharded.
  """
  num_nodes, devices = values.shape[0], mesh.shape["graph"]
  model = mesh.shape.get("model", 1)
  across = "model" if model > 1 and heads % model == 0 else None
  pad = -num_nodes % devices
  if num_edges_left := -edges.senders.shape[0] % devices:
    raise ValueError(f"{num_edges_left} edges short of a multiple of {devices} devices")

  def local(
    values: Array,
    source: Array | None,
    target: Array,
    params: tuple,
    slope: Array,
    senders: Array,
    receivers: Array,
    features: Array,
    where: Array | None,
    keep: Array | None,
  ) -> Sums:
    local_heads = heads // model if across else heads
    sums = segment_sums(
      logits,
      values,
      Terms(source, target, params, slope),
      Edges(senders, receivers, features, where),
      heads=local_heads,
      keep=keep,
      chunk=chunk,
    )
    own = jax.lax.stop_gradient(sums.shift)
    shift = jax.lax.pmax(own, "graph")
    scale = jnp.exp(own - shift)
    weighted = sums.weighted * jnp.repeat(scale, sums.weighted.shape[1] // local_heads, axis=1)
    whole = Sums(weighted, sums.total * scale, shift)

    def padded(array: Array) -> Array:
      return jnp.pad(array, ((0, pad), (0, 0)))

    def scatter(array: Array) -> Array:
      return jax.lax.psum_scatter(padded(array), "graph", tiled=True)

    size = (num_nodes + pad) // devices
    mine = jax.lax.dynamic_slice_in_dim(
      padded(whole.shift), jax.lax.axis_index("graph") * size, size
    )
    return Sums(scatter(whole.weighted), scatter(whole.total), mine)

  heads_last = PartitionSpec(None, across)
  per_edge = PartitionSpec("graph")
  # The last axis of a kind's parameters is that of the heads.
  of_params = jax.tree.map(
    lambda array: PartitionSpec(*[None] * (array.ndim - 1), across), terms.params
  )
  sums = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(
      heads_last,
      heads_last,
      heads_last,
      of_params,
      PartitionSpec(),
      per_edge,
      per_edge,
      per_edge,
      per_edge,
      PartitionSpec("graph", across),
    ),
    out_specs=Sums(*[PartitionSpec("graph", across)] * 3),
    check_vma=False,
  )(
    values,
    terms.source,
    terms.target,
    terms.params,
    terms.slope,
    edges.senders,
    edges.receivers,
    edges.features,
    None if edges.where is None else edges.where.astype(jnp.float32),
    keep,
  )
  return Sums(*(array[:num_nodes] for array in sums))
