"""The k best unseen items, against a sort in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import evaluation as support

from gatrec_jax.ops.top_k import bytes_of_batches, top_items, top_items_by, users_of_batch


def naive_top(scores, train, users, k):
  items = np.full((len(users), k), -1)
  for row, user in enumerate(users):
    seen = set(train.item[train.user == user].tolist())
    left = [i for i in range(scores.shape[1]) if i not in seen]
    best = sorted(left, key=lambda i: (-scores[row, i], i))[:k]
    items[row, : len(best)] = best
  return items


@pytest.mark.parametrize("memory_mb", [512, 1e-3, 4e-4])
@pytest.mark.parametrize("k", [3, 20])
def test_equals_a_sort_with_ties_and_few_candidates(memory_mb, k):
  train, _ = support.random_split(0)
  rng = np.random.default_rng(0)
  # Small whole numbers give many equal scores.
  user_vectors = rng.integers(0, 3, (7, 2)).astype(np.float32)
  item_vectors = rng.integers(0, 3, (12, 2)).astype(np.float32)
  users = np.array([6, 0, 3, 1, 5])
  items, scores = top_items(user_vectors, item_vectors, users, seen=train, k=k, memory_mb=memory_mb)
  expected = naive_top(user_vectors[users] @ item_vectors.T, train, users, k)
  np.testing.assert_array_equal(items, expected)
  assert items.dtype == np.int32 and scores.dtype == np.float32
  assert np.isneginf(scores[items == -1]).all() and np.isfinite(scores[items >= 0]).all()


def test_without_history_with_any_score_function_and_no_users():
  def score(params, users):
    return params[users]

  table = jnp.array([[1.0, 3.0, 2.0], [0.0, -jnp.inf, 5.0]])
  items, _ = top_items_by(score, table, np.array([0, 1]), num_items=3, seen=None, k=3)
  np.testing.assert_array_equal(items, [[1, 2, 0], [2, 0, -1]])
  items, scores = top_items_by(score, table, np.array([], int), num_items=3, seen=None, k=3)
  assert items.shape == scores.shape == (0, 3)


def test_a_user_who_has_seen_everything_gets_nothing_and_nan_is_refused():
  train = support.interactions([(0, 0, 5), (0, 1, 1)], 2, 2)
  vectors = np.ones((2, 1), np.float32)
  items, _ = top_items(vectors, vectors, np.array([0, 1]), seen=train, k=2)
  np.testing.assert_array_equal(items, [[-1, -1], [0, 1]])
  with pytest.raises(FloatingPointError, match="NaN"):
    top_items(vectors * np.nan, vectors, np.array([1]), seen=train, k=1)


def test_batches_that_are_alive_are_within_the_memory():
  memory_mb, num_items = 2, 1000
  users = users_of_batch(num_items, memory_mb=memory_mb)
  assert users == 65  # two batches, each with four float32 copies of its scores
  one = memory_mb * 2**20 / 32  # scores of a batch
  more = 2 * 2 * 8 * one + 16 * 4 * one  # masks of all batches of a call, and what is retained
  taken = bytes_of_batches(10_000, num_items, memory_mb=memory_mb, copies=4) - more
  assert taken == memory_mb * 2**20
  few = bytes_of_batches(65, num_items, memory_mb=memory_mb, copies=4)
  assert few == (4 * 4 + 2 + 16 * 4) * 65 * num_items
  assert users_of_batch(10**9, memory_mb=memory_mb) == 1
