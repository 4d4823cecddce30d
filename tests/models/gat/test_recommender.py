"""The GAT as a recommender: its softmax, its channels, new users and items."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.channels import add_channels
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Batch, NewUsers
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.ops.scores import dot_product_scores

KEY = jax.random.key(0)
BEST = dict(
  node_features="ids",
  feature_width=6,
  convolution="light",
  layers=1,
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
USERS = np.array([0, 3, 7])  # user 3 has rated nothing


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


TRAIN, TABLE = rows()


def inputs_of(recommender, train, *, text=None, new=None):
  count = recommender.num_users + recommender.num_items
  return make_inputs(
    recommender, train, text=np.zeros((count, 1)) if text is None else text, new=new
  )


def made(train=TRAIN, **fields):
  recommender = GatRecommender(replaced(ModelConfig(), BEST | fields), 20, 9)
  return recommender, inputs_of(recommender, train)


@functools.cache
def prepared():
  """The model of `BEST`, its inputs and parameters; other channels have the same parameters."""
  recommender, inputs = made()
  return recommender, inputs, jax.jit(recommender.init)(inputs, KEY)


served = jax.jit(lambda recommender, *given: recommender.serving_state(*given), static_argnums=0)
scored = jax.jit(lambda recommender, *given: recommender.score(*given), static_argnums=0)


def scores_of(recommender, params, inputs, users=USERS):
  return np.asarray(scored(recommender, served(recommender, params, inputs), users))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(recommender, params, inputs):
  """Of the loss over all users."""
  return jax.value_and_grad(recommender.loss)(
    params, Batch(jnp.arange(20), jnp.ones(20, bool), jnp.int32(0)), KEY, inputs=inputs
  )


@pytest.mark.parametrize("popularity_weight", [0.0, 0.3])
def test_the_softmax_by_hand(popularity_weight):
  recommender, inputs = made(user_power=0.25, popularity_weight=popularity_weight)
  params = prepared()[2]
  user, item = map(np.asarray, served(recommender, params, inputs).vectors)
  np.testing.assert_allclose(np.linalg.norm(user[:3], axis=1), 1, rtol=1e-5)
  popularity = popularity_weight * np.log1p((TABLE > 0).sum(axis=0))
  scores = (user @ item.T + popularity) / 0.5
  log_share = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  relevance = np.array([0, 0.05, 0.05, 0.25, 0.8, 1.0])[TABLE]
  weight = relevance * np.maximum(relevance.sum(axis=1, keepdims=True), 1e-9) ** -0.25
  got, _ = value_and_gradient(recommender, params, inputs)
  np.testing.assert_allclose(got, -(weight * log_share).sum() / weight.sum(), rtol=1e-5)
  assert recommender.num_rows(inputs) == 20


def test_an_item_without_ratings_is_not_pushed_away_and_has_the_vector_of_its_text():
  recommender, _ = made(node_features="sum")
  text = np.random.default_rng(1).normal(size=(29, 3)).astype(np.float32)
  inputs = inputs_of(recommender, TRAIN.take(TRAIN.item != 4), text=text)
  params = jax.jit(recommender.init)(inputs, KEY)
  _, items = served(recommender, params, inputs).vectors
  alone = text[24] @ params["projection"]["kernel"]
  np.testing.assert_allclose(items[4], alone / np.linalg.norm(alone), atol=1e-5)
  _, gradient = value_and_gradient(recommender, params, inputs)
  moved = np.abs(np.asarray(gradient["ids"])).sum(axis=1)
  assert moved[24] == 0 and (np.delete(moved, [3, 24]) > 0).all()


def test_the_score_is_the_sum_of_the_channels_in_standard_deviations():
  recommender, inputs, params = prepared()
  got = scores_of(recommender, params, inputs)
  alone, own = made(linear_weight=0.0)
  assert alone.score is dot_product_scores and own.own.linear is None
  graph = scores_of(alone, params, own)
  ease = RidgeRecommender(EaseRatedConfig(3.0, 5.0, relevance="graded"), 20, 9)
  own = inputs_of(ease, TRAIN)
  linear = scored(ease, ease.serving_state(jax.jit(ease.fit)(own, KEY), own), USERS)

  def z(s):
    return (s - s.mean(1, keepdims=True)) / np.maximum(s.std(1, keepdims=True), 1e-9)

  linear = np.asarray(linear)
  np.testing.assert_allclose(got[[0, 2]], (z(graph) + 0.3 * z(linear))[[0, 2]], atol=2e-4)
  # User 3 has rated nothing: popularity.
  np.testing.assert_array_equal(got[1], (TABLE >= 4).sum(axis=0))


def test_popularity_counts_for_users_who_came_after_training_with_few_ratings():
  plain, inputs, params = prepared()
  few = made(prior_weight=2.0, prior_ratings=6)[0]
  after_training = dataclasses.replace(inputs, later=jnp.ones(20, bool))
  ratings = np.bincount(TRAIN.user, minlength=20)
  users = np.array([int((ratings == n).argmax()) for n in (2, 4, 6)])
  assert list(ratings[users]) == [2, 4, 6]
  with_prior, without = (scores_of(few, params, given, users) for given in (after_training, inputs))
  # Users who were there in training keep their scores.
  np.testing.assert_array_equal(without, scores_of(plain, params, inputs, users))
  likes = np.log1p(np.bincount(TRAIN.item[TRAIN.rating >= 4], minlength=9))
  popular = (likes - likes.mean()) / likes.std()
  share = 2 * (1 - np.array([2, 4, 6]) / 6) ** 2
  want = without + (share * without.std(axis=1))[:, None] * popular
  np.testing.assert_allclose(with_prior, want, atol=1e-4)
  np.testing.assert_array_equal(with_prior[2], without[2])  # enough ratings
  with_prior, without = (new_scores(one, [1, 4], []) for one in (few, plain))
  np.testing.assert_allclose(with_prior, without + share[0] * without.std() * popular, atol=1e-4)


def new_scores(recommender, liked, disliked, *, inputs=None):
  """[1, I] for one new user."""
  _, plain, params = prepared()
  inputs = plain if inputs is None else inputs
  new = NewUsers([np.array(liked)], [np.array(disliked, int)], np.zeros((1, 1)), 5.0, 1.0)
  serving_state = served(recommender, params, inputs)
  return np.asarray(recommender.score_new(params, inputs, serving_state, new))


@pytest.mark.parametrize("graph", ["rated", "liked"])
def test_ratings_of_new_users_count_in_both_channels(graph):
  recommender, inputs = made(graph=graph)
  get = functools.partial(new_scores, recommender, inputs=inputs)
  plain = get([1, 4], [])
  assert plain.shape == (1, 9) and np.isfinite(plain).all()
  assert not np.allclose(plain, get([2, 5], []), atol=1e-3)
  assert not np.allclose(plain, get([1, 4], [2]), atol=1e-4)  # at least the linear channel


def test_a_channel_without_spread_adds_nothing():
  graph = jnp.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
  got = np.asarray(add_channels(graph, jnp.zeros((2, 3)), weight=9.0, rated=jnp.ones(3, bool)))
  assert got[0].argmax() == 2 and not got[1].any() and np.isfinite(got).all()


@pytest.mark.parametrize("features", ["ids", "table"])
def test_rows_of_nodes_without_ratings_are_replaced_when_a_model_grows(features):
  recommender, former, params = prepared()
  if features == "table":
    params = {"table": jax.device_put(np.float32(np.random.default_rng(2).normal(size=(29, 1))))}
  larger = GatRecommender(recommender.settings, 22, 10)
  more = dataclasses.replace(
    TRAIN, user_ids=tuple(map(str, range(22))), item_ids=tuple(map(str, range(10)))
  )
  text = np.random.default_rng(3).normal(size=(32, 1)).astype(np.float32)
  inputs = inputs_of(larger, more, text=text)
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


def test_an_item_that_nobody_has_rated_ranks_lower_than_a_new_one():
  recommender, _ = made(unrated_l2=1.0, unrated_shift=-3.0)
  train = TRAIN.take((TRAIN.item != 4) & (TRAIN.item != 5))
  inputs = inputs_of(recommender, train, new=np.arange(9) == 5)
  got = scores_of(recommender, prepared()[2], inputs, np.array([0, 7, 7]))[:2]
  of_rated = np.delete(got, [4, 5], axis=1)
  np.testing.assert_allclose(got[:, 5], of_rated.mean(axis=1), atol=1e-4)  # nothing known of it
  np.testing.assert_allclose(got[:, 5] - got[:, 4], 3 * of_rated.std(axis=1), rtol=1e-4)
