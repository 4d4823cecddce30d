"""The bipartite graph: edges by hand, order, padding, self-loops, new users."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError


def interactions(pairs, ratings=None, times=None, num_users=3, num_items=2):
  pairs = np.array(pairs, np.int32).reshape(-1, 2)
  return Interactions(
    user=pairs[:, 0],
    item=pairs[:, 1],
    rating=np.array(ratings if ratings is not None else np.ones(len(pairs)), np.float32),
    timestamp=np.array(times if times is not None else np.zeros(len(pairs)), np.int64),
    user_ids=tuple(map(str, range(num_users))),
    item_ids=tuple(map(str, range(num_items))),
  )


def test_edges_by_hand():
  graph = bipartite_graph(
    interactions([(1, 0), (0, 1)], [5, 2], [30, 10]), edge_features=("rating", "time")
  )
  assert graph.receivers.tolist() == [0, 1, 3, 4]
  assert graph.senders.tolist() == [4, 3, 1, 0]
  np.testing.assert_array_equal(graph.edges, [[2, 0], [5, 1], [5, 1], [2, 0]])
  assert graph.n_node.tolist() == [5] and graph.n_edge.tolist() == [4]
  assert graph.edges.dtype == np.float32 and graph.senders.dtype == np.int32


def test_grades_are_logarithms_and_need_their_values():
  rows = interactions([(1, 0), (0, 1)], [5, 2])
  graph = bipartite_graph(rows, edge_features=("relevance",), relevance=np.float32([1, 0.05]))
  np.testing.assert_allclose(graph.edges[:, 0], np.log([0.05, 1, 1, 0.05]), rtol=1e-6)
  with pytest.raises(InputError, match="relevance"):
    bipartite_graph(rows, edge_features=("relevance",))


def test_self_loops_carry_the_mean_of_incoming_features():
  graph = bipartite_graph(interactions([(0, 0), (1, 0)], [5, 2]), self_loops=True)
  loops = {
    int(s): float(f)
    for s, r, f in zip(graph.senders, graph.receivers, graph.edges[:, 0], strict=True)
    if s == r
  }
  assert loops == {0: 5.0, 1: 2.0, 2: 0.0, 3: 3.5, 4: 0.0}


@settings(max_examples=30, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1), st.randoms())
def test_sorted_symmetric_and_independent_of_row_order(pairs, random):
  pairs = sorted(pairs)
  rows = interactions(pairs, ratings=np.arange(1, len(pairs) + 1))
  order = list(range(len(pairs)))
  random.shuffle(order)
  graph, shuffled = bipartite_graph(rows), bipartite_graph(rows.take(np.array(order)))
  for a, b in ((graph.senders, shuffled.senders), (graph.edges, shuffled.edges)):
    assert a.tobytes() == b.tobytes()
  assert (np.diff(graph.receivers) >= 0).all()
  forward = set(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
  assert forward == {(b, a) for a, b in forward}
  assert forward >= {(u, 3 + i) for u, i in pairs} and len(forward) == 2 * len(pairs)


def test_padding_to_a_static_shape():
  graph = bipartite_graph(interactions([(0, 0)]), pad_to=(8, 10))
  assert graph.n_node.sum() == 8 and len(graph.senders) == 10
  assert (graph.receivers[2:] == 5).all() and (np.diff(graph.receivers) >= 0).all()
  with pytest.raises(InputError, match="5 nodes"):
    bipartite_graph(interactions([(0, 0)]), pad_to=(5, 10))


def test_unknown_edge_feature():
  with pytest.raises(InputError, match="mood"):
    bipartite_graph(interactions([(0, 0)]), edge_features=("mood",))


def test_no_edge_features_and_no_rows():
  graph = bipartite_graph(interactions([]), edge_features=(), self_loops=True)
  assert graph.edges.shape == (5, 0)
  empty = bipartite_graph(dataclasses.replace(interactions([])))
  assert len(empty.senders) == 0 and empty.edges.shape == (0, 1)
