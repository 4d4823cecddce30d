"""Scores of dense weights, by rating and as a matrix product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.models.inputs import histories
from gatrec_jax.models.linear import scoring

NUM_USERS = 6


def drawn(num_items, longest, relations):
  """Weights, pairs with values, and the scores by NumPy; user 0 has no history."""
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(relations, num_items, num_items)).astype(np.float32)
  counts = [0, *rng.integers(1, longest + 1, NUM_USERS - 2), longest]
  item = np.concatenate([rng.choice(num_items, count, replace=False) for count in counts])
  user = np.repeat(np.arange(NUM_USERS), counts)
  values = rng.normal(size=(relations, len(item))).astype(np.float32)
  rows = np.zeros((relations, NUM_USERS, num_items))
  rows[:, user, item] = values
  pairs = histories(user.astype(np.int32), item.astype(np.int32), num_users=NUM_USERS)
  weights, pairs, values = jax.device_put((weights, pairs, values))
  return weights, pairs, values, (rows @ np.asarray(weights)).sum(axis=0)


@pytest.mark.parametrize("relations", [1, 2])
@pytest.mark.parametrize("longest", [3, 20])
def test_both_ways_give_the_sum_of_the_weights(longest, relations):
  num_items = 10 * scoring.ITEMS_PER_RATING  # between both lengths
  weights, pairs, values, expected = drawn(num_items, longest, relations)
  users = jnp.array([5, 0, 3, 3, 1])
  scores = scoring.scores_of_histories(weights, pairs, values, users)
  np.testing.assert_allclose(scores, expected[users], rtol=1e-5, atol=1e-5)
  assert not np.asarray(scores[1]).any()


def test_short_histories_of_large_catalogs_are_not_multiplied_as_rows(monkeypatch):
  weights, pairs, values, _ = drawn(10 * scoring.ITEMS_PER_RATING, 3, 1)
  monkeypatch.setattr(scoring, "exact_matmul", lambda rows, weights: rows * np.nan)
  users = jnp.arange(NUM_USERS)
  assert np.isfinite(scoring.scores_of_histories(weights, pairs, values, users)).all()
