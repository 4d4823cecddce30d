"""The exact fit in LAPACK's packed arrays, against the plain one, and its own check."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from gatrec_jax.models.linear import in_place
from gatrec_jax.models.linear.dense import ridge_weights
from gatrec_jax.models.linear.in_place import residual, ridge_weights_in_place


def histories(items, count, seed=0):
  rng = np.random.default_rng(seed)
  rated = (rng.random((50, items)) < 0.3).astype(np.float32)
  relevance = rated * rng.choice([0.1, 0.8, 1.0], rated.shape).astype(np.float32)
  return [relevance, rated][:count], [3.0, 5.0][:count]


def plain(relations, penalties):
  both = np.concatenate(relations, axis=1)
  return np.asarray(ridge_weights(jax.device_put(both.T @ both), jnp.float32(penalties)))


def sparse(relations):
  return [scipy.sparse.csr_array(one) for one in relations]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("items", [1, 2, 7, 30])
@pytest.mark.parametrize("sparse_cost", [1e-9, 1e9])  # the Gram matrix by sparse, by dense products
@pytest.mark.parametrize("chunk_values", [2**24, 100])
def test_it_is_the_plain_solution(monkeypatch, count, items, sparse_cost, chunk_values):
  monkeypatch.setattr(in_place, "SPARSE_COST", sparse_cost)
  monkeypatch.setattr(in_place, "CHUNK_VALUES", chunk_values)
  relations, penalties = histories(items, count)
  got = ridge_weights_in_place(sparse(relations), penalties)
  np.testing.assert_allclose(got, plain(relations, penalties), atol=2e-5)
  assert got.dtype == np.float32 and got.flags.c_contiguous


@pytest.mark.parametrize("swept", [1, 4, 64])
def test_more_items_than_lapack_takes_are_eliminated_by_blocks(monkeypatch, swept):
  monkeypatch.setattr(in_place, "LAPACK_ROWS", 10)
  monkeypatch.setattr(in_place, "_SWEPT", swept)
  monkeypatch.setattr(in_place, "CHUNK_VALUES", 100)
  relations, penalties = histories(30, 1)
  got = ridge_weights_in_place(sparse(relations), penalties)
  np.testing.assert_allclose(got, plain(relations, penalties), atol=2e-5)
  assert np.isnan(ridge_weights_in_place(sparse(relations), [-50.0])).all()


@pytest.mark.parametrize("count", [1, 2])
def test_the_residual_finds_a_wrong_weight(count):
  relations, penalties = histories(30, count)
  weights = ridge_weights_in_place(sparse(relations), penalties)
  assert residual(weights, sparse(relations), penalties) < 1e-5
  weights[0, 3, 0] += 0.05
  assert residual(weights, sparse(relations), penalties) > 1e-2


def test_it_works_in_float64_where_float32_is_not_enough():
  relations, penalties = histories(30, 2)
  relations = [1000 * one for one in relations]
  penalties = [1e-4, 1e-4]
  both = np.concatenate(relations, axis=1).astype(np.float64)
  inverse = np.linalg.inv(both.T @ both + np.diag(np.repeat(penalties, 30)))
  got = ridge_weights_in_place(sparse(relations), penalties)
  assert residual(got, sparse(relations), penalties) < 1e-3
  block = inverse[np.ix_([4, 34], [4, 34])]
  expected = -inverse[:, [4, 34]] @ np.linalg.solve(block, [1, 0])
  others = np.delete(np.arange(60), [4, 34])
  np.testing.assert_allclose(
    np.concatenate(got)[others, 4], expected[others], atol=2e-3 * np.abs(expected).max()
  )


def test_weights_are_nan_where_there_is_no_solution():
  relations = [np.ones((5, 3), np.float32)]
  assert np.isnan(ridge_weights_in_place(sparse(relations), [-5.0])).all()
