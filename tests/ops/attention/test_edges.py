"""Edges from a graph: order, features, padding, tracing."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.ops.attention import Edges, attention_v2


def graph(senders, receivers, edges):
  return jraph.GraphsTuple(
    nodes=None,
    edges=edges,
    senders=np.array(senders),
    receivers=np.array(receivers),
    globals=None,
    n_node=np.array([4]),
    n_edge=np.array([len(senders)]),
  )


@jax.jit
def attended(edges):
  keys = jax.random.split(jax.random.key(0), 4)
  sources, targets = (jax.random.normal(key, (4, 2, 3)) for key in keys[:2])
  return attention_v2(
    sources,
    targets,
    edges,
    vector=jax.random.normal(keys[2], (2, 3)),
    edge_kernel=jax.random.normal(keys[3], (1, 2, 3)),
  )[0]


def test_any_order_of_edges_gives_the_same_attention():
  senders, receivers = [0, 1, 3, 2, 1], [2, 0, 2, 3, 2]
  features = np.arange(5, dtype=np.float32)[:, None]
  first = Edges.from_graph(graph(senders, receivers, features))
  order = [4, 2, 0, 3, 1]
  mixed = graph(np.array(senders)[order], np.array(receivers)[order], features[order])
  assert first.receivers.tolist() == [0, 2, 2, 2, 3]
  np.testing.assert_allclose(attended(Edges.from_graph(mixed)), attended(first), atol=1e-6)
  where = np.array([True, True, False, True, True])
  masked = Edges.from_graph(graph(senders, receivers, features), where=where)
  assert masked.where.tolist() == [True, True, False, True, True]  # the edge 3 -> 2, sorted
  assert masked.senders.tolist() == [1, 0, 3, 1, 2]


def test_features_may_be_absent_and_must_be_rows():
  edges = Edges.from_graph(graph([0, 1], [2, 3], None))
  assert edges.features.shape == (2, 0) and edges.features.dtype == jnp.float32
  with pytest.raises(InputError, match=r"graph: .*\[E, F\]"):
    Edges.from_graph(graph([0, 1], [2, 3], np.ones(2)))


def test_a_bipartite_graph_passes_through_jit_and_padding():
  rows = Interactions.from_indices([0, 1, 1], [0, 0, 1], [5, 3, 4], num_users=2, num_items=2)
  plain = bipartite_graph(rows)
  edges = Edges.from_graph(plain)
  jax.tree.map(np.testing.assert_array_equal, edges, jax.jit(Edges.from_graph)(plain))
  padded = Edges.from_graph(bipartite_graph(rows, pad_to=(7, 11)))
  for longer, shorter in zip(padded[:3], edges[:3], strict=True):
    assert longer.dtype == shorter.dtype
    np.testing.assert_array_equal(longer[:6], shorter)
  assert (padded.receivers[6:] == 4).all()  # the first padding node
