"""iALS: parity with a dense numpy solve, its objective, steps, chunks, regularizer, fold-in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.dense_als import dense_half_step

from gatrec_jax.config.models import IalsConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines import ials_buckets
from gatrec_jax.models.baselines.ials import IalsRecommender
from gatrec_jax.models.inputs import NewUsers

USERS, ITEMS = 12, 9
SETTINGS = IalsConfig(
  width=4, unobserved_weight=0.3, l2=0.02, l2_power=0.7, iterations=3, cg_steps=16
)


def interactions(matrix):
  """Ratings of 5 where the matrix is 1, and a rating of 1, no positive, at user 0's first gap."""
  user, item = np.nonzero(matrix)
  gap = np.flatnonzero(matrix[0] == 0)[0]
  user, item = np.append(user, 0), np.append(item, gap)
  rating = np.append(np.full(len(user) - 1, 5.0), 1.0).astype(np.float32)
  return Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=rating,
    timestamp=np.zeros(len(user), np.int64),
    user_ids=tuple(map(str, range(matrix.shape[0]))),
    item_ids=tuple(map(str, range(matrix.shape[1]))),
  )


@pytest.fixture(scope="module")
def matrix():
  """[12, 9] with lengths from 1 to 8; user 5 and item 2 have nothing."""
  drawn = np.random.default_rng(3).random((USERS, ITEMS)) < np.linspace(0.1, 0.9, USERS)[:, None]
  drawn[5] = False
  drawn[:, 2] = False
  drawn[0, 0] = True
  return drawn.astype(np.float64)


def setup(matrix, settings=SETTINGS):
  recommender = IalsRecommender(settings, *matrix.shape)
  inputs = make_inputs(recommender, interactions(matrix), text=np.zeros((1, 1)))
  return recommender, inputs


@functools.partial(jax.jit, static_argnames="recommender")
def _fit(inputs, key, iterations, cg_steps, *, recommender):
  settings = dataclasses.replace(SETTINGS, iterations=iterations, cg_steps=cg_steps)
  return dataclasses.replace(recommender, settings=settings).fit(inputs, key)


def fit(recommender, inputs, key, iterations=SETTINGS.iterations, cg_steps=SETTINGS.cg_steps):
  """By one program for all numbers of passes and steps."""
  return _fit(inputs, key, iterations, cg_steps, recommender=recommender)


def initial_users(recommender, matrix, key):
  drawn = np.asarray(
    jax.random.normal(key, (recommender.num_users, recommender.settings.width)), np.float64
  )
  scaled = drawn * recommender.settings.init_stddev / np.sqrt(recommender.settings.width)
  return scaled * (matrix.sum(axis=1) > 0)[:, None]


def dense_fit(matrix, user, settings, passes):
  item = None
  for _ in range(passes):
    item = dense_half_step(matrix.T, user, settings)
    user = dense_half_step(matrix, item, settings)
  return user, item


def objective(matrix, user, item, settings):
  scores, alpha = user @ item.T, settings.unobserved_weight
  by_user = (matrix.sum(axis=1) + alpha * matrix.shape[1]) ** settings.l2_power
  by_item = (matrix.sum(axis=0) + alpha * matrix.shape[0]) ** settings.l2_power
  return (
    (matrix * (1 - scores) ** 2).sum()
    + alpha * (scores**2).sum()
    + settings.l2
    * ((by_user * (user**2).sum(axis=1)).sum() + (by_item * (item**2).sum(axis=1)).sum())
  )


@pytest.mark.parametrize("passes", [1, 5])
def test_equals_dense_solves(matrix, passes):
  recommender, inputs = setup(matrix)
  key = jax.random.key(7)
  got = fit(recommender, inputs, key, passes)
  user, item = dense_fit(matrix, initial_users(recommender, matrix, key), SETTINGS, passes)
  np.testing.assert_allclose(got["user"], user, atol=1e-4)
  np.testing.assert_allclose(got["item"], item, atol=1e-4)
  assert np.abs(user).max() > 0.1


def test_objective_falls_with_every_pass(matrix):
  recommender, inputs = setup(matrix)
  losses = []
  for passes in range(1, 9):
    got = fit(recommender, inputs, jax.random.key(1), passes)
    got = jax.tree.map(lambda values: np.asarray(values, np.float64), got)
    losses.append(objective(matrix, got["user"], got["item"], SETTINGS))
  assert (np.diff(losses) < 1e-6).all() and losses[-1] < losses[0] - 1e-3


def test_steps_approach_the_solution_and_the_last_pass_is_solved(matrix):
  key, errors = jax.random.key(7), []
  recommender, inputs = setup(matrix)
  for steps in (1, 2, 3, 16):
    got = jax.tree.map(np.asarray, fit(recommender, inputs, key, 1, steps))
    item = dense_half_step(matrix.T, initial_users(recommender, matrix, key), SETTINGS)
    errors.append(np.linalg.norm(got["item"] - item) / np.linalg.norm(item))
    user = dense_half_step(matrix, got["item"].astype(np.float64), SETTINGS)
    np.testing.assert_allclose(got["user"], user, atol=1e-4)
  assert errors[0] > errors[1] > errors[2] > errors[3]
  assert errors[0] < 0.2 and errors[2] < 0.02 and errors[3] < 1e-5


def test_steps_that_are_too_few_are_made_up_for_by_passes(matrix):
  recommender, inputs = setup(matrix)
  results = [fit(recommender, inputs, jax.random.key(3), 100, steps) for steps in (3, 16)]
  scores = [np.asarray(got["user"] @ got["item"].T) for got in results]
  np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def test_lengths_and_chunks_change_nothing(monkeypatch):
  matrix = np.random.default_rng(0).random((20, 30)) < np.linspace(0.04, 0.95, 20)[:, None]
  matrix = matrix.astype(np.float64)
  matrix[0, 0] = 1
  results, shapes = [], []
  for numbers, worth, step in ((1 << 19, 100_000, 8), (300, 0, 2), (1, 10, 8)):
    monkeypatch.setattr(ials_buckets, "_CPU_CHUNK", numbers)
    monkeypatch.setattr(ials_buckets, "_WORTH_A_LENGTH", worth)
    monkeypatch.setattr(ials_buckets, "_STEP", step)
    recommender, inputs = setup(matrix)
    shapes.append([bucket.lists.shape for bucket in inputs.own.buckets])
    results.append(fit(recommender, inputs, jax.random.key(2)))
  assert len(shapes[0]) == 1 and len(shapes[1]) > 3
  assert any(chunks > 2 and batch > 1 for chunks, batch, _ in shapes[1])
  assert all(batch == 1 for _, batch, _ in shapes[2])
  for other in results[1:]:
    for side in ("user", "item"):
      np.testing.assert_allclose(other[side], results[0][side], atol=5e-5)


def test_regularizer_of_one_user_by_hand():
  # One user, likes items 0 and 1 of 3; factors of width 1, item factors fixed at h.
  matrix = np.array([[1.0, 1.0, 0.0]])
  for power in (0.0, 0.5, 1.0):
    settings = IalsConfig(width=1, unobserved_weight=0.5, l2=0.1, l2_power=power, iterations=1)
    recommender, inputs = setup(matrix, settings)
    params = {"user": jnp.zeros((1, 1)), "item": jnp.array([[1.0], [2.0], [3.0]])}
    new = NewUsers([np.array([0, 1])], [np.array([], int)], np.zeros((1, 1)), 5.0, 1.0)
    got = recommender.score_new(params, inputs, None, new)
    # w · (1 + 4 + ½ (1 + 4 + 9) + 0.1 (2 + ½ · 3)^ν) = 1 + 2
    factor = 3 / (12 + 0.1 * 3.5**power)
    np.testing.assert_allclose(got, [[factor, 2 * factor, 3 * factor]], rtol=1e-6)


def test_who_has_nothing_gets_zero_and_weighs_nothing(matrix):
  recommender, inputs = setup(matrix)
  got = fit(recommender, inputs, jax.random.key(0))
  assert not np.asarray(got["user"][5]).any() and not np.asarray(got["item"][2]).any()
  for side, axis in (("user", 1), ("item", 0)):
    has_any = matrix.any(axis=axis)
    np.testing.assert_array_equal(np.asarray(got[side]).any(axis=1), has_any)
    assert has_any.any() and not has_any.all()
  assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(got))


def test_fold_in_gives_a_known_user_the_factor_of_training(matrix):
  recommender, inputs = setup(matrix)
  params = fit(recommender, inputs, jax.random.key(4))
  serving_state = recommender.serving_state(params, inputs)
  known = np.array([0, 11, 5])
  likes = [np.flatnonzero(matrix[user])[::-1] for user in known]
  new = NewUsers(likes, [np.zeros(0, int)] * 3, np.zeros((3, 1)), 5.0, 1.0)
  got = recommender.score_new(params, inputs, serving_state, new)
  np.testing.assert_allclose(got, recommender.score(serving_state, known), atol=1e-5)
  assert not np.asarray(got[2]).any()


def test_settings_may_be_traced_and_mapped(matrix):
  recommender, inputs = setup(matrix)
  key, values, weights = jax.random.key(5), (SETTINGS.l2, 0.1), (SETTINGS.unobserved_weight, 0.5)

  def fit_with(inputs, l2, weight):
    settings = dataclasses.replace(SETTINGS, l2=l2, unobserved_weight=weight)
    return IalsRecommender(settings, USERS, ITEMS).fit(inputs, key)

  mapped = jax.jit(jax.vmap(fit_with, (None, 0, 0)))(inputs, *np.float32([values, weights]))
  other = jax.jit(lambda inputs: fit_with(inputs, values[1], weights[1]))(inputs)
  for run, alone in enumerate((fit(recommender, inputs, key), other)):
    np.testing.assert_allclose(mapped["user"][run], alone["user"], atol=2e-5)
  shapes = jax.eval_shape(recommender.fit, inputs, key)
  assert shapes["user"].shape == (USERS, 4) and shapes["item"].shape == (ITEMS, 4)


def test_the_weight_of_all_pairs_follows_from_the_positives_where_none_is_set(matrix):
  recommender, inputs = setup(matrix, dataclasses.replace(SETTINGS, unobserved_weight=0.0))
  # A user's pairs weigh 24 times the positives that users have on average.
  alpha = 24 * matrix.sum() / USERS / ITEMS
  given, _ = setup(matrix, dataclasses.replace(SETTINGS, unobserved_weight=alpha))
  fits = [jax.jit(one.fit)(inputs, jax.random.key(5)) for one in (recommender, given)]
  np.testing.assert_allclose(fits[0]["user"], fits[1]["user"], atol=1e-6)
  new = NewUsers([np.array([0, 3])], [np.zeros(0, int)], np.zeros((1, 1)), 5.0, 1.0)
  scores = [
    one.score_new(fits[0], inputs, one.serving_state(fits[0], inputs), new)
    for one in (recommender, given)
  ]
  np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_order_of_rows_has_no_effect_and_seeds_do(matrix):
  recommender, _ = setup(matrix)
  train = interactions(matrix)

  def inputs(rows):
    return make_inputs(recommender, rows, text=np.zeros((1, 1)))

  results = [
    fit(recommender, inputs(rows), jax.random.key(seed))["user"]
    for rows, seed in ((train, 0), (train.take(np.arange(len(train))[::-1]), 0), (train, 1))
  ]
  np.testing.assert_array_equal(results[0], results[1])
  assert np.abs(results[0] - results[2]).max() > 1e-3
