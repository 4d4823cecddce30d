"""Metrics against slow Python, hand-solved values and edge cases."""

import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from gatrec_jax.evaluate import metrics

LENGTH = 6


def naive(name, hits, num_relevant, k):
  """One user's metric by its definition, in plain Python."""
  hits = hits[:k]
  if name == "precision":
    return sum(hits) / k
  if name == "recall":
    return sum(hits) / num_relevant if num_relevant else 0.0
  if name == "ndcg":
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(num_relevant, k) + 1))
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, 1) if hit)
    return gain / ideal if ideal else 0.0
  if name == "map":
    total = sum(sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1) if hit)
    return total / min(num_relevant, k) if num_relevant else 0.0
  if name == "mrr":
    return next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
  return float(any(hits))


@functools.partial(jax.jit, static_argnames=("name", "k"))
def ours(name, hits, num_relevant, k, where=None):
  if name in ("precision", "mrr", "hit"):
    function = {"precision": metrics.precision, "mrr": metrics.reciprocal_rank, "hit": metrics.hit}[
      name
    ]
    return function(hits, k=k, where=where)
  function = {"recall": metrics.recall, "ndcg": metrics.ndcg, "map": metrics.average_precision}[
    name
  ]
  return function(hits, num_relevant, k=k, where=where)


ACCURACY = ("precision", "recall", "ndcg", "map", "mrr", "hit")


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
  st.lists(
    st.tuples(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH), st.integers(0, 9)),
    min_size=4,
    max_size=4,
  ),
  st.sampled_from([2, 9]),
)
def test_equals_the_naive_definition(rows, k):
  # Relevant items that are not in the list may exist, hits beyond the relevant ones may not.
  hits = np.array([row for row, _ in rows])
  num_relevant = np.array([sum(row) + extra for row, extra in rows], np.int32)
  for name in ACCURACY:
    expected = [naive(name, list(h), int(n), k) for h, n in zip(hits, num_relevant)]
    np.testing.assert_allclose(ours(name, hits, num_relevant, k), expected, rtol=1e-5, atol=1e-7)


def test_hand_solved_values():
  hits = jnp.array([[True, False, True, False]])
  num_relevant = jnp.array([3])
  expected = {
    "precision": 2 / 4,
    "recall": 2 / 3,
    "map": (1 + 2 / 3) / 3,
    "mrr": 1.0,
    "hit": 1.0,
    "ndcg": 1.5 / (1 + 1 / math.log2(3) + 0.5),
  }
  for name, value in expected.items():
    assert float(ours(name, hits, num_relevant, 4)[0]) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("name", ACCURACY)
def test_edges_nothing_relevant_all_masked_empty_and_vmap(name):
  hits = jnp.array([[False, False], [True, True]])
  num_relevant = jnp.array([0, 2])
  values = ours(name, hits, num_relevant, 2)
  assert values.dtype == jnp.float32
  assert float(values[0]) == 0.0 and float(values[1]) == pytest.approx(1.0)
  assert not np.any(ours(name, hits, num_relevant, 2, where=jnp.zeros(2, bool)))
  masked = ours(name, hits, num_relevant, 2, where=jnp.array([False, True]))
  np.testing.assert_array_equal(masked, [0.0, values[1]])
  assert ours(name, jnp.zeros((0, 2), bool), jnp.zeros(0, jnp.int32), 2).shape == (0,)
  assert not np.any(ours(name, jnp.zeros((2, 0), bool), num_relevant, 2))
  stacked = jax.vmap(lambda h, n: ours(name, h, n, 2))(hits[None], num_relevant[None])
  np.testing.assert_array_equal(stacked[0], values)


def test_list_mean_ignores_padding():
  values = jnp.array([[1.0, 3.0, jnp.nan], [5.0, 5.0, 5.0]])
  valid = jnp.array([[True, True, False], [False, False, False]])
  np.testing.assert_allclose(metrics.list_mean(values, valid, k=3), [2.0, 0.0])
  np.testing.assert_allclose(metrics.list_mean(values, valid, k=1), [1.0, 0.0])


def test_diversity_equals_mean_over_pairs():
  vectors = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
  valid = np.array([[True, True, True, False], [True, False, False, False]])
  unit = vectors[0, :3] / np.linalg.norm(vectors[0, :3], axis=1, keepdims=True)
  pairs = [unit[i] @ unit[j] for i in range(3) for j in range(i)]
  result = metrics.intra_list_diversity(vectors, valid, k=4)
  np.testing.assert_allclose(result, [1 - np.mean(pairs), 0.0], rtol=1e-5)
  same = np.ones((1, 3, 2), np.float32)
  np.testing.assert_allclose(
    metrics.intra_list_diversity(same, np.ones((1, 3), bool), k=3), [0.0], atol=1e-6
  )
  zero = metrics.intra_list_diversity(np.zeros((1, 3, 2)), np.ones((1, 3), bool), k=3)
  np.testing.assert_allclose(zero, [1.0])


def test_popularity_measures():
  counts = jnp.array([8, 2, 2, 0])
  np.testing.assert_allclose(metrics.self_information(counts, 8), [0.0, 2.0, 2.0, 3.0])
  np.testing.assert_allclose(metrics.popularity_percentile(counts), [7 / 8, 1 / 2, 1 / 2, 1 / 8])


def test_coverage_and_gini():
  assert float(metrics.coverage(jnp.array([3, 0, 1, 0]))) == 0.5
  assert float(metrics.coverage(jnp.array([3, 0, 1, 0]), denominator=8)) == 0.25
  assert float(metrics.gini(jnp.array([5, 5, 5]))) == pytest.approx(0.0, abs=1e-6)
  assert float(metrics.gini(jnp.array([0, 0, 0, 9]))) == pytest.approx(0.75)
  assert float(metrics.gini(jnp.zeros(4, jnp.int32))) == 0.0
  counts = np.array([1, 4, 0, 7, 2])
  naive_gini = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) * counts.sum())
  assert float(metrics.gini(counts)) == pytest.approx(naive_gini, rel=1e-6)


def test_definitions_are_one_line_each():
  for text in [*metrics.DEFINITIONS.values(), *metrics.JUDGED_DEFINITIONS.values()]:
    assert text and "\n" not in text
