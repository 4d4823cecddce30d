"""Propagation over the graph of likes, and scores of pairs: by hand, two forms alike, noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.graph_baselines import EDGES, KEY
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.ops import propagation
from gatrec_jax.ops import scores as pairs
from gatrec_jax.ops.propagation import (
  DenseEdges,
  SparseEdges,
  layer_vectors,
  make_propagation,
  propagate,
  sum_over_items,
)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_propagation_by_hand(kind):
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, kind)
  user, item = jnp.array([[1.0], [10.0]]), jnp.array([[100.0], [1000.0], [5.0]])
  to_user, to_item = propagate(graph, (user, item))
  half = 1 / np.sqrt(2)
  np.testing.assert_allclose(to_user[:, 0], [100 * half + 1000 / 2, 1000 * half], rtol=1e-6)
  np.testing.assert_allclose(to_item[:, 0], [1 * half, 1 / 2 + 10 * half, 0.0], rtol=1e-6)
  np.testing.assert_allclose(sum_over_items(graph.edges, item, num_users=2)[:, 0], [1100.0, 1000.0])


@jax.jit
@jax.value_and_grad
def some_function(vectors, graph, weights):
  found = layer_vectors(graph, vectors, layers=2)
  liked = sum_over_items(graph.edges, vectors[1], num_users=len(vectors[0]))
  return jnp.sum(liked**2) + sum(jnp.sum(jnp.sin(w * v)) for w, v in zip(weights, found[-1]))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 15, 35]))
def test_dense_equals_sparse_with_gradients(seed, num_edges):
  rng = np.random.default_rng(seed)
  user, item = np.divmod(rng.permutation(35)[:num_edges], 7)
  vectors, weights = (
    tuple(jax.device_put(np.float32(rng.normal(size=(n, 3)))) for n in (5, 7)) for _ in range(2)
  )
  dense, sparse = (
    some_function(vectors, make_propagation(user, item, 5, 7, kind), weights)
    for kind in ("dense", "sparse")
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), dense, sparse)


def test_sparse_form_under_vmap():
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "sparse")
  many = (jnp.arange(8.0).reshape(4, 2, 1), jnp.arange(12.0).reshape(4, 3, 1))
  got = jax.vmap(jax.grad(lambda v: jnp.sum(propagate(graph, v)[1] ** 2)))(many)
  one = jax.grad(lambda v: jnp.sum(propagate(graph, v)[1] ** 2))((many[0][3], many[1][3]))
  np.testing.assert_allclose(got[0][3], one[0], rtol=1e-6)


def test_auto_goes_by_filling_and_memory(monkeypatch):
  def kind_of(pairs, num):
    return type(make_propagation(pairs[:, 0], pairs[:, 1], num, num, "auto").edges)

  assert kind_of(EDGES, 3) is DenseEdges
  assert kind_of(EDGES, 100) is SparseEdges
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert kind_of(EDGES, 100) is DenseEdges
  monkeypatch.setattr(propagation, "DENSE_BYTES", 4 * 100 * 100 - 1)
  assert kind_of(EDGES, 100) is SparseEdges
  with pytest.raises(InputError, match="propagation=fast"):
    make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "fast")


def test_noise_moves_each_vector_by_its_length_within_its_orthant():
  graph = make_propagation(EDGES[:, 0], EDGES[:, 1], 2, 3, "dense")
  start = tuple(jax.random.normal(jax.random.key(n), (n, 4)) for n in (2, 3))
  plain = propagate(graph, start)
  noisy = layer_vectors(graph, start, layers=1, noise=0.2, key=KEY)[1]
  for before, after in zip(plain, noisy):
    moved = np.asarray(after - before)
    assert (moved * np.sign(before) >= 0).all()
    alive = np.asarray(before).any(axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.where(alive, 0.2, 0), rtol=1e-4)
  assert not np.allclose(noisy[0][0] - plain[0][0], noisy[0][1] - plain[0][1])


def test_pair_scores_by_matrix_equal_those_by_vectors(monkeypatch):
  draw = np.random.default_rng(0)
  vectors = tuple(jax.device_put(np.float32(draw.normal(size=(n, 4)))) for n in (6, 9))
  users, items = jax.device_put(draw.integers(0, 6, 8)), jax.device_put(draw.integers(0, 9, (8, 3)))
  both = []
  for cells in (0, 10**6):
    monkeypatch.setattr(pairs, "_CELLS_PER_PAIR", cells)
    both.append(
      jax.jit(jax.value_and_grad(lambda v: jnp.sum(jnp.sin(pairs.pair_scores(v, users, items)))))(
        vectors
      )
    )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)
  want = np.einsum("bd,bkd->bk", vectors[0][users], vectors[1][items])
  np.testing.assert_allclose(pairs.pair_scores(vectors, users, items), want, rtol=1e-5)
