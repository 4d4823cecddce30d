"""The GAT as a method: the softmax over users, the linear channel, new users in both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines.ease_rated import EaseRatedRecommender
from gatrec_jax.models.gat.recommender import GatRecommender, add_channels
from gatrec_jax.models.inputs import Batch, NewUsers
from gatrec_jax.ops.scores import dot_product_scores

KEY = jax.random.key(0)
BEST = dict(
  node_features="ids",
  feature_width=6,
  layer_widths=(6, 6),
  heads=(1, 1),
  convolution="light",
  attention="v1",
  combine="mean",
  edge_features=("relevance",),
  score="cosine",
  loss="softmax",
  temperature=0.5,
  relevance="graded",
  linear_weight=0.3,
  linear_l2=3.0,
  linear_rated_l2=5.0,
)


def rows(users=20, items=9, seed=0):
  rng = np.random.default_rng(seed)
  table = rng.integers(1, 6, (users, items)) * (rng.random((users, items)) < 0.5)
  table[3] = 0
  user, item = np.nonzero(table)
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    table[user, item].astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(users))),
    tuple(map(str, range(items))),
  ), table


def prepared(**fields):
  train, table = rows()
  recommender = GatRecommender(ModelConfig(**(BEST | fields)), *table.shape)
  inputs = make_inputs(recommender, train, text=np.zeros((sum(table.shape), 1)), sampler=None)
  return recommender, inputs, jax.jit(recommender.init)(inputs, KEY), train, table


def test_the_softmax_by_hand():
  recommender, inputs, params, _, table = prepared(user_power=0.25)
  vectors = np.asarray(recommender.module.apply({"params": params}, inputs.text, inputs.own.graph))
  np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-5)
  scores = vectors[:20] @ vectors[20:].T / 0.5
  log_share = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  relevance = np.array([0, 0.05, 0.05, 0.25, 0.8, 1.0])[table]
  weight = relevance * np.maximum(relevance.sum(axis=1, keepdims=True), 1e-9) ** -0.25
  batch = Batch(jnp.arange(20), jnp.ones(20, bool), jnp.int32(0))
  loss = jax.jit(recommender.loss, static_argnames="train")
  got = loss(params, batch, KEY, inputs=inputs, train=TrainConfig())
  np.testing.assert_allclose(got, -(weight * log_share).sum() / weight.sum(), rtol=1e-5)
  assert recommender.num_rows(inputs) == 20


def test_an_item_without_ratings_is_not_pushed_away_and_its_text_speaks():
  train, table = rows()
  train = train.take(train.item != 4)
  recommender = GatRecommender(ModelConfig(**(BEST | {"node_features": "sum"})), *table.shape)
  text = np.random.default_rng(1).normal(size=(29, 3)).astype(np.float32)
  inputs = make_inputs(recommender, train, text=text, sampler=None)
  params = jax.jit(recommender.init)(inputs, KEY)
  _, items = jax.jit(recommender.serving_state)(params, inputs).vectors
  alone = text[24] @ params["projection"]["kernel"]
  np.testing.assert_allclose(items[4], alone / np.linalg.norm(alone), atol=1e-5)

  def loss(params):
    batch = Batch(jnp.arange(20), jnp.ones(20, bool), jnp.int32(0))
    return recommender.loss(params, batch, KEY, inputs=inputs, train=TrainConfig())

  gradient = jax.jit(jax.grad(loss))(params)
  moved = np.abs(np.asarray(gradient["ids"])).sum(axis=1)
  assert moved[24] == 0 and (np.delete(moved, [3, 24]) > 0).all()  # user 3 has rated nothing


def test_the_score_is_the_sum_of_the_channels_in_standard_deviations():
  recommender, inputs, params, train, table = prepared()
  users = jnp.array([0, 3, 7])
  serving_state = jax.jit(recommender.serving_state)(params, inputs)
  got = np.asarray(recommender.score(serving_state, users))
  alone, own, _, _, _ = prepared(linear_weight=0.0)
  assert alone.score is dot_product_scores and own.own.linear is None
  graph = np.asarray(alone.score(jax.jit(alone.serving_state)(params, own), users))
  ease = EaseRatedRecommender(EaseRatedConfig(3.0, 5.0, "graded"), *table.shape)
  inputs = make_inputs(ease, train, text=np.zeros((29, 1)), sampler=None)
  linear = np.asarray(ease.score(ease.serving_state(jax.jit(ease.fit)(inputs, KEY), inputs), users))

  def z(s):
    return (s - s.mean(1, keepdims=True)) / np.maximum(s.std(1, keepdims=True), 1e-9)

  np.testing.assert_allclose(got[[0, 2]], (z(graph) + 0.3 * z(linear))[[0, 2]], atol=2e-4)
  # User 3 has rated nothing: popularity.
  np.testing.assert_array_equal(got[1], (prepared()[4] >= 4).sum(axis=0))


def test_popularity_helps_out_where_a_user_came_after_training_with_few_ratings():
  few, inputs, params, train, _ = prepared(prior_weight=2.0, prior_ratings=6)
  after_training = dataclasses.replace(inputs, later=jnp.ones(20, bool))
  plain = prepared()[0]
  ratings = np.bincount(train.user, minlength=20)
  users = np.array([int((ratings == n).argmax()) for n in (2, 4, 6)])
  assert list(ratings[users]) == [2, 4, 6]
  with_prior, without = (
    np.asarray(few.score(jax.jit(few.serving_state)(params, given), jnp.array(users)))
    for given in (after_training, inputs)
  )
  served = plain.score(jax.jit(plain.serving_state)(params, inputs), jnp.array(users))
  np.testing.assert_array_equal(without, served)  # whom training knew is left alone
  likes = np.log1p(np.bincount(train.item[train.rating >= 4], minlength=9))
  popular = (likes - likes.mean()) / likes.std()
  share = 2 * (1 - np.array([2, 4, 6]) / 6) ** 2
  want = without + (share * without.std(axis=1))[:, None] * popular
  np.testing.assert_allclose(with_prior, want, atol=1e-4)
  np.testing.assert_array_equal(with_prior[2], without[2])  # who has enough is left alone
  new = NewUsers([np.array([1, 4])], [np.array([], int)], np.zeros((1, 1)), 5.0, 1.0)
  with_prior, without = (
    np.asarray(m.score_new(params, inputs, jax.jit(m.serving_state)(params, inputs), new))
    for m in (few, plain)
  )
  np.testing.assert_allclose(with_prior, without + share[0] * without.std() * popular, atol=1e-4)


def test_a_channel_without_spread_adds_nothing():
  graph = jnp.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
  got = np.asarray(add_channels(graph, jnp.zeros((2, 3)), weight=9.0, rated=jnp.ones(3, bool)))
  assert got[0].argmax() == 2 and not got[1].any() and np.isfinite(got).all()


@pytest.mark.parametrize("graph", ["rated", "liked"])
def test_new_users_are_heard_in_both_channels(graph):
  recommender, inputs, params, _, _ = prepared(graph=graph)
  serving_state = jax.jit(recommender.serving_state)(params, inputs)

  def served(liked, disliked):
    new = NewUsers([np.array(liked)], [np.array(disliked, int)], np.zeros((1, 1)), 5.0, 1.0)
    return np.asarray(recommender.score_new(params, inputs, serving_state, new))

  plain = served([1, 4], [])
  assert plain.shape == (1, 9) and np.isfinite(plain).all()
  assert not np.allclose(plain, served([2, 5], []), atol=1e-3)
  assert not np.allclose(plain, served([1, 4], [2]), atol=1e-4)  # at least the linear channel


@pytest.mark.parametrize("features", ["ids", "table"])
def test_rows_of_nodes_that_nothing_was_heard_of_are_made_anew(features):
  fields = {"node_features": features}
  if features == "table":
    fields |= {"convolution": "full", "combine": "last", "feature_width": 3, "layer_widths": (3, 3)}
  recommender, former, params, train, _ = prepared(**fields)
  larger = GatRecommender(recommender.settings, 22, 10)
  more = dataclasses.replace(
    train, user_ids=tuple(map(str, range(22))), item_ids=tuple(map(str, range(10)))
  )
  text = np.random.default_rng(3).normal(size=(32, 1)).astype(np.float32)
  inputs = make_inputs(larger, more, text=text, sampler=None)
  rows = params[features]
  got = np.asarray(larger.grown(params, inputs, former=former, num_users=20, num_items=9)[features])
  known = np.delete(np.arange(20), 3)  # user 3 has rated nothing
  np.testing.assert_array_equal(got[known], rows[known])
  np.testing.assert_array_equal(got[22:31], rows[20:])
  new_users, new_items = got[[3, 20, 21]], got[31:]
  if features == "ids":
    np.testing.assert_allclose(new_users, np.tile(rows[known].mean(axis=0), (3, 1)), atol=1e-6)
    np.testing.assert_allclose(new_items, [rows[20:].mean(axis=0)], atol=1e-6)
  else:
    np.testing.assert_array_equal(new_users, text[[3, 20, 21]])
    np.testing.assert_array_equal(new_items, text[31:])


def test_an_item_that_nobody_has_rated_stands_lower_than_a_new_one():
  train, table = rows()
  train = train.take((train.item != 4) & (train.item != 5))
  settings = ModelConfig(**(BEST | {"unrated_l2": 1.0, "unrated_shift": -3.0}))
  recommender, text = GatRecommender(settings, *table.shape), np.zeros((29, 1))
  inputs = make_inputs(recommender, train, text=text, sampler=None, new=np.arange(9) == 5)
  serving_state = jax.jit(recommender.serving_state)(jax.jit(recommender.init)(inputs, KEY), inputs)
  got = np.asarray(recommender.score(serving_state, jnp.array([0, 7])))
  of_rated = np.delete(got, [4, 5], axis=1)
  np.testing.assert_allclose(got[:, 5], of_rated.mean(axis=1), atol=1e-4)  # nothing is known of it
  np.testing.assert_allclose(got[:, 5] - got[:, 4], 3 * of_rated.std(axis=1), rtol=1e-4)
