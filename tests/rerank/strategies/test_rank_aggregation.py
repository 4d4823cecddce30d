"""Overlapping batches, Borda counts and TrueSkill, checked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gatrec_jax.rerank.strategies.rank_aggregation import (
  DEVIATION,
  NOISE,
  SKILL,
  borda,
  overlapping,
  true_skill,
)


def test_batches_by_hand():
  assert [list(one) for one in overlapping(8, 5, 3)] == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
  assert [one.start for one in overlapping(20, 5, 3)] == [0, 3, 6, 9, 12, 15]
  assert [one.start for one in overlapping(9, 5, 2)] == [0, 2, 4]
  assert [list(one) for one in overlapping(6, 5, 3)] == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]
  assert [list(one) for one in overlapping(5, 5, 3)] == [[0, 1, 2, 3, 4]]
  assert [list(one) for one in overlapping(2, 5, 3)] == [[0, 1]]


@given(st.integers(1, 60), st.integers(2, 8), st.data())
def test_batches_overlap_and_cover(count, size, data):
  stride = data.draw(st.integers(1, size - 1))
  batches = overlapping(count, size, stride)
  assert {place for batch in batches for place in batch} == set(range(count))
  assert all(len(batch) == min(size, count) for batch in batches)
  for one, other in zip(batches, batches[1:], strict=False):
    assert set(one) & set(other) and one.start < other.start


def test_borda_by_hand():
  # 2 is first of three and second of two: (1 + 0) / 2; 0 is last of three.
  points = borda([[2, 1, 0], [3, 2]], 5)
  np.testing.assert_allclose(points, [0, 0.5, 0.5, 1, 0])
  assert points.dtype == np.float32
  np.testing.assert_allclose(borda([[0]], 1), [0.5])


def test_one_game_of_true_skill_by_the_formulas():
  spread = math.sqrt(2 * NOISE**2 + 2 * DEVIATION**2)
  shift = stats.norm.pdf(0) / stats.norm.cdf(0)
  expected = SKILL + DEVIATION**2 / spread * shift
  means = true_skill([[1, 0]], 3)
  np.testing.assert_allclose(means, [2 * SKILL - expected, expected, SKILL], rtol=1e-6)
  # The values in the TrueSkill paper: 29.2 and 20.8 after one game.
  np.testing.assert_allclose(means[:2], [20.795, 29.205], atol=2e-3)


def test_a_second_game_starts_from_the_result_of_the_first():
  spread = math.sqrt(2 * NOISE**2 + 2 * DEVIATION**2)
  gain = DEVIATION**2 / spread * stats.norm.pdf(0) / stats.norm.cdf(0)
  won = SKILL + gain
  narrow = DEVIATION**2 * (1 - DEVIATION**2 / spread**2 * (2 / math.pi))
  # Candidate 1, the winner against 0, loses against 2, which has not played before.
  spread = math.sqrt(2 * NOISE**2 + narrow + DEVIATION**2)
  surprise = (SKILL - won) / spread
  shift = stats.norm.pdf(surprise) / stats.norm.cdf(surprise)
  expected = [SKILL - gain, won - narrow / spread * shift, SKILL + DEVIATION**2 / spread * shift]
  np.testing.assert_allclose(true_skill([[1, 0], [2, 1]], 3), expected, rtol=1e-6)


@pytest.mark.parametrize("merge", (borda, true_skill))
@given(st.permutations(range(12)))
def test_consistent_rankings_are_merged_into_their_order(merge, truth):
  rank = np.argsort(truth)
  rankings = [sorted(batch, key=lambda place: rank[place]) for batch in overlapping(12, 5, 3)]
  scores = merge(rankings, 12)
  assert np.isfinite(scores).all() and scores.shape == (12,)
  # A single ranking of all 12 is returned exactly.
  assert np.argsort(-merge([list(truth)], 12)).tolist() == list(truth)


def test_scores_stay_finite_after_a_thousand_defeats():
  means = true_skill([[1, 0]] * 1000 + [[0, 1]], 2)
  assert np.isfinite(means).all() and means[1] > means[0]
