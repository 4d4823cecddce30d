"""EASE with two relations: against the quadratic program in numpy, its limits, new users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.models import EaseConfig, EaseRatedConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.models.linear import ridge
from gatrec_jax.models.linear.dense import ridge_weights
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.models.registry import make_recommender

KEY = jax.random.key(0)


def ratings(users=50, items=14, seed=0):
  """[U, I] int, 0 where nothing is rated; user 3 has none, the last item neither."""
  rng = np.random.default_rng(seed)
  table = rng.integers(1, 6, (users, items)) * (rng.random((users, items)) < 0.5)
  table[3] = 0
  table[:, -1] = 0
  return table


def fitted(config, table):
  user, item = np.nonzero(table)
  rows = Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=table[user, item].astype(np.float32),
    timestamp=np.zeros(len(user), np.int64),
    user_ids=tuple(map(str, range(table.shape[0]))),
    item_ids=tuple(map(str, range(table.shape[1]))),
  )
  recommender = make_recommender(config, num_users=table.shape[0], num_items=table.shape[1])
  text = np.zeros((sum(table.shape), 1), np.float32)
  inputs = make_inputs(recommender, rows, text=text)
  return recommender, inputs, jax.jit(recommender.fit)(inputs, KEY)


def ridge_without_own(table, l2, rated_l2):
  """Each item's column by plain ridge regression on all other items' two columns."""
  liked, rated = (table >= 4).astype(float), (table > 0).astype(float)
  num_items = table.shape[1]
  both = np.concatenate([liked, rated], axis=1)
  penalties = np.repeat([l2, rated_l2], num_items)
  weights = np.zeros((2 * num_items, num_items))
  for j in range(num_items):
    others = np.delete(np.arange(2 * num_items), [j, num_items + j])
    part = both[:, others]
    normal = part.T @ part + np.diag(penalties[others])
    weights[others, j] = np.linalg.solve(normal, part.T @ liked[:, j])
  return weights


def scores_of(recommender, inputs, params):
  users = jnp.arange(recommender.num_users)
  return np.asarray(
    jax.jit(lambda p, i: recommender.score(recommender.serving_state(p, i), users))(params, inputs)
  )


@pytest.mark.parametrize(("l2", "rated_l2"), [(1.0, 2.0), (30.0, 5.0)])
def test_each_column_is_a_ridge_regression_on_the_other_items(l2, rated_l2):
  table = ratings()
  recommender, inputs, params = fitted(EaseRatedConfig(l2, rated_l2), table)
  expected = ridge_without_own(table, l2, rated_l2)
  num_items = table.shape[1]
  np.testing.assert_allclose(params["weights"][0], expected[:num_items], atol=2e-5)
  np.testing.assert_allclose(params["weights"][1], expected[num_items:], atol=2e-5)
  both = np.concatenate([table >= 4, table > 0], axis=1)
  np.testing.assert_allclose(scores_of(recommender, inputs, params), both @ expected, atol=1e-4)
  assert (scores_of(recommender, inputs, params)[3] == 0).all()


def test_graded_histories_are_input_and_target():
  table = ratings()
  recommender, inputs, params = fitted(EaseRatedConfig(4.0, 9.0, relevance="graded"), table)
  relevance = np.array([0, 0.05, 0.05, 0.25, 0.8, 1.0])[table]
  num_items = table.shape[1]
  both = np.concatenate([relevance, table > 0], axis=1)
  penalties = np.repeat([4.0, 9.0], num_items)
  for j in (0, 5):
    others = np.delete(np.arange(2 * num_items), [j, num_items + j])
    part = both[:, others]
    normal = part.T @ part + np.diag(penalties[others])
    want = part @ np.linalg.solve(normal, part.T @ relevance[:, j])
    np.testing.assert_allclose(scores_of(recommender, inputs, params)[:, j], want, atol=1e-4)
  new = NewUsers([np.array([1])], [np.array([2])], np.zeros((1, 1), np.float32), 5.0, 1.0)
  served = recommender.score_new(params, inputs, recommender.serving_state(params, inputs), new)
  liked, rated = params["weights"]
  want = liked[1] + 0.05 * liked[2] + rated[1] + rated[2]
  np.testing.assert_allclose(served[0], want, atol=1e-5)


def test_without_the_second_relation_it_is_ease():
  table = ratings()
  _, _, params = fitted(EaseRatedConfig(5.0, 1e9), table)
  _, _, ease = fitted(EaseConfig(5.0), table)
  np.testing.assert_allclose(params["weights"][0], ease["weights"][0], atol=1e-5)
  np.testing.assert_allclose(params["weights"][1], 0, atol=1e-5)


def test_where_everything_is_liked_it_is_ease_with_the_two_penalties_in_parallel():
  # min l2 w² + rated_l2 v² over w + v = s is s² · l2 · rated_l2 ÷ (l2 + rated_l2).
  table = ratings() // 4 * 5
  _, _, params = fitted(EaseRatedConfig(30.0, 60.0), table)
  _, _, ease = fitted(EaseConfig(20.0), table)
  np.testing.assert_allclose(sum(params["weights"]), ease["weights"][0], atol=1e-5)


def test_what_was_rated_low_speaks_for_what_is_rated_with_it():
  # Items 0 and 1 are always rated by the same users; 1 is liked, 0 is not.
  table = np.zeros((40, 4), int)
  table[:20, 0], table[:20, 1] = 1, 5
  table[20:, 2], table[20:, 3] = 5, 5
  recommender, inputs, params = fitted(EaseRatedConfig(1.0, 1.0), table)
  new = NewUsers([np.zeros(0, np.int64)], [np.array([0])], np.zeros((1, 1), np.float32), 5.0, 1.0)
  scores = np.asarray(
    recommender.score_new(params, inputs, recommender.serving_state(params, inputs), new)
  )[0]
  assert scores[1] > 0.5 > 0.1 > abs(scores[2])


def test_new_users_are_served_as_trained_ones():
  table = ratings()
  table[table == 3] = 2  # new users say what they like and dislike, nothing between
  recommender, inputs, params = fitted(EaseRatedConfig(4.0, 8.0), table)
  chosen = [0, 3, 7]
  new = NewUsers(
    [np.flatnonzero(table[u] >= 4) for u in chosen],
    [np.flatnonzero((table[u] > 0) & (table[u] < 4)) for u in chosen],
    np.zeros((3, 1), np.float32),
    5.0,
    1.0,
  )
  served = recommender.score_new(params, inputs, recommender.serving_state(params, inputs), new)
  np.testing.assert_allclose(served, scores_of(recommender, inputs, params)[chosen], atol=1e-5)


@given(seed=st.integers(0, 1000), l2=st.floats(0.1, 100), rated_l2=st.floats(0.1, 100))
@settings(max_examples=20, deadline=None)
def test_no_item_speaks_for_itself_and_a_cold_item_for_none(seed, l2, rated_l2):
  table = ratings(30, 6, seed)
  both = np.concatenate([table >= 4, table > 0], axis=1).astype(np.float32)
  for weights in ridge_weights(jax.device_put(both.T @ both), jnp.float32([l2, rated_l2])):
    weights = np.asarray(weights)
    assert np.isfinite(weights).all()
    assert (np.diag(weights) == 0).all()
    assert (weights[-1] == 0).all() and (weights[:, -1] == 0).all()


def test_an_exact_fit_of_two_relations_of_too_many_items_is_refused(monkeypatch):
  monkeypatch.setattr(ridge, "PACKED_ITEMS", 5)
  recommender = RidgeRecommender(EaseRatedConfig(form="exact"), 3, 6)
  with pytest.raises(InputError, match="takes up to 5 items with two relations; use spectral"):
    recommender.weights(None)
