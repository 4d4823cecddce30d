"""EASE and iALS on graded relevance, solved by hand and by dense numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers.dense_als import dense_half_step

from gatrec_jax.config.models import IalsConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models import fit
from gatrec_jax.models.baselines.ials import IalsRecommender
from gatrec_jax.models.inputs import NewUsers

# Of ratings 0 (none) to 5 with the usual thresholds.
RELEVANCE = np.array([0, 0.05, 0.05, 0.25, 0.8, 1.0])


def interactions(table):
  """Args: table: [U, I] ratings, 0 where there is none."""
  user, item = np.nonzero(table)
  return Interactions.from_indices(
    user, item, table[user, item], num_users=table.shape[0], num_items=table.shape[1]
  )


def new_user(liked, disliked):
  return NewUsers([np.array(liked)], [np.array(disliked)], np.zeros((1, 1), np.float32), 5.0, 1.0)


def test_ease_by_hand():
  # X = [[1, .05], [.25, .8]]: Xᵀ X = [[1.0625, .25], [.25, .6425]], and with two items a weight is
  # the ridge solution on the other item alone.
  model = fit("ease", interactions(np.array([[5, 1], [3, 4]])), l2=0.9375, relevance="graded")
  first, second = 0.25 / (1.0625 + 0.9375), 0.25 / (0.6425 + 0.9375)
  np.testing.assert_allclose(model.params["weights"][0], [[0, first], [second, 0]], rtol=1e-5)
  expected = [[0.05 * second, 1.0 * first], [0.8 * second, 0.25 * first]]
  np.testing.assert_allclose(model.score([0, 1]), expected, rtol=1e-5)
  served = model.recommender.score_new(
    model.params, model.inputs, model.serving_state, new_user([0], [1])
  )
  np.testing.assert_allclose(served, expected[:1], rtol=1e-5)


def test_ease_equals_ridge_regressions_on_the_other_items():
  rng = np.random.default_rng(1)
  table = rng.integers(1, 6, (30, 7)) * (rng.random((30, 7)) < 0.5)
  table[3] = 0
  x = RELEVANCE[table]
  model = fit("ease", interactions(table), l2=2.0, relevance="graded")
  for item in range(7):
    others = np.delete(np.arange(7), item)
    part = x[:, others]
    weights = np.linalg.solve(part.T @ part + 2.0 * np.eye(6), part.T @ x[:, item])
    np.testing.assert_allclose(model.params["weights"][0][others, item], weights, atol=1e-5)
  assert not np.asarray(model.score([3])).any()


def test_where_every_rating_is_the_highest_both_forms_agree():
  table = np.where(np.random.default_rng(2).random((20, 6)) < 0.4, 5, 0)
  rows = interactions(table)
  for name, settings in (("ease", {"l2": 3.0}), ("ials", {"width": 4, "iterations": 3})):
    binary, graded = (fit(name, rows, relevance=form, **settings) for form in ("binary", "graded"))
    np.testing.assert_allclose(binary.score(range(20)), graded.score(range(20)), atol=1e-5)


def test_ials_by_hand():
  # One user who likes item 0 and dislikes item 1 of 3, with item factors 1, 2, 3:
  # w (1 + .05 · 4 + ½ (1 + 4 + 9) + .1 (1.05 + ½ · 3)) = 1 + .05 · 2
  settings = IalsConfig(width=1, unobserved_weight=0.5, l2=0.1, l2_power=1.0, relevance="graded")
  params = {"user": jnp.zeros((1, 1)), "item": jnp.array([[1.0], [2.0], [3.0]])}
  got = IalsRecommender(settings, 1, 3).score_new(params, None, None, new_user([0], [1]))
  factor = 1.1 / 8.455
  np.testing.assert_allclose(got, [[factor, 2 * factor, 3 * factor]], rtol=1e-5)


def test_ials_equals_dense_weighted_solves():
  rng = np.random.default_rng(4)
  table = rng.integers(1, 6, (12, 9)) * (rng.random((12, 9)) < 0.5)
  table[5], table[6] = 0, np.where(np.arange(9) < 2, 1, 0)  # no rating; dislikes alone
  settings = IalsConfig(
    width=4, unobserved_weight=0.3, l2=0.02, l2_power=0.7, iterations=3, cg_steps=16
  )
  graded = dataclasses.replace(settings, relevance="graded")
  model = fit(graded, interactions(table), seed=7)
  confidence = RELEVANCE[table]
  user = np.asarray(jax.random.normal(jax.random.key(7), (12, 4)), np.float64) * 0.1 / 2
  user *= (table > 0).any(axis=1)[:, None]
  for _ in range(3):
    item = dense_half_step(confidence.T, user, settings)
    user = dense_half_step(confidence, item, settings)
  np.testing.assert_allclose(model.params["user"], user, atol=1e-4)
  np.testing.assert_allclose(model.params["item"], item, atol=1e-4)
  assert not user[5].any() and user[6].any()
