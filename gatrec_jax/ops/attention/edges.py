"""Directed edges, softmax over each receiver's edges, and helpers of the implementations."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.errors import InputError

Array = jax.Array

MASKED = -1e30  # finite, so that a receiver with only masked edges gives 0 and not NaN


class Edges(NamedTuple):
  """Directed edges, sorted by receiver.

  Attributes:
    senders, receivers: [E] int32 in [0, N); `receivers` ascending.
    features: [E, F] float32.
    where: [E] bool, False for padding and dropped edges; or float, each edge's multiplicity ≥ 0;
      None if every edge counts once.
    layout: the edges in the order of an implementation (`blocks.BlocksLayout`,
      `dense.DenseLayout`, `pallas.RowsLayout`); None: `segment` reads them in this order.
  """

  senders: Array
  receivers: Array
  features: Array
  where: Array | None = None
  layout: Any = None

  @classmethod
  def from_graph(cls, graph: jraph.GraphsTuple, *, where: Array | None = None) -> Edges:
    """The edges of a graph, sorted by receiver.

    Args:
      graph: senders, receivers [E] int; edges [E, F] float, or None for edges without features.
        Concrete arrays are sorted where they are not; traced ones must be sorted already.
      where: [E] bool or float, in the order of the graph's edges; see the class.
    Returns:
      Edges without a layout. A padded graph (`jraph.pad_with_graphs`) needs no `where`: its padding
      edges lead to padding nodes alone.

    >>> import numpy as np
    >>> graph = jraph.GraphsTuple(
    ...   nodes=None, edges=np.float32([[5], [3], [4]]), globals=None,
    ...   senders=np.array([0, 1, 2]), receivers=np.array([2, 2, 0]),
    ...   n_node=np.array([3]), n_edge=np.array([3]))
    >>> edges = Edges.from_graph(graph)
    >>> edges.receivers.tolist(), edges.senders.tolist(), edges.features.tolist()
    ([0, 2, 2], [2, 0, 1], [[4.0], [5.0], [3.0]])
    """
    senders, receivers, features = graph.senders, graph.receivers, graph.edges
    if features is None:
      features = jnp.zeros((receivers.shape[0], 0), jnp.float32)
    if features.ndim != 2:
      raise InputError(f"`graph.edges` must be [E, F], not {list(features.shape)}", field="graph")
    if not isinstance(receivers, jax.core.Tracer) and (np.diff(receivers) < 0).any():
      order = np.argsort(receivers, kind="stable")
      senders, receivers, features = senders[order], receivers[order], features[order]
      where = None if where is None else where[order]
    return cls(
      jnp.asarray(senders, jnp.int32),
      jnp.asarray(receivers, jnp.int32),
      jnp.asarray(features, jnp.float32),
      where,
    )


class Sums(NamedTuple):
  """The sums of attention for each receiver, relative to a shift of its logits.

  Sums over disjoint parts of the edges can be merged, whichever implementation made them
  (`merged`). The weighted mean is weighted ÷ total.

  Attributes:
    weighted: [N, H · D] float32, Σ_e m_e keep_e exp(logit_e − shift) · value of e's sender, m being
      the multiplicity.
    total: [N, H] float32, Σ_e m_e exp(logit_e − shift).
    shift: [N, H] float32, the largest logit of a counted edge, `MASKED` without one. A constant to
      derivatives, as the weighted mean does not depend on it.
  """

  weighted: Array
  total: Array
  shift: Array


def merged(one: Sums, other: Sums) -> Sums:
  """The sums over both parts of the edges."""
  shift = jnp.maximum(one.shift, other.shift)
  of_one, of_other = jnp.exp(one.shift - shift), jnp.exp(other.shift - shift)

  def across(scale: Array) -> Array:
    return jnp.repeat(scale, one.weighted.shape[1] // scale.shape[1], axis=1)

  weighted = across(of_one) * one.weighted + across(of_other) * other.weighted
  return Sums(weighted, of_one * one.total + of_other * other.total, shift)


def weighted_means(sums: Sums) -> Array:
  """[N, H · D] float32: `weighted` ÷ `total`; 0 for a receiver without counted edges."""
  return _quotients(sums.weighted, not_zero(sums.total))


@jax.custom_vjp
def _quotients(weighted: Array, total: Array) -> Array:
  """[N, H · D]: `weighted` [N, H · D] ÷ `total` [N, H], which is not 0. The gradient reads the
  quotients, which the next layer keeps anyway, instead of `weighted`."""
  heads = total.shape[1]
  parts = weighted.reshape(weighted.shape[0], heads, -1) / total[:, :, None]
  return parts.reshape(weighted.shape)


def _quotients_forward(weighted: Array, total: Array) -> tuple[Array, tuple[Array, Array]]:
  quotients = _quotients(weighted, total)
  return quotients, (quotients, total)


def _quotients_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
  quotients, total = kept
  of_weighted = _quotients(gradient, total)
  products = (of_weighted * quotients).reshape(total.shape[0], total.shape[1], -1)
  return of_weighted, -products.sum(axis=-1)


_quotients.defvjp(_quotients_forward, _quotients_backward)


def segment_softmax(
  logits: Array, receivers: Array, num_nodes: int, *, where: Array | None = None
) -> Array:
  """Softmax over the edges of each receiver.

  Args:
    logits: [E, H] float.
    receivers: [E] int32 ascending, in [0, num_nodes).
    num_nodes: N, static.
    where: [E] bool, edges that count; the others get 0. Or float, each edge's multiplicity ≥ 0.
  Returns:
    [E, H] weights, each receiver's counted edges summing to 1.

  >>> logits = jnp.log(jnp.array([[1.0], [3.0], [5.0]]))
  >>> [f"{w:.2f}" for w in segment_softmax(logits, jnp.array([0, 0, 2]), 3)[:, 0]]
  ['0.25', '0.75', '1.00']
  """
  if where is not None:
    there = where[:, None] > 0
    logits = jnp.where(there, logits, MASKED)
  largest = jraph.segment_max(
    jax.lax.stop_gradient(logits), receivers, num_nodes, indices_are_sorted=True
  )
  shifted = logits - gather_sorted(jnp.maximum(largest, MASKED), receivers)
  unnormalized = jnp.exp(shifted)
  if where is not None:
    unnormalized = jnp.where(there, unnormalized * where[:, None], 0.0)
  total = jraph.segment_sum(unnormalized, receivers, num_nodes, indices_are_sorted=True)
  return unnormalized / gather_sorted(not_zero(total), receivers)


def not_zero(total: Array) -> Array:
  """Replaces 0, the sum of a node without edges, with 1."""
  return jnp.where(total > 0, total, 1.0)


def gather(array: Array, index: Array) -> Array:
  """Rows of `array`; `index` must be in bounds."""
  return array.at[index].get(mode="promise_in_bounds")


def gather_sorted(array: Array, index: Array) -> Array:
  """The same for an ascending `index`."""
  return array.at[index].get(indices_are_sorted=True, mode="promise_in_bounds")
