"""Neighbor sampling: exact chances, whole neighborhoods where they fit, training by batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.synthetic import make_demo
from gatrec_jax.models.gat.network import GatNetwork
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Batch
from gatrec_jax.ops.neighbors import draw_places, draw_subgraph
from gatrec_jax.train import epochs, start_training, train_epochs, training_inputs

KEY = jax.random.key(0)
USERS, ITEMS = 8, 6
places_of = jax.jit(draw_places, static_argnames="num")
subgraph_of = jax.jit(draw_subgraph, static_argnames="fanouts")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
  """Half of the time here is compilation; what is computed does not depend on it."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


def interactions(user, item, rating, users=USERS, items=ITEMS):
  return Interactions(
    np.asarray(user, np.int32),
    np.asarray(item, np.int32),
    np.asarray(rating, np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(users))),
    tuple(map(str, range(items))),
  )


def dense_rows(users=USERS):
  """User 3, users from the eighth on and item 5 have no rating; item 0 is rated by all others."""
  rng = np.random.default_rng(0)
  table = rng.integers(1, 6, (USERS, ITEMS)) * (rng.random((USERS, ITEMS)) < 0.6)
  table[:, 0] = 5
  table[3], table[:, 5] = 0, 0
  user, item = np.nonzero(table)
  return interactions(user, item, table[user, item], users=users)


def prepared(train=TrainConfig(), rows=None, **fields):
  rows = dense_rows() if rows is None else rows
  recommender = GatRecommender(ModelConfig(**fields), rows.num_users, rows.num_items)
  text = np.random.default_rng(1).normal(size=(rows.num_users + rows.num_items, 5))
  inputs = training_inputs(recommender, rows, text=text, config=train)
  return recommender, inputs


def test_a_tree_by_hand():
  # Users 0, 1 and items 2, 3, 4: edges 0-2 (5), 0-3 (3), 1-2 (1); item 4 is isolated.
  rows = interactions([0, 0, 1], [0, 1, 0], [5, 3, 1], users=2, items=3)
  graph = jax.tree.map(jnp.asarray, bipartite_graph(rows))
  start = jnp.array([0, 2, 3, 5, 6, 6])
  part = subgraph_of(KEY, graph, start, jnp.array([4, 0], jnp.int32), fanouts=(2, 2))
  # 4 places on level 1; level 2 would have 8, so that it is the 5 nodes.
  assert part.nodes_to == (2, 6, 11) and part.edges_to == (4, 12)
  np.testing.assert_array_equal(part.nodes, [4, 0, 0, 0, 2, 3, 0, 1, 2, 3, 4])
  np.testing.assert_array_equal(part.has_edges, np.array([0, 1, 0, 0] + [1] * 6 + [0], bool))
  np.testing.assert_array_equal(part.graph.receivers, np.repeat(np.arange(6), 2))
  np.testing.assert_array_equal(part.where, np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0], bool))
  there = np.asarray(part.where)
  assert np.asarray(part.graph.edges)[there, 0].tolist() == [5, 3, 5, 1, 3]
  assert np.asarray(part.graph.senders)[there].tolist() == [4, 5, 6, 7, 6]


@pytest.mark.parametrize("seeds", [[0, 5, 5], list(range(14)) * 2])
def test_what_is_drawn_is_of_the_graph(seeds):
  graph = jax.tree.map(jnp.asarray, bipartite_graph(dense_rows(), self_loops=True))
  start = np.searchsorted(graph.receivers, np.arange(15))
  part = jax.tree.map(
    np.asarray,
    subgraph_of(KEY, graph, jnp.asarray(start), jnp.array(seeds, jnp.int32), fanouts=(3, 2)),
  )
  assert (np.diff(part.graph.receivers) >= 0).all() and part.nodes[: len(seeds)].tolist() == seeds
  ends = zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)
  feature = dict(zip(ends, graph.edges[:, 0].tolist(), strict=True))
  ends = (
    part.nodes[end][part.where].tolist() for end in (part.graph.senders, part.graph.receivers)
  )
  got = [feature[pair] for pair in zip(*ends, strict=True)]
  np.testing.assert_array_equal(got, part.graph.edges[part.where, 0])
  heard = np.bincount(part.graph.receivers[part.where], minlength=part.nodes_to[1])
  fanout = np.repeat([3, 2], np.diff([0, *part.nodes_to[:2]]))
  reached = np.isin(np.arange(part.nodes_to[1]), part.graph.senders[part.where])
  reached[: len(seeds)] = True
  degree = np.diff(start)[part.nodes[: part.nodes_to[1]]]
  np.testing.assert_array_equal(heard[reached], np.minimum(degree, fanout)[reached])


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.one_of(st.integers(0, 12), st.integers(0, 2**30 - 1)), min_size=6, max_size=6),
  st.integers(0, 2**31),
)
def test_places_are_distinct_and_inside_for_any_degree(degrees, seed):
  places, where = map(
    np.asarray, places_of(jax.random.key(seed), jnp.array(degrees, jnp.int32), num=5)
  )
  for degree, row, there in zip(degrees, places, where, strict=True):
    kept = row[there]
    assert len(set(kept.tolist())) == len(kept) == min(5, degree)
    assert not len(kept) or (kept.min() >= 0 and kept.max() < degree)
    if degree <= 5:
      assert kept.tolist() == list(range(degree))


@pytest.mark.parametrize(("degree", "num"), [(13, 5), (6, 5), (23, 3)])
def test_every_edge_is_drawn_with_the_same_chance_and_with_any_other(degree, num):
  count = 20_000
  places, where = places_of(KEY, jnp.full(count, degree, jnp.int32), num=num)
  assert where.all()
  chosen = np.zeros((count, degree))
  chosen[np.arange(count)[:, None], places] = 1
  share, error = num / degree, np.sqrt(num / degree * (1 - num / degree) / count)
  assert np.abs(chosen.mean(axis=0) - share).max() < 4.5 * error
  assert (chosen.T @ chosen).min() > 0


def test_a_wide_row_is_drawn_evenly_too():
  degree, num, count = 3_000_001, 8, 20_000
  places, _ = places_of(KEY, jnp.full(count, degree, jnp.int32), num=num)
  tenth = np.bincount((np.asarray(places, np.int64).ravel() * 10) // degree, minlength=10)
  # Draws of arcs vary less than independent ones, whose bound this is.
  assert np.abs(tenth / (count * num) - 0.1).max() < 4.5 * np.sqrt(0.09 / (count * num))


LIGHT = dict(
  feature_width=4,
  layer_widths=(4, 4),
  heads=(1, 1),
  convolution="light",
  attention="v1",
  combine="mean",
  edge_features=("relevance",),
  score="cosine",
  loss="softmax",
  relevance="graded",
  user_power=0.25,
)


# With so many users more, every level is a tree's.
@pytest.mark.parametrize(
  ("users", "fields"),
  [
    (2000, dict(node_features="table", layer_widths=(3, 4), heads=(2, 1), self_loops=True)),
    (8, dict(node_features="sum", layer_widths=(3,), heads=(2,), attention="v1", loss="softmax")),
    (2000, LIGHT | dict(node_features="sum")),
  ],
  ids=["v2", "v1", "light"],
)
def test_whole_neighborhoods_give_vectors_loss_and_gradient_of_the_whole_graph(users, fields):
  recommender, inputs = prepared(rows=dense_rows(users), **{"feature_width": 4} | fields)
  own, seeds = inputs.own, jnp.array([3, 1, users + 1, users + 5, 1, users, 0], jnp.int32)
  rows, where = jnp.array([5, 1, 2, 0], jnp.int32), jnp.array([True, True, True, False])

  def run(params, neighbors):
    """Vectors of the seeds, loss, gradient."""
    part, train = None, TrainConfig(fanouts=neighbors, l2_weight=0.01, batch_size=4)
    if neighbors:
      part = draw_subgraph(KEY, own.graph, own.start, seeds, fanouts=neighbors)
    vectors = recommender.module.apply({"params": params}, inputs.text, own.graph, part=part)
    return vectors if part else vectors[seeds], *jax.value_and_grad(recommender.loss)(
      params, Batch(rows, where, jnp.int32(0)), KEY, inputs=inputs, train=train
    )

  run = jax.jit(run, static_argnums=1)
  shapes = jax.eval_shape(recommender.init, inputs, KEY)
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) / 2, jnp.float32), shapes)
  whole, parts = run(params, ()), run(params, (9,) * len(recommender.settings.heads))
  np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), parts[1:], whole[1:]
  )
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole[2])) > 0.01


def test_dropped_edges_leave_the_self_loops():
  rows = interactions([0, 1], [0, 0], [5, 5], users=2, items=2)
  graph = jax.tree.map(jnp.asarray, bipartite_graph(rows, self_loops=True))
  config = ModelConfig(
    **LIGHT
    | dict(
      node_features="ids",
      layer_widths=(4,),
      heads=(1,),
      combine="last",
      edge_features=("rating",),
      score="dot",
      edge_dropout=0.99999,
    )
  )
  start = jnp.searchsorted(graph.receivers, jnp.arange(5))

  @functools.partial(jax.jit, static_argnames="deterministic")
  def vectors(params, deterministic):
    part = draw_subgraph(KEY, graph, start, jnp.arange(4), fanouts=(3,))
    return GatNetwork(config, 2, 2).apply(
      {"params": params},
      jnp.zeros((4, 1)),
      graph,
      part=part,
      deterministic=deterministic,
      rngs={"dropout": KEY},
    )

  ids = jax.random.normal(KEY, (4, 4))
  attention = {
    "source_vector": jnp.zeros((1, 4)),
    "target_vector": jnp.zeros((1, 4)),
    "edge_vector": jnp.zeros((1, 1)),
  }
  params = {"ids": ids, "attention_0": attention}
  np.testing.assert_allclose(vectors(params, False), ids, rtol=1e-5)
  np.testing.assert_allclose(vectors(params, True)[0], (ids[0] + ids[2]) / 2, rtol=1e-5)


def test_training_with_drawn_neighbors_lowers_the_loss_and_compiles_once():
  data = make_demo(seed=0).interactions
  rows = data.take(data.user < 150)
  train = TrainConfig(
    fanouts=(4, 3), batch_size=40, learning_rate=0.03, schedule="constant", epochs=6
  )
  fields = LIGHT | dict(
    node_features="ids", feature_dropout=0.1, attention_dropout=0.1, edge_dropout=0.1
  )
  recommender, inputs = prepared(train, rows, **fields)
  state, losses, sizes = start_training(inputs, recommender=recommender, config=train), [], []
  for _ in range(3):
    state, block = train_epochs(state, inputs, recommender=recommender, config=train, num_epochs=2)
    losses += block.mean(axis=1).tolist()
    sizes.append(epochs._run_epochs._cache_size())
  assert losses[-1] < losses[0] - 0.05 and np.isfinite(losses).all()
  assert len(set(sizes)) == 1
