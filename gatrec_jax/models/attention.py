"""Multi-head graph attention over receiver-sorted edges, versions 1 and 2, with edge features.

Edges are walked in chunks, each recomputed in the backward pass: a chunk's temporaries stay in the
processor's cache, so this is both several times faster on CPU than whole [E, H, D] arrays and
bounded in memory for any number of edges. The softmax over a receiver's edges is applied late: sums
of unnormalised weights are divided once per node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph

_MASKED = -1e30  # finite, so that a receiver with only masked edges gives 0 and not NaN


class Edges(NamedTuple):
  """Directed edges, sorted by receiver.

  Attributes:
    senders, receivers: [E] int32 in [0, N); `receivers` ascending.
    features: [E, F] float32.
    where: [E] bool, False for padding and dropped edges; None = all count.
  """

  senders: jax.Array
  receivers: jax.Array
  features: jax.Array
  where: jax.Array | None = None


def default_edge_chunk() -> int:
  """Edges per chunk for the default device: cache-sized on CPU, memory-sized elsewhere."""
  return 4096 if jax.default_backend() == "cpu" else 1 << 20


def attention_v2(
  sources: jax.Array,
  targets: jax.Array,
  edges: Edges,
  *,
  vector: jax.Array,
  edge_kernel: jax.Array,
  slope: float = 0.2,
  keep: jax.Array | None = None,
  chunk: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """GATv2 (Brody et al. 2022, eq. 7): aᵀ LeakyReLU(W_s x_j + W_t x_i + W_e e_ij), softmax over j.

  Args:
    sources: [N, H, D] float, W_s x; both the senders' part of the logits and the values.
    targets: [N, H, D] float, W_t x.
    edges: receiver-sorted edges.
    vector: [H, D] float, a.
    edge_kernel: [F, H, D] float, W_e.
    slope: of the LeakyReLU.
    keep: [E, H] float, dropout multipliers of the attention weights, or None.
    chunk: edges handled at once; 0 = `default_edge_chunk()`.
  Returns:
    [N, H, D] weighted means of the senders' values (0 for a node without edges) and [E, H]
    attention weights, before dropout.
  """

  def logits(part: Edges) -> jax.Array:
    hidden = _gather(sources, part.senders) + _gather_sorted(targets, part.receivers)
    # A sum of few outer products fuses with the lines around it; a matrix product would not.
    for f in range(edge_kernel.shape[0]):
      hidden += part.features[:, f, None, None] * edge_kernel[f]
    return jnp.sum(jax.nn.leaky_relu(hidden, slope) * vector, axis=-1)

  return _attend(sources, edges, logits=logits, keep=keep, chunk=chunk)


def attention_v1(
  sources: jax.Array,
  edges: Edges,
  *,
  source_vector: jax.Array,
  target_vector: jax.Array,
  edge_vector: jax.Array,
  slope: float = 0.2,
  keep: jax.Array | None = None,
  chunk: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """GAT (Veličković et al. 2018, eq. 3): LeakyReLU(a_s·Wx_j + a_t·Wx_i + a_e·e_ij), softmax over j.

  Args:
    sources: [N, H, D] float, W x.
    edges: receiver-sorted edges.
    source_vector, target_vector: [H, D] float, the halves of a.
    edge_vector: [F, H] float, the attention vector folded into the edge projection.
    slope, keep, chunk: as in `attention_v2`.
  Returns:
    As `attention_v2`.
  """
  from_source = jnp.sum(sources * source_vector, axis=-1)
  from_target = jnp.sum(sources * target_vector, axis=-1)

  def logits(part: Edges) -> jax.Array:
    total = _gather(from_source, part.senders) + _gather_sorted(from_target, part.receivers)
    for f in range(edge_vector.shape[0]):
      total += part.features[:, f, None] * edge_vector[f]
    return jax.nn.leaky_relu(total, slope)

  return _attend(sources, edges, logits=logits, keep=keep, chunk=chunk)


def attention_light(
  values: jax.Array,
  edges: Edges,
  *,
  source_vector: jax.Array,
  target_vector: jax.Array,
  edge_vector: jax.Array,
  slope: float = 0.2,
  keep: jax.Array | None = None,
  chunk: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Attention without weight matrices: LeakyReLU(a_s·x_j + a_t·x_i) + a_e·e_ij, softmax over j.

  LightGCN's hop with GAT's weights (version 1) in place of degrees. Edge features stand outside the
  LeakyReLU: where e is the logarithm of a weight, a = (0, 0, 1) gives the weighted mean.

  Args:
    values: [N, H, D] float, x.
    edges: receiver-sorted edges.
    source_vector, target_vector: [H, D] float, a_s and a_t.
    edge_vector: [F, H] float, a_e.
    slope, keep, chunk: as in `attention_v2`.
  Returns:
    As `attention_v2`.
  """
  from_source = jnp.sum(values * source_vector, axis=-1)
  from_target = jnp.sum(values * target_vector, axis=-1)

  def logits(part: Edges) -> jax.Array:
    total = _gather(from_source, part.senders) + _gather_sorted(from_target, part.receivers)
    total = jax.nn.leaky_relu(total, slope)
    for f in range(edge_vector.shape[0]):
      total += part.features[:, f, None] * edge_vector[f]
    return total

  return _attend(values, edges, logits=logits, keep=keep, chunk=chunk)


def segment_softmax(
  logits: jax.Array, receivers: jax.Array, num_nodes: int, *, where: jax.Array | None = None
) -> jax.Array:
  """Softmax over the edges of each receiver.

  Args:
    logits: [E, H] float.
    receivers: [E] int32 ascending, in [0, num_nodes).
    num_nodes: N, static.
    where: [E] bool, edges that count; the others get 0. Or float, each edge's multiplicity ≥ 0.
  Returns:
    [E, H] weights, each receiver's counted edges summing to 1.
  """
  unnormalised, total = _exponentials(logits, receivers, num_nodes, where)
  return unnormalised / _gather_sorted(_not_zero(total), receivers)


def _attend(
  values: jax.Array,
  edges: Edges,
  *,
  logits: Callable[[Edges], jax.Array],
  keep: jax.Array | None,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """Softmax-weighted means of the senders' `values` [N, H, D], for any function of the logits."""
  num_nodes, num_edges = values.shape[0], edges.senders.shape[0]
  size = min(chunk or default_edge_chunk(), max(num_edges, 1))
  pad = -num_edges % size
  num_chunks = (num_edges + pad) // size

  def chunked(array: jax.Array, fill: int = 0) -> jax.Array:
    widths = [(0, pad)] + [(0, 0)] * (array.ndim - 1)
    padded = jnp.pad(array, widths, constant_values=fill) if pad else array
    return padded.reshape(num_chunks, size, *array.shape[1:])

  # Padding edges end at the last node, which keeps the receivers sorted; their weight is 0.
  parts = Edges(
    chunked(edges.senders), chunked(edges.receivers, num_nodes - 1), chunked(edges.features)
  )
  logit_chunk = jax.checkpoint(logits)
  _, stacked = jax.lax.scan(lambda carry, part: (carry, logit_chunk(part)), None, parts)
  edge_logits = stacked.reshape(num_chunks * size, values.shape[1])[:num_edges]

  unnormalised, total = _exponentials(edge_logits, edges.receivers, num_nodes, edges.where)
  weights = unnormalised if keep is None else unnormalised * keep

  @jax.checkpoint
  def messages(part: Edges, weight: jax.Array) -> jax.Array:
    return weight[:, :, None] * _gather(values, part.senders)

  def add(sums: jax.Array, xs: tuple[Edges, jax.Array]) -> tuple[jax.Array, None]:
    part, weight = xs
    return sums.at[part.receivers].add(
      messages(part, weight), indices_are_sorted=True, mode="promise_in_bounds"
    ), None

  sums, _ = jax.lax.scan(add, jnp.zeros_like(values), (parts, chunked(weights)))
  safe_total = _not_zero(total)
  return sums / safe_total[:, :, None], unnormalised / _gather_sorted(safe_total, edges.receivers)


def _exponentials(
  logits: jax.Array, receivers: jax.Array, num_nodes: int, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """[E, H] exponentials shifted by each receiver's maximum, and their [N, H] sums."""
  if where is not None:
    there = where[:, None] > 0
    logits = jnp.where(there, logits, _MASKED)
  largest = jraph.segment_max(
    jax.lax.stop_gradient(logits), receivers, num_nodes, indices_are_sorted=True
  )
  shifted = logits - _gather_sorted(jnp.maximum(largest, _MASKED), receivers)
  unnormalised = jnp.exp(shifted)
  if where is not None:
    unnormalised = jnp.where(there, unnormalised * where[:, None], 0.0)
  total = jraph.segment_sum(unnormalised, receivers, num_nodes, indices_are_sorted=True)
  return unnormalised, total


def _not_zero(total: jax.Array) -> jax.Array:
  """Replaces 0, the sum of a node without edges, by 1. Other sums are at least 1 (the maximum)."""
  return jnp.where(total > 0, total, 1.0)


def _gather(array: jax.Array, index: jax.Array) -> jax.Array:
  return array.at[index].get(mode="promise_in_bounds")


def _gather_sorted(array: jax.Array, index: jax.Array) -> jax.Array:
  return array.at[index].get(indices_are_sorted=True, mode="promise_in_bounds")
