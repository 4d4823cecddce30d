"""Neighbor sampling: exact chances, whole neighborhoods where they fit, training by batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.convolutions import FullConvolution, LightConvolution
from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.synthetic import make_demo
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.network import GatNetwork
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Batch
from gatrec_jax.ops.neighbors import (
  Slots,
  draw_edges,
  draw_places,
  draw_subgraph,
  edges_a_node,
  make_slots,
)
from gatrec_jax.train import epochs, start_training, train_epochs

KEY = jax.random.key(0)
USERS, ITEMS = 8, 6
places_of = jax.jit(draw_places, static_argnames="num")
subgraph_of = jax.jit(draw_subgraph, static_argnames="fanouts")
edges_of = jax.jit(draw_edges, static_argnames="num")


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
  recommender = GatRecommender(replaced(ModelConfig(), fields), rows.num_users, rows.num_items)
  text = np.random.default_rng(1).normal(size=(rows.num_users + rows.num_items, 5))
  inputs = make_inputs(recommender, rows, text=text)
  return recommender, inputs


def test_a_tree_by_hand():
  # Users 0, 1 and items 2, 3, 4: edges 0-2 (5), 0-3 (3), 1-2 (1); item 4 is isolated.
  rows = interactions([0, 0, 1], [0, 1, 0], [5, 3, 1], users=2, items=3)
  graph = jax.device_put(bipartite_graph(rows))
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
  graph = jax.device_put(bipartite_graph(dense_rows(), self_loops=True))
  start = np.searchsorted(graph.receivers, np.arange(15))
  part = jax.tree.map(
    np.asarray,
    subgraph_of(KEY, graph, jax.device_put(start), jnp.array(seeds, jnp.int32), fanouts=(3, 2)),
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


def graph_of(rows):
  """The graph, and where each node's edges begin."""
  graph = bipartite_graph(rows)
  return graph, np.searchsorted(graph.receivers, np.arange(rows.num_users + rows.num_items + 1))


@pytest.mark.parametrize("num", [1, 2, 3, 100])
def test_edges_of_every_node_are_distinct_and_as_many_as_said(num):
  graph, start = graph_of(dense_rows())
  slots = make_slots(start, num=num)
  degrees = np.diff(start)
  assert (
    np.bincount(slots.node, minlength=len(degrees)).tolist() == np.minimum(degrees, num).tolist()
  )
  padded = Slots(np.pad(slots.node, (0, 3), mode="edge"))
  graph = jax.device_put(graph)
  drawn, where = edges_of(KEY, graph, jax.device_put(start), padded, num=num)
  assert np.flatnonzero(~np.asarray(where)).tolist() == list(range(len(slots.node), len(where)))
  assert int(drawn.n_edge[0]) == len(slots.node)
  pairs = {
    (s, r): e
    for s, r, e in zip(
      graph.senders.tolist(), graph.receivers.tolist(), graph.edges.tolist(), strict=True
    )
  }
  found = [
    ((s, r), e)
    for s, r, e, there in zip(
      drawn.senders.tolist(),
      drawn.receivers.tolist(),
      drawn.edges.tolist(),
      where.tolist(),
      strict=True,
    )
    if there
  ]
  assert len(dict(found)) == len(found)  # none twice
  assert all(pairs[pair] == edge for pair, edge in found)
  if num == 100:
    assert dict(found) == pairs


def test_every_edge_of_the_graph_is_drawn_with_the_chance_of_its_receiver():
  graph, start = graph_of(dense_rows())
  slots, device, count = make_slots(start, num=2), jax.device_put(graph), 4000
  keys = jax.random.split(KEY, count)
  senders = jax.jit(
    jax.vmap(lambda key: draw_edges(key, device, jax.device_put(start), slots, num=2)[0].senders)
  )(keys)
  seen = np.zeros((len(start) - 1,) * 2)
  np.add.at(seen, (np.broadcast_to(slots.node, senders.shape), np.asarray(senders)), 1 / count)
  for sender, receiver in zip(graph.senders, graph.receivers, strict=True):
    degree = start[receiver + 1] - start[receiver]
    share = min(1.0, 2 / degree)
    assert abs(seen[receiver, sender] - share) <= 4.5 * np.sqrt(share * (1 - share) / count) + 1e-9


def test_large_graphs_draw_edges():
  assert edges_a_node(LightConvolution(), num_edges=2**23) == 0
  assert edges_a_node(LightConvolution(), num_edges=2**23 + 1) == 32
  assert edges_a_node(LightConvolution(drawn_edges=7), num_edges=10) == 7
  assert edges_a_node(LightConvolution(fanouts=(2, 2)), num_edges=2**24) == 0
  assert edges_a_node(FullConvolution(), num_edges=2**24) == 0


LIGHT = dict(
  feature_width=4,
  convolution="light",
  layers=2,
  attention="v1",
  combine="mean",
  edge_features=("relevance",),
  score="cosine",
  loss="softmax",
  relevance="graded",
  user_power=0.25,
)


# With so many users more, every level is a tree's. Each case compiles the network twice, so that
# only one of them compares the vectors themselves, and the others the loss and its gradient.
@pytest.mark.parametrize(
  ("users", "fields", "compared"),
  [
    (
      2000,
      dict(node_features="table", layer_widths=(3, 4), heads=(2, 1), self_loops=True),
      "vectors",
    ),
    (
      8,
      dict(node_features="sum", layer_widths=(3,), heads=(2,), attention="v1", loss="softmax"),
      "loss",
    ),
    (2000, LIGHT | dict(node_features="sum"), "loss"),
  ],
  ids=["v2", "v1", "light"],
)
def test_whole_neighborhoods_give_what_the_whole_graph_gives(users, fields, compared):
  recommender, inputs = prepared(rows=dense_rows(users), **{"feature_width": 4} | fields)
  own, seeds = inputs.own, jnp.array([3, 1, users + 1, users + 5, 1, users, 0], jnp.int32)
  rows, where = jnp.array([5, 1, 2, 0], jnp.int32), jnp.array([True, True, True, False])

  def vectors(params, neighbors):
    part = None
    if neighbors:
      part = draw_subgraph(KEY, own.graph, own.start, seeds, fanouts=neighbors)
    found = recommender.module.apply({"params": params}, inputs.text, own.graph, part=part)
    found = found if part else found[seeds]
    return found

  def loss(params, neighbors):
    changed = replaced(recommender.settings, {"fanouts": neighbors, "l2_weight": 0.01})
    drawing = dataclasses.replace(recommender, settings=changed)
    batch = Batch(rows, where, jnp.int32(0))
    return drawing.loss(params, batch, KEY, inputs=inputs)

  run = {"vectors": vectors, "loss": jax.value_and_grad(loss)}[compared]
  run = jax.jit(run, static_argnums=1)
  shapes = jax.eval_shape(recommender.init, inputs, KEY)
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda p: jax.device_put(np.float32(rng.normal(size=p.shape) / 2)), shapes)
  whole, parts = run(params, ()), run(params, (9,) * recommender.settings.convolution.num_layers)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), parts, whole)
  assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(whole))


def test_drawing_all_edges_trains_as_the_whole_graph_does():
  fields = LIGHT | dict(node_features="sum", layers=1)
  batch = Batch(jnp.arange(USERS, dtype=jnp.int32), jnp.ones(USERS, bool), jnp.int32(0))

  def found(drawn, of=jax.value_and_grad):
    recommender, inputs = prepared(**fields, drawn_edges=drawn)
    assert (inputs.own.slots is None) == (drawn == 0)
    return jax.jit(of(recommender.loss))(params, batch, KEY, inputs=inputs)

  recommender, inputs = prepared(**fields)
  params = jax.jit(recommender.init)(inputs, KEY)
  whole, drawn = found(0), found(9)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), drawn, whole)
  assert abs(found(1, of=lambda loss: loss) - whole[0]) > 1e-3


def test_dropped_edges_leave_the_self_loops():
  rows = interactions([0, 1], [0, 0], [5, 5], users=2, items=2)
  graph = jax.device_put(bipartite_graph(rows, self_loops=True))
  fields = LIGHT | dict(
    node_features="ids",
    layers=1,
    combine="last",
    edge_features=("rating",),
    score="dot",
    edge_dropout=0.99999,
  )
  config = replaced(ModelConfig(), fields)
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
  train = TrainConfig(batch_size=40, learning_rate=0.03, schedule="constant", epochs=6)
  fields = LIGHT | dict(
    node_features="ids",
    layers=1,
    fanouts=(4,),
    feature_dropout=0.1,
    attention_dropout=0.1,
    edge_dropout=0.1,
  )
  recommender, inputs = prepared(train, rows, **fields)
  state, losses, sizes = start_training(inputs, recommender=recommender, config=train), [], []
  for _ in range(3):
    state, block = train_epochs(state, inputs, recommender=recommender, config=train, num_epochs=2)
    losses += block.mean(axis=1).tolist()
    sizes.append(epochs._run_epochs._cache_size())
  assert losses[-1] < losses[0] - 0.05 and np.isfinite(losses).all()
  assert len(set(sizes)) == 1
