"""Scores of items without ratings, predicted from texts and attributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import toy_ratings

from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat import channels
from gatrec_jax.models.inputs import Histories
from gatrec_jax.models.linear.ridge import RidgeRecommender

RATED = np.array([True] * 6 + [False] * 2)
# Four users: the first likes items 0 and 4, the second item 5, the others nothing.
LIKES = Histories(np.int32([0, 4, 5]), np.int32([0, 2, 3, 3, 3]), 2)
LIKED = np.zeros((4, 8), np.float32)
LIKED[[0, 0, 1], LIKES.item] = 1
# Compiled: one program for each shape takes less time than one for each operation.
_fill = jax.jit(channels.fill_unrated)
_make = jax.jit(channels.make_unrated)


def make_unrated(text, attributes, rated, **settings):
  return _make(text, attributes, rated, LIKES, **settings)


def fill_unrated(scores, unrated, liked=LIKED):
  return _fill(scores, unrated, liked[: len(scores)])


def parts(seed=0):
  rng = np.random.default_rng(seed)
  text = rng.normal(size=(8, 3)).astype(np.float32)
  attributes = rng.integers(0, 2, (8, 2)).astype(np.float32)
  return rng.normal(size=(4, 8)).astype(np.float32), text, attributes


def test_a_ridge_regression_by_hand():
  scores, text, attributes = parts()
  unrated = make_unrated(text, attributes, RATED, l2=0.7, shift=-0.5)
  got = np.asarray(fill_unrated(scores, unrated))
  np.testing.assert_array_equal(got[:, :6], scores[:, :6])
  unit = text / np.linalg.norm(text, axis=1, keepdims=True)
  features = np.concatenate([unit, 0.6 * attributes], axis=1).astype(np.float64)
  features -= features[:6].mean(axis=0)
  known = features[:6]
  for row, want in zip(scores.astype(np.float64), got, strict=True):
    centered = row[:6] - row[:6].mean()
    weights = np.linalg.solve(known.T @ known + 0.7 * np.eye(5), known.T @ centered)
    stretch = centered.std() / np.sqrt(np.mean((known @ weights) ** 2))
    np.testing.assert_allclose(
      want[6:],
      row[:6].mean() + stretch * features[6:] @ weights - 0.5 * centered.std(),
      rtol=1e-4,
      atol=1e-4,
    )


def test_likes_are_regressed_beside_the_scores():
  scores, text, attributes = parts()
  settings = dict(l2=0.7, shift=-0.5)
  got = fill_unrated(scores, make_unrated(text, attributes, RATED, likes_weight=1.5, **settings))
  mean = scores[:, :6].mean(axis=1, keepdims=True)
  spread = scores[:, :6].std(axis=1, keepdims=True)
  likes = LIKED[:, :6] - LIKED[:, :6].mean(axis=1, keepdims=True)
  likes[:2] /= LIKED[:2, :6].std(axis=1, keepdims=True)
  # Scores that contain the likes, with their own mean and deviation instead of those of the sum.
  sums = scores.copy()
  sums[:, :6] += 1.5 * spread * likes
  plain = np.asarray(fill_unrated(sums, make_unrated(text, attributes, RATED, l2=0.7)))[:, 6:]
  stretched = (plain - mean) / sums[:, :6].std(axis=1, keepdims=True)
  np.testing.assert_allclose(got[:, 6:], mean + spread * (stretched - 0.5), rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(got[:, :6], scores[:, :6])
  without = fill_unrated(scores, make_unrated(text, attributes, RATED, **settings))
  assert not np.allclose(got[:2, 6:], without[:2, 6:])
  np.testing.assert_allclose(got[2:], without[2:], atol=1e-6)


def test_likes_of_known_users_come_from_the_histories():
  _, text, attributes = parts()
  unrated = make_unrated(text, attributes, RATED, l2=1.0)
  np.testing.assert_array_equal(
    channels.liked_by(unrated, np.int32([3, 0, 1, 0])), LIKED[[3, 0, 1, 0]]
  )
  assert channels.liked_by(None, np.int32([0])) is None


def test_former_scores_of_unrated_items_have_no_influence():
  scores, text, attributes = parts()
  unrated = make_unrated(text, attributes, RATED, l2=1.0)
  other = scores.copy()
  other[:, 6:] = 99
  np.testing.assert_array_equal(fill_unrated(scores, unrated), fill_unrated(other, unrated))


def test_an_item_like_a_liked_one_comes_before_one_like_a_disliked_one():
  text = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 2, 2, 0, 1]]
  unrated = make_unrated(text, np.zeros((8, 2), np.float32), RATED, l2=0.1)
  scores = np.float32([[3.0, -3.0, 0.1, -0.1, 0.1, -0.1, 0.0, 0.0]])
  got = np.asarray(fill_unrated(np.tile(scores, (4, 1)), unrated))[0]
  assert got[6] > got[2] and got[7] < got[3]


def test_missing_texts_and_attributes_have_no_influence():
  scores, text, attributes = parts()
  text[[2, 6]], attributes[[3, 6]] = 0, 0
  unrated = make_unrated(text, attributes, RATED, l2=1.0)
  features = np.asarray(unrated.features)
  assert not features[6].any()
  got = np.asarray(fill_unrated(scores, unrated))
  np.testing.assert_allclose(got[:, 6], scores[:, :6].mean(axis=1), atol=1e-5)
  # Means are those of the items that have a text, or attributes.
  np.testing.assert_allclose(features[:6, :3].sum(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(features[:6, 3:].sum(axis=0), 0, atol=1e-5)
  assert not features[2, :3].any() and not features[3, 3:].any()


def test_the_shift_may_differ_from_item_to_item():
  scores, text, attributes = parts()
  plain = fill_unrated(scores, make_unrated(text, attributes, RATED, l2=1.0))
  shift = jnp.array([0.0] * 7 + [-2.0])
  moved = fill_unrated(scores, make_unrated(text, attributes, RATED, l2=1.0, shift=shift))
  np.testing.assert_array_equal(moved[:, :7], plain[:, :7])
  spread = scores[:, :6].std(axis=1)
  np.testing.assert_allclose(moved[:, 7], plain[:, 7] - 2 * spread, atol=1e-5)


def test_degenerate_cases_are_finite():
  scores, text, _ = parts()
  none = np.zeros((8, 2), np.float32)
  # A user whose scores have no spread, texts that are all missing, all items rated, none rated.
  flat = scores.copy()
  flat[1] = 2.0
  got = np.asarray(fill_unrated(flat, make_unrated(text, none, RATED, l2=1.0)))
  np.testing.assert_allclose(got[1], 2.0, rtol=1e-6)
  got = np.asarray(
    fill_unrated(scores, make_unrated(np.zeros((8, 3), np.float32), none, RATED, l2=1.0))
  )
  mean = np.repeat(scores[:, :6].mean(axis=1, keepdims=True), 2, axis=1)
  np.testing.assert_allclose(got[:, 6:], mean, atol=1e-6)
  # Equal texts do not distinguish items, and rounding errors are not scaled up.
  alike = np.tile(np.float32([0.3, 0.7, -0.2]), (8, 1))
  got = np.asarray(fill_unrated(scores, make_unrated(alike, none, RATED, l2=1e-3)))
  np.testing.assert_allclose(got[:, 6:], mean, atol=1e-6)
  # No attributes at all.
  fewer = make_unrated(text, np.zeros((8, 0), np.float32), RATED, l2=1.0)
  want = fill_unrated(scores, make_unrated(text, none, RATED, l2=1.0))
  np.testing.assert_allclose(fill_unrated(scores, fewer), want, atol=1e-5)
  every = make_unrated(text, none, np.ones(8, bool), l2=1.0)
  np.testing.assert_array_equal(fill_unrated(scores, every), scores)
  nothing = make_unrated(text, none, np.zeros(8, bool), l2=1.0)
  assert np.isfinite(fill_unrated(scores, nothing)).all()


@pytest.mark.parametrize("form", ["exact", "spectral"])
def test_scores_that_are_kept_are_those_of_the_linear_channel(monkeypatch, form):
  settings = EaseRatedConfig(form=form, rank=3, neighbors=2)
  recommender = RidgeRecommender(settings, num_users=12, num_items=9)
  inputs = make_inputs(recommender, toy_ratings(num_users=12, num_items=9))
  params = jax.jit(recommender.fit)(inputs, jax.random.key(0))
  state = recommender.serving_state(params, inputs)
  monkeypatch.setattr(channels, "KNOWN_AT_A_TIME", 3 * 9)  # three users at a time
  users = np.array([1, 2, 5, 7, 11], np.int32)
  known = channels.known_linear_scores(state, users, num_users=12, num_items=9)
  score = jax.jit(RidgeRecommender.score)
  expected = np.concatenate([score(state, users[:3]), score(state, users[[3, 4, 4]])])[:5]
  assert expected.any() and np.array_equal(known.scores[known.row[users]], expected)
