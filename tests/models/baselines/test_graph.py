"""Propagation, BPR-MF, LightGCN, XSimGCL: values by hand, two forms alike, masks, new users."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.models import BprMfConfig, LightGcnConfig, XSimGclConfig
from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines import pairwise
from gatrec_jax.models.baselines.bpr_mf import BprMfRecommender
from gatrec_jax.models.baselines.lightgcn import LightGcnRecommender
from gatrec_jax.models.baselines.xsimgcl import XSimGclRecommender, contrast_loss, distinct
from gatrec_jax.models.inputs import Batch, NewUsers, history_rows
from gatrec_jax.ops import propagation
from gatrec_jax.ops import scores as pairs
from gatrec_jax.ops.negatives import draw_negatives, make_sampler
from gatrec_jax.ops.propagation import (
  DenseEdges,
  SparseEdges,
  layer_vectors,
  make_propagation,
  propagate,
  sum_over_items,
)
from gatrec_jax.ops.softmax_loss import softmax_loss

KEY = jax.random.key(0)
drawn = jax.jit(draw_negatives, static_argnames="num")
# User 0 likes items 0 and 1, user 1 item 1; nobody likes item 2.
EDGES = np.array([[0, 0], [0, 1], [1, 1]])


def interactions(pairs, num_users, num_items):
  pairs = np.asarray(pairs, np.int32)
  return Interactions(
    pairs[:, 0],
    pairs[:, 1],
    np.ones(len(pairs), np.float32),
    np.zeros(len(pairs), np.int64),
    tuple(map(str, range(num_users))),
    tuple(map(str, range(num_items))),
  )


def prepared(cls, config, pairs, num_users, num_items):
  """A method with its inputs and fresh parameters."""
  recommender = cls(config, num_users, num_items)
  train = interactions(pairs, num_users, num_items)
  inputs = make_inputs(
    recommender,
    train,
    text=np.zeros((num_users + num_items, 1)),
    feedback=Feedback(1.0, 0.0),
    sampler=make_sampler(train, feedback=Feedback(1.0, 0.0)),
  )
  # Not compiled as a whole, once a method: the draws of one shape are one program for all.
  return recommender, inputs, recommender.init(inputs, KEY)


def planted(num_users=30, num_items=20, seed=0):
  """Two groups of users, each with its half of the items."""
  draw = np.random.default_rng(seed).random((num_users, num_items))
  own = np.arange(num_users)[:, None] % 2 == np.arange(num_items) % 2
  return np.argwhere(draw < np.where(own, 0.6, 0.03))


def of_all(recommender, params, inputs, *, key=KEY, where=None, **fields):
  """The loss over all rows."""
  rows = jnp.arange(recommender.num_rows(inputs))
  where = jnp.ones(len(rows), bool) if where is None else where
  return loss_of(recommender, params, inputs, rows, key, where, TrainConfig(**fields))


@functools.partial(jax.jit, static_argnames=("recommender", "train"))
def loss_of(recommender, params, inputs, rows, key, where, train):
  batch = Batch(rows, where, jnp.int32(0))
  return recommender.loss(params, batch, key, inputs=inputs, train=train)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_propagation_by_hand(kind):
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, kind)
  user, item = jnp.array([[1.0], [10.0]]), jnp.array([[100.0], [1000.0], [5.0]])
  to_user, to_item = propagate(graph, (user, item))
  half = 1 / np.sqrt(2)
  np.testing.assert_allclose(to_user[:, 0], [100 * half + 1000 / 2, 1000 * half], rtol=1e-6)
  np.testing.assert_allclose(to_item[:, 0], [1 * half, 1 / 2 + 10 * half, 0.0], rtol=1e-6)
  np.testing.assert_allclose(sum_over_items(graph.edges, item, num_users=2)[:, 0], [1100.0, 1000.0])


@jax.jit
@jax.value_and_grad
def some_function(vectors, graph, weights):
  found = layer_vectors(graph, vectors, layers=2)
  liked = sum_over_items(graph.edges, vectors[1], num_users=len(vectors[0]))
  return jnp.sum(liked**2) + sum(jnp.sum(jnp.sin(w * v)) for w, v in zip(weights, found[-1]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 4, 15, 35]))
def test_dense_equals_sparse_with_gradients(seed, num_edges):
  rng = np.random.default_rng(seed)
  user, item = np.divmod(rng.permutation(35)[:num_edges], 7)
  vectors, weights = (
    tuple(jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (5, 7)) for _ in range(2)
  )
  dense, sparse = (
    some_function(vectors, make_propagation(user, item, 5, 7, kind), weights)
    for kind in ("dense", "sparse")
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), dense, sparse)


def test_sparse_form_under_vmap():
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "sparse")
  many = (jnp.arange(8.0).reshape(4, 2, 1), jnp.arange(12.0).reshape(4, 3, 1))
  got = jax.vmap(jax.grad(lambda v: jnp.sum(propagate(graph, v)[1] ** 2)))(many)
  one = jax.grad(lambda v: jnp.sum(propagate(graph, v)[1] ** 2))((many[0][3], many[1][3]))
  np.testing.assert_allclose(got[0][3], one[0], rtol=1e-6)


def test_auto_goes_by_filling_and_memory(monkeypatch):
  def kind_of(pairs, num):
    return type(make_propagation(pairs[:, 0], pairs[:, 1], num, num, "auto").edges)

  assert kind_of(EDGES, 3) is DenseEdges
  assert kind_of(EDGES, 100) is SparseEdges
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert kind_of(EDGES, 100) is DenseEdges
  monkeypatch.setattr(propagation, "DENSE_BYTES", 4 * 100 * 100 - 1)
  assert kind_of(EDGES, 100) is SparseEdges
  with pytest.raises(InputError, match="propagation=fast"):
    make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "fast")


@pytest.mark.parametrize(
  "cls, config",
  [
    (LightGcnRecommender, LightGcnConfig(width=4)),
    (LightGcnRecommender, LightGcnConfig(width=4, loss="softmax", propagation="sparse")),
    (XSimGclRecommender, XSimGclConfig(width=4)),
  ],
)
def test_isolated_nodes_give_no_nan(cls, config):
  recommender, inputs, params = prepared(cls, config, EDGES, 3, 4)
  params = jax.tree.map(lambda p: p.at[-1].set(0.0), params)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda p: of_all(recommender, p, inputs, l2_weight=0.1))
  )(params)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
  user, item = recommender.serving_state(params, inputs)
  assert not np.asarray(user[2]).any() and not np.asarray(item[3]).any()
  assert np.isfinite(user).all() and np.isfinite(item).all()


def test_pair_scores_by_matrix_equal_those_by_vectors(monkeypatch):
  draw = np.random.default_rng(0)
  vectors = tuple(jnp.asarray(draw.normal(size=(n, 4)), jnp.float32) for n in (6, 9))
  users, items = jnp.asarray(draw.integers(0, 6, 8)), jnp.asarray(draw.integers(0, 9, (8, 3)))
  both = []
  for cells in (0, 10**6):
    monkeypatch.setattr(pairs, "_CELLS_PER_PAIR", cells)
    both.append(
      jax.jit(jax.value_and_grad(lambda v: jnp.sum(jnp.sin(pairs.pair_scores(v, users, items)))))(
        vectors
      )
    )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)
  want = np.einsum("bd,bkd->bk", vectors[0][users], vectors[1][items])
  np.testing.assert_allclose(pairs.pair_scores(vectors, users, items), want, rtol=1e-5)


def test_bpr_mf_by_hand_with_l2_and_masked_rows():
  recommender, inputs, params = prepared(
    BprMfRecommender, BprMfConfig(width=4), planted(8, 6), 8, 6
  )
  where = jnp.arange(inputs.user.shape[0]) % 3 != 0
  got = of_all(recommender, params, inputs, where=where, l2_weight=0.3, negatives_per_positive=2)
  negative, possible = drawn(KEY, inputs.sampler, inputs.user, num=2)
  assert possible.all()
  user, item = (np.asarray(params[name], np.float64) for name in ("user", "item"))
  want = []
  for p in np.flatnonzero(where):
    u, i, n = user[inputs.user[p]], item[inputs.item[p]], item[np.asarray(negative[p])]
    bpr = np.log1p(np.exp(n @ u - i @ u)).mean()
    want.append(bpr + 0.15 * (u @ u + i @ i + (n**2).sum(axis=1).mean()))
  np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
  none = jax.jit(
    jax.value_and_grad(
      lambda p: of_all(recommender, p, inputs, where=jnp.zeros_like(where), l2_weight=0.3)
    )
  )(params)
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(none))


def test_bpr_mf_has_no_new_users():
  recommender = BprMfRecommender(BprMfConfig(width=4), 2, 3)
  assert not recommender.serves_new_users and not hasattr(recommender, "score_new")


def test_lightgcn_without_layers_is_bpr_mf():
  pairs = planted()
  recommender, inputs, params = prepared(
    LightGcnRecommender, LightGcnConfig(layers=0), pairs, 30, 20
  )
  other, other_inputs, same = prepared(BprMfRecommender, BprMfConfig(), pairs, 30, 20)
  np.testing.assert_array_equal(params["item"], same["item"])
  np.testing.assert_array_equal(
    of_all(recommender, params, inputs, l2_weight=0.1),
    of_all(other, same, other_inputs, l2_weight=0.1),
  )
  assert not recommender.serves_new_users


def test_lightgcn_scores_with_the_mean_and_regularizes_the_start():
  recommender, inputs, params = prepared(LightGcnRecommender, LightGcnConfig(width=4), EDGES, 2, 3)
  adjacency = np.zeros((5, 5))
  for user, item in EDGES:
    adjacency[user, 2 + item] = adjacency[2 + item, user] = 1
  degree = np.maximum(adjacency.sum(axis=1), 1)
  hop = adjacency / np.sqrt(degree[:, None] * degree)
  start = np.concatenate([params["user"], params["item"]])
  mean = (start + hop @ start + hop @ hop @ start) / 3
  user, item = recommender.serving_state(params, inputs)
  np.testing.assert_allclose(np.concatenate([user, item]), mean, rtol=1e-4, atol=1e-6)

  loss = of_all(recommender, params, inputs, l2_weight=0.2) - of_all(recommender, params, inputs)
  negative, _ = drawn(KEY, inputs.sampler, inputs.user, num=1)
  square = (start**2).sum(axis=1)
  parts = square[inputs.user] + square[2 + inputs.item] + square[2 + negative[:, 0]]
  np.testing.assert_allclose(loss, 0.1 * parts.mean(), rtol=1e-3)


def softmax_by_hand(recommender, params, inputs, users, *, temperature, l2_weight):
  user, item = (np.asarray(t, np.float64) for t in recommender.serving_state(params, inputs))
  liked = np.asarray(history_rows(inputs, jnp.arange(len(user)), num_items=len(item)))
  scores = user @ item.T / temperature
  losses = []
  for u in users:
    for i in np.flatnonzero(liked[u]):
      squares = np.sum(params["user"][u] ** 2) + np.sum(params["item"][i] ** 2)
      normalizer = np.log(np.exp(scores[u]).sum())
      losses.append(normalizer - scores[u, i] + 0.5 * l2_weight * squares)
  return np.mean(losses)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_softmax_by_hand_with_masked_users(kind):
  config = LightGcnConfig(width=4, loss="softmax", temperature=0.3, propagation=kind)
  recommender, inputs, params = prepared(LightGcnRecommender, config, planted(8, 6), 8, 6)
  user, _ = recommender.serving_state(params, inputs)
  np.testing.assert_allclose(np.linalg.norm(user, axis=1), 1, rtol=1e-5)
  assert recommender.num_rows(inputs) == 8
  where = jnp.arange(8) < 5
  got = of_all(recommender, params, inputs, where=where, l2_weight=0.5)
  want = softmax_by_hand(recommender, params, inputs, range(5), temperature=0.3, l2_weight=0.5)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert of_all(recommender, params, inputs, where=jnp.zeros(8, bool), l2_weight=0.5) == 0


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_softmax_of_grades_by_hand(kind):
  pairs = np.array([[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 3]])
  train = dataclasses.replace(interactions(pairs, 3, 4), rating=np.float32([5, 4, 3, 1, 5, 2]))
  config = LightGcnConfig(
    width=4, loss="softmax", temperature=0.5, relevance="graded", user_power=0.5, propagation=kind
  )
  recommender = LightGcnRecommender(config, 3, 4)
  inputs = make_inputs(recommender, train, text=np.zeros((7, 1)), sampler=None)
  params = jax.jit(recommender.init)(inputs, KEY)
  user, item = map(np.asarray, recommender.serving_state(params, inputs))
  scores = user @ item.T / 0.5
  log_share = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  relevance = np.zeros((3, 4))
  relevance[tuple(pairs.T)] = [1.0, 0.8, 0.25, 0.05, 1.0, 0.05]
  weight = relevance / np.sqrt(relevance.sum(axis=1, keepdims=True))
  want = -(weight * log_share).sum() / weight.sum()
  np.testing.assert_allclose(of_all(recommender, params, inputs), want, rtol=1e-5)
  # Only positives are edges of the graph.
  np.testing.assert_array_equal(np.asarray(inputs.own.graph.user_scale > 0), [True, True, False])


@pytest.mark.parametrize("block", [1, 100])
def test_softmax_in_parts_is_the_same(block):
  config = LightGcnConfig(width=4, loss="softmax")
  recommender, inputs, params = prepared(LightGcnRecommender, config, planted(), 30, 20)

  def loss(params, block):
    return softmax_loss(
      recommender.serving_state(params, inputs),
      (params["user"], params["item"]),
      inputs.own.targets,
      jnp.arange(30),
      temperature=0.2,
      l2_weight=0.0,
      where=jnp.arange(30) < 27,
      block=block,
    )

  whole, parts = (
    jax.jit(jax.value_and_grad(functools.partial(loss, block=b)))(params) for b in (10**6, block)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)


@pytest.mark.parametrize(
  "cls, config, fields",
  [
    (LightGcnRecommender, LightGcnConfig(width=4, loss="softmax"), ["temperature", "user_power"]),
    (
      XSimGclRecommender,
      XSimGclConfig(width=4),
      ["contrast_temperature", "contrast_weight", "noise"],
    ),
  ],
)
def test_settings_may_be_traced(cls, config, fields):
  _, inputs, params = prepared(cls, config, planted(8, 6), 8, 6)

  def loss(values, l2_weight):
    recommender = cls(dataclasses.replace(config, **dict(zip(fields, values))), 8, 6)
    rows = jnp.arange(recommender.num_rows(inputs))
    batch = Batch(rows, rows >= 0, jnp.int32(0))
    return recommender.loss(
      params, batch, KEY, inputs=inputs, train=TrainConfig(l2_weight=l2_weight)
    )

  first = np.array([0.2, 0.3, 0.4])[: len(fields)]
  each = np.stack([first, *(first + 0.1 * np.eye(len(fields)))])
  weights = np.full(len(each), 0.1)
  # The last row changes the weight of L2 alone.
  many = jax.jit(jax.vmap(loss))(np.vstack([each, first]), np.append(weights, 0.3))
  single = cls(dataclasses.replace(config, **dict(zip(fields, first.tolist()))), 8, 6)
  np.testing.assert_allclose(many[0], of_all(single, params, inputs, l2_weight=0.1), rtol=1e-5)
  assert (abs(many[1:] - many[0]) > 1e-4).all()


def test_xsimgcl_without_noise_and_contrast_is_lightgcn_without_layer_0():
  config = XSimGclConfig(width=4, noise=0.0, contrast_weight=0.0)
  recommender, inputs, params = prepared(XSimGclRecommender, config, planted(), 30, 20)
  start = (params["user"], params["item"])
  one, two = layer_vectors(inputs.own, start, layers=2)[1:]
  mean = tuple((a + b) / 2 for a, b in zip(one, two))
  rows = jnp.arange(recommender.num_rows(inputs))
  want = jax.jit(pairwise.pairwise_loss, static_argnames="train")(
    mean,
    start,
    inputs,
    Batch(rows, jnp.ones(len(rows), bool), jnp.int32(0)),
    jax.random.split(KEY, 4)[1],
    train=TrainConfig(l2_weight=0.1),
  )
  np.testing.assert_allclose(of_all(recommender, params, inputs, l2_weight=0.1), want, rtol=1e-5)
  np.testing.assert_allclose(recommender.serving_state(params, inputs)[1], mean[1], rtol=1e-5)


def test_noise_moves_each_vector_by_its_length_within_its_orthant():
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "dense")
  start = tuple(jax.random.normal(jax.random.key(n), (n, 4)) for n in (2, 3))
  plain = propagate(graph, start)
  noisy = layer_vectors(graph, start, layers=1, noise=0.2, key=KEY)[1]
  for before, after in zip(plain, noisy):
    moved = np.asarray(after - before)
    assert (moved * np.sign(before) >= 0).all()
    alive = np.asarray(before).any(axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.where(alive, 0.2, 0), rtol=1e-4)
  assert not np.allclose(noisy[0][0] - plain[0][0], noisy[0][1] - plain[0][1])


def test_contrast_by_hand_of_three_nodes_and_masked():
  left = jnp.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  right = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, -1.0]])
  half = 1 / np.sqrt(2)
  scores = np.array([[1, 1, 0], [0, 0, -1], [half, half, -half]]) / 0.5
  want = np.log(np.exp(scores).sum(axis=1)) - np.diag(scores)
  for where in ([True, True, True], [True, True, False], [False, False, False]):
    part = np.flatnonzero(where)
    sub = scores[np.ix_(part, part)]
    want = (np.log(np.exp(sub).sum(axis=1)) - np.diag(sub)).mean() if len(part) else 0.0
    value, gradient = jax.value_and_grad(
      lambda left: contrast_loss(left, right, temperature=0.5, where=jnp.array(where))
    )(left)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~np.array(where)].any()


def test_distinct_takes_each_id_once_and_only_counted_ones():
  ids, where = jnp.array([3, 3, 1, 0, 1, 4]), jnp.array([1, 1, 1, 1, 1, 0], bool)
  chosen, present = distinct(KEY, ids, where, num=5, most=10)
  assert sorted(np.asarray(chosen[present])) == [0, 1, 3]
  few = [distinct(jax.random.key(k), ids, where, num=5, most=2) for k in range(20)]
  assert all(p.all() and len(set(np.asarray(c))) == 2 for c, p in few)
  assert set(np.concatenate([c for c, _ in few])) == {0, 1, 3}


def test_rows_that_occur_twice_are_contrasted_once():
  config = XSimGclConfig(width=4, noise=0.0, contrast_weight=1.0)
  recommender, inputs, params = prepared(XSimGclRecommender, config, planted(8, 6), 8, 6)
  plain = dataclasses.replace(
    recommender, settings=dataclasses.replace(config, contrast_weight=0.0)
  )

  rows = jnp.tile(jnp.arange(5), 2)

  def contrast(where):
    losses = [
      loss_of(m, params, inputs, rows, KEY, where, TrainConfig()) for m in (recommender, plain)
    ]
    return losses[0] - losses[1]

  once = contrast(jnp.arange(10) < 5)
  np.testing.assert_allclose(contrast(jnp.ones(10, bool)), once, rtol=1e-4)
  assert once > 0.1


def test_xsimgcl_refuses_a_layer_that_is_not_there():
  with pytest.raises(InputError, match="contrast_layer=3: must be at most layers=2"):
    XSimGclRecommender(XSimGclConfig(contrast_layer=3), 2, 3)


def new_users(*liked):
  none = [np.zeros(0, np.int64)] * len(liked)
  return NewUsers([np.asarray(one, np.int64) for one in liked], none, np.zeros((1, 1)), 5.0, 1.0)


@pytest.mark.parametrize("loss, kind", [("bpr", "dense"), ("softmax", "sparse")])
def test_new_users_get_the_propagated_part(loss, kind):
  config = LightGcnConfig(width=4, layers=1, loss=loss, propagation=kind)
  recommender, inputs, params = prepared(LightGcnRecommender, config, planted(), 30, 20)
  # With one layer a trained user without a vector of her own is the propagated part exactly.
  params["user"] = params["user"].at[7].set(0.0)
  serving_state = recommender.serving_state(params, inputs)
  liked = np.asarray(inputs.item[inputs.start[7] : inputs.start[8]])
  got = recommender.score_new(params, inputs, serving_state, new_users(liked, []))
  np.testing.assert_allclose(
    got[0], recommender.score(serving_state, jnp.array([7]))[0], rtol=1e-4, atol=1e-6
  )
  assert not np.asarray(got[1]).any()


def test_new_users_of_xsimgcl_by_hand():
  recommender, inputs, params = prepared(
    XSimGclRecommender, XSimGclConfig(width=4), planted(), 30, 20
  )
  serving_state = recommender.serving_state(params, inputs)
  start = (params["user"], params["item"])
  layers = layer_vectors(inputs.own, start, layers=2)
  degree = np.bincount(inputs.item, minlength=20)
  vector = sum(
    sum(np.asarray(item[i]) / np.sqrt(2 * degree[i]) for i in (3, 8)) for _, item in layers[:2]
  )
  got = recommender.score_new(params, inputs, serving_state, new_users([3, 8]))
  np.testing.assert_allclose(got[0], serving_state[1] @ (vector / 2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
  "cls, config",
  [
    (LightGcnRecommender, LightGcnConfig(width=8)),
    (LightGcnRecommender, LightGcnConfig(width=8, loss="softmax")),
    (XSimGclRecommender, XSimGclConfig(width=8)),
  ],
)
def test_learns_planted_groups(cls, config):
  recommender, inputs, params = prepared(cls, config, planted(), 30, 20)
  gradient_of = jax.jit(jax.value_and_grad(lambda p, key: of_all(recommender, p, inputs, key=key)))
  speed, losses = jax.tree.map(np.zeros_like, params), []
  for key in jax.random.split(KEY, 60):
    loss, gradient = gradient_of(params, key)
    speed = jax.tree.map(lambda s, g: 0.9 * s + np.asarray(g), speed, gradient)
    params = jax.tree.map(lambda p, s: np.asarray(p) - 0.5 * s, params, speed)
    losses.append(float(loss))
  assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
  scores = np.asarray(recommender.score(recommender.serving_state(params, inputs), jnp.arange(30)))
  own = np.arange(30)[:, None] % 2 == np.arange(20) % 2
  assert scores[own].mean() > scores[~own].mean() + scores.std()
