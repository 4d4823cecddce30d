"""The two terms of large catalogs: exact where they hold everything, and their stated error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.models import EaseConfig, EaseRatedConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.models.linear import ridge
from gatrec_jax.models.linear.dense import ridge_weights
from gatrec_jax.models.linear.spectral import leading_eigenpairs, spectral_weights
from gatrec_jax.models.registry import make_recommender


def histories(seed=0, users=60, items=25):
  """Relevance [U, I], and 1 where anything is rated; the last item has no ratings."""
  rng = np.random.default_rng(seed)
  rated = (rng.random((users, items)) < 0.3).astype(np.float32)
  rated[:, -1] = 0
  return rated * rng.choice([0.25, 1.0], rated.shape).astype(np.float32), rated


def matrix_of(weights):
  """[m, I, I] from the two terms."""
  matrix = np.einsum("sir,jr->sij", weights.left, weights.right)
  for item, neighbors in enumerate(weights.neighbors):
    matrix[:, item, neighbors] += weights.values[:, item]
  matrix[:, np.arange(matrix.shape[1]), np.arange(matrix.shape[1])] = 0
  return matrix


def exact(relations, penalties):
  both = np.concatenate(relations, axis=1)
  return np.asarray(ridge_weights(jax.device_put(both.T @ both), jnp.float32(penalties)))


def fitted(relations, penalties, **sizes):
  return spectral_weights([scipy.sparse.csr_array(one) for one in relations], penalties, **sizes)


@pytest.mark.parametrize("users", [20, 60])
@pytest.mark.parametrize("relations", [1, 2])
def test_with_all_eigenvectors_it_is_the_exact_solution(users, relations):
  chosen, penalties = histories(users=users)[:relations], [3.0, 5.0][:relations]
  weights = fitted(chosen, penalties, rank=99, neighbors=0)
  assert weights.left.shape == (relations, 25, min(users, 25 * relations))
  np.testing.assert_allclose(matrix_of(weights), exact(chosen, penalties), atol=2e-5)
  assert weights.tail == weights.dropped == 0


def test_all_neighbors_leave_the_error_of_the_tail():
  chosen, penalties = histories(), [30.0, 60.0]
  weights = fitted(chosen, penalties, rank=5, neighbors=24)
  error = matrix_of(weights) - exact(chosen, penalties)
  # An eigenvalue's error in f is one in (1 + YᵀY)⁻¹; constraints and penalties amplify it little.
  assert 0 < np.linalg.norm(error[0], 2) < 3 * weights.tail
  assert weights.dropped == pytest.approx(0, abs=1e-6)
  fewer = fitted(chosen, penalties, rank=5, neighbors=3)
  assert fewer.tail == weights.tail and 0.3 < fewer.dropped < 1
  assert fitted(chosen, penalties, rank=5, neighbors=0).dropped == 1


HEAD = np.array([2, 3, 5, 8, 13, 17, 18])


@pytest.mark.parametrize("count", [1, 2])
def test_weights_within_the_head_are_the_exact_ones_of_the_head_alone(count):
  chosen, penalties = histories()[:count], [30.0, 60.0][:count]
  head = np.ix_(HEAD, HEAD)
  weights = fitted(chosen, penalties, rank=4, neighbors=24, head=HEAD)
  assert weights.right.shape == (25, 4 + 2 * 1)
  matrix = matrix_of(weights)
  alone = exact([one[:, HEAD] for one in chosen], penalties)
  np.testing.assert_allclose(np.stack([one[head] for one in matrix]), alone, atol=1e-5)
  others = matrix_of(fitted(chosen, penalties, rank=1, neighbors=24))
  for one, other in zip(matrix, others, strict=True):
    one[head] = other[head] = 0
  np.testing.assert_allclose(matrix, others, atol=1e-5)


def test_singular_vectors_alone_are_the_head_where_there_are_enough():
  chosen, penalties = histories(), [3.0, 5.0]
  every = np.arange(25)
  weights = fitted(chosen, penalties, rank=25, neighbors=0, head=every)
  np.testing.assert_allclose(matrix_of(weights), exact(chosen, penalties), atol=2e-5)


def test_the_largest_error_of_the_line_is_stated():
  weights = fitted(histories()[:1], [40.0], rank=3, neighbors=0)
  features = histories()[0] / np.sqrt(40)
  left = np.linalg.eigvalsh(features.T @ features)[::-1][2]
  values = np.linspace(0, left, 10_001)
  error = values / (1 + values) - values / (1 + left)
  assert weights.tail == pytest.approx(error.max(), rel=1e-3)


def test_leading_eigenpairs_are_those_of_the_gram_matrix():
  features = histories(users=80, items=40)[0]
  values, vectors = leading_eigenpairs(scipy.sparse.csr_array(features), rank=12)
  expected = np.linalg.eigvalsh(features.T @ features)[::-1][:12]
  np.testing.assert_allclose(values, expected, rtol=1e-2)
  np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-4)
  again = leading_eigenpairs(scipy.sparse.csr_array(features), rank=12)
  np.testing.assert_array_equal(again[1], vectors)


@given(seed=st.integers(0, 1000), rank=st.integers(1, 30), neighbors=st.integers(0, 24))
@settings(max_examples=8, deadline=None)
def test_no_neighbor_is_the_item_itself_and_nothing_is_infinite(seed, rank, neighbors):
  weights = fitted(histories(seed), [2.0, 7.0], rank=rank, neighbors=neighbors)
  assert all(np.isfinite(one).all() for one in weights)
  assert 0 <= weights.tail < 1 and -1e-6 <= weights.dropped <= 1
  for item, (near, values) in enumerate(zip(weights.neighbors, weights.values[0], strict=True)):
    assert len(set(near)) == neighbors and (values[near == item] == 0).all()
  unrated = np.concatenate([weights.left[:, -1], weights.values[:, -1]], axis=1)
  assert np.abs(unrated).max() < 1e-6


def made(config, table):
  user, item = np.nonzero(table)
  rows = Interactions.from_indices(
    user, item, table[user, item], num_users=table.shape[0], num_items=table.shape[1]
  )
  recommender = make_recommender(config, num_users=table.shape[0], num_items=table.shape[1])
  inputs = make_inputs(recommender, rows)
  params = jax.jit(recommender.fit)(inputs, jax.random.key(0))
  return recommender, inputs, params, recommender.serving_state(params, inputs)


@pytest.mark.parametrize("config", [EaseConfig, EaseRatedConfig])
@pytest.mark.parametrize("powers", [(0.0, 0.0, 0.0), (0.25, 0.5, 0.25)])
def test_both_forms_serve_the_same(config, powers):
  rng = np.random.default_rng(1)
  table = rng.integers(1, 6, (50, 14)) * (rng.random((50, 14)) < 0.5)
  table[3] = 0
  table[table == 3] = 2  # new users say what they like and dislike, nothing between
  names = "user_power", "item_power", "score_power"
  common = dict(l2=4.0, **dict(zip(names, powers, strict=True)))
  dense = made(config(form="exact", **common), table)
  terms = made(config(form="spectral", rank=40, **common), table)
  users = jnp.array([0, 3, 7, 49])
  seen = table[np.asarray(users)] > 0
  part = jax.device_put(np.float32(rng.random((5, 14)) < 0.5))
  new = NewUsers(
    [np.flatnonzero(table[u] >= 4) for u in users],
    [np.flatnonzero((table[u] > 0) & (table[u] < 4)) for u in users],
    np.zeros((4, 1), np.float32),
    5.0,
    1.0,
  )
  scores = []
  for recommender, inputs, params, state in (dense, terms):
    by_user = np.asarray(jax.jit(recommender.score)(state, users))
    vectors = recommender.vectors_of_users(state, users) @ recommender.vectors_of_items(state).T
    np.testing.assert_allclose(vectors, by_user, atol=1e-5)
    served = np.asarray(recommender.score_new(params, inputs, state, new))
    np.testing.assert_allclose(served, by_user, atol=1e-5)
    of_part = np.asarray(recommender.score_with_part(state, jnp.int32(7), part))
    # An item's own weight is 0 in one form alone; nobody is recommended what they have rated.
    scores.append((np.where(seen, 0, by_user), np.where(table[7] > 0, 0, of_part)))
  np.testing.assert_allclose(scores[0][0], scores[1][0], atol=2e-4)
  np.testing.assert_allclose(scores[0][1], scores[1][1], atol=2e-4)


def test_powers_divide_by_the_numbers_of_ratings():
  table = np.array([[5, 5, 0], [5, 0, 5], [5, 5, 5]])
  config = EaseConfig(1.0, user_power=0.5, item_power=1.0, score_power=0.5)
  recommender, inputs, params, state = made(config, table)
  pairs = (table > 0).astype(float)
  scaled = pairs / np.sqrt(pairs.sum(axis=1))[:, None] / pairs.sum(axis=0)
  scaled /= np.sqrt((scaled[table > 0] ** 2).mean())
  weights = exact([np.float32(scaled)], [1.0])[0]
  scale = scaled[0, 0] * np.sqrt(2) / pairs.sum(axis=0) * pairs.sum(axis=0)[0]
  expected = pairs @ (weights * scale[:, None]) * np.sqrt(pairs.sum(axis=0))
  np.testing.assert_allclose(recommender.score(state, jnp.arange(3)), expected, atol=1e-5)


def test_the_head_has_nearly_all_ratings_or_there_is_none(monkeypatch):
  rng = np.random.default_rng(0)
  monkeypatch.setattr(ridge, "WHOLE_RANK", 5)
  table = np.zeros((60, 30), int)
  table[:, :6] = rng.integers(1, 6, (60, 6))
  table[rng.integers(0, 60, 12), rng.integers(6, 30, 12)] = 5
  recommender, inputs, params, state = made(EaseRatedConfig(form="spectral", rank=4), table)
  assert inputs.own.head.tolist() == [0, 1, 2, 3, 4, 5]
  assert params["weights"].right.shape == (30, 4 + 2 * 1)
  assert np.isfinite(jax.jit(recommender.score)(state, jnp.arange(60))).all()
  monkeypatch.setattr(ridge, "HEAD_ITEMS", 5)
  _, inputs, params, _ = made(EaseRatedConfig(form="spectral", rank=4), table)
  assert inputs.own.head.size == 0 and params["weights"].right.shape == (30, 4)
