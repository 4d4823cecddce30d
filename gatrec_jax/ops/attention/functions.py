"""Multi-head graph attention over receiver-sorted edges, versions 1 and 2, with edge features.

The implementations compute sums of unnormalized weights, which are divided once per node: the
softmax over a receiver's edges is applied last.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.ops.attention.dispatch import attention_sums
from gatrec_jax.ops.attention.edges import Edges, segment_softmax, weighted_means
from gatrec_jax.ops.attention.logits import (
  Logits,
  Terms,
  dots_of_heads,
  logits_light,
  logits_v1,
  logits_v2,
  matrix_operations,
)


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
    chunk: edges handled at once; 0 = `segment.default_chunk`.
  Returns:
    [N, H, D] weighted means of the senders' values (0 for a node without edges) and [E, H]
    attention weights, before dropout.

  >>> edges = Edges(jnp.array([0, 1]), jnp.array([2, 2]), features=jnp.zeros((2, 1)))
  >>> sources = jnp.array([[[1.0]], [[3.0]], [[0.0]]])  # N = 3, H = D = 1
  >>> zeros = {"vector": jnp.zeros((1, 1)), "edge_kernel": jnp.zeros((1, 1, 1))}
  >>> means, weights = attention_v2(sources, jnp.zeros((3, 1, 1)), edges, **zeros)
  >>> means[:, 0, 0].tolist(), weights[:, 0].tolist()
  ([0.0, 0.0, 2.0], [0.5, 0.5])
  """

  width = sources.shape[1] * sources.shape[2]
  terms = Terms(
    None,
    targets.reshape(-1, width),
    (vector.reshape(width), edge_kernel.reshape(-1, width)),
    jnp.asarray(slope, jnp.float32),
  )
  return _attend(logits_v2, sources, terms, edges, keep=keep, chunk=chunk)


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

  >>> edges = Edges(jnp.array([0, 1]), jnp.array([2, 2]), features=jnp.zeros((2, 1)))
  >>> sources = jnp.array([[[1.0]], [[3.0]], [[0.0]]])  # N = 3, H = D = 1
  >>> zeros = {"source_vector": jnp.zeros((1, 1)), "target_vector": jnp.zeros((1, 1))}
  >>> means, weights = attention_v1(sources, edges, **zeros, edge_vector=jnp.zeros((1, 1)))
  >>> means[:, 0, 0].tolist(), weights[:, 0].tolist()
  ([0.0, 0.0, 2.0], [0.5, 0.5])
  """
  from_source, from_target = dots_of_heads(sources, (source_vector, target_vector))

  terms = Terms(from_source, from_target, edge_vector, jnp.asarray(slope, jnp.float32))
  return _attend(logits_v1, sources, terms, edges, keep=keep, chunk=chunk)


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

  >>> features = jnp.log(jnp.array([[1.0], [3.0]]))
  >>> edges = Edges(jnp.array([0, 1]), jnp.array([2, 2]), features)
  >>> values = jnp.array([[[1.0]], [[3.0]], [[0.0]]])  # N = 3, H = D = 1
  >>> zeros = {"source_vector": jnp.zeros((1, 1)), "target_vector": jnp.zeros((1, 1))}
  >>> means, weights = attention_light(values, edges, **zeros, edge_vector=jnp.ones((1, 1)))
  >>> f"{means[2, 0, 0]:.2f}", [f"{w:.2f}" for w in weights[:, 0]]  # (1 · 1 + 3 · 3) ÷ 4
  ('2.50', ['0.25', '0.75'])
  """
  from_source, from_target = dots_of_heads(values, (source_vector, target_vector))

  terms = Terms(from_source, from_target, edge_vector, jnp.asarray(slope, jnp.float32))
  return _attend(logits_light, values, terms, edges, keep=keep, chunk=chunk)


def _attend(
  logits: Logits,
  values: jax.Array,
  terms: Terms,
  edges: Edges,
  *,
  keep: jax.Array | None,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """Softmax-weighted means of the senders' `values` [N, H, D], and the weights [E, H]."""
  num_nodes, heads, _ = values.shape
  flat = values.reshape(num_nodes, -1)
  sums = attention_sums(logits, flat, terms, edges, heads=heads, keep=keep, chunk=chunk)
  weights = _weights(logits, flat, terms, edges, heads)
  return weighted_means(sums).reshape(values.shape).astype(values.dtype), weights


def _weights(
  logits: Logits, values: jax.Array, terms: Terms, edges: Edges, heads: int
) -> jax.Array:
  """[E, H] attention weights, computed apart from the sums: jit drops them if they are unused."""
  scores = logits(
    values[edges.senders],
    None if terms.source is None else terms.source[edges.senders],
    terms.target[edges.receivers],
    list(edges.features.T),
    terms.params,
    terms.slope,
    matrix_operations(heads),
  )
  return segment_softmax(scores, edges.receivers, values.shape[0], where=edges.where)
