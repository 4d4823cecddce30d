"""Paired comparisons: hand-solved values, calibration on simulated users, edge cases."""

import numpy as np
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.evaluation import bootstrap_intervals
from gatrec_jax.evaluate.significance import (
  Difference,
  _expanded_level,
  holm,
  non_inferior,
  paired_difference,
  sign_flip_p_value,
)

NAN = float("nan")


def test_two_users_by_hand():
  # Differences .1 and .3: the bootstrap means are .1, .2, .2, .3, so the outer 2.5 % lie at both
  # ends; of the four sign choices two have a sum as far from 0 as .4.
  found = paired_difference(np.array([0.3, 0.8]), np.array([0.2, 0.5]))
  assert found.mean == pytest.approx(0.2) and found.n == 2
  assert (found.lo, found.hi) == (pytest.approx(0.1), pytest.approx(0.3))
  assert found.p_value == 0.5
  assert found.relative == pytest.approx(0.2 / 0.35)
  assert found.says(2) == "+0.20 [+0.10, +0.30]"


def test_sign_flips_by_hand():
  # 4 + 2 + 1 − 1: sums of |6| or more are ±(4 2 1 1) = 8, ±(4 2 ±(1 −1)) = 6: 2 · 3 of 16.
  assert sign_flip_p_value(np.array([4.0, 2.0, 1.0, -1.0]), num_resamples=16, seed=0) == 6 / 16
  # Zeros change nothing, so that all choices can still be counted.
  padded = np.array([0.0, 4.0, 0.0, 2.0, 1.0, -1.0])
  assert sign_flip_p_value(padded, num_resamples=16, seed=0) == 6 / 16
  drawn = sign_flip_p_value(np.array([4.0, 2.0, 1.0, -1.0] * 2), num_resamples=255, seed=0)
  exact = sign_flip_p_value(np.array([4.0, 2.0, 1.0, -1.0] * 2), num_resamples=256, seed=0)
  assert 0 < exact < 1 and drawn == pytest.approx(exact, abs=0.1)


def test_equal_rounding_is_no_difference_in_distance():
  # .1 + .2 and .3 differ in floating point; all eight choices are found at distances 0 and .6.
  assert sign_flip_p_value(np.array([0.1, 0.2, -0.3]), num_resamples=8, seed=0) == 1.0


def test_users_of_one_system_alone_do_not_count():
  a, b = np.array([1.0, NAN, 0.5, 0.0]), np.array([0.5, 1.0, NAN, 0.25])
  found = paired_difference(a, b)
  assert found == paired_difference(a[[0, 3]], b[[0, 3]])
  assert (found.n, found.mean) == (2, 0.125)


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_nobody_shows_nothing(values):
  found = paired_difference(np.array(values, float), np.zeros(len(values)))
  assert found == Difference(0.0, None, None, 0, 1.0, None)
  assert not non_inferior(found, 1.0)
  assert found.says() == "+0.0000"


def test_one_user_shows_nothing_of_the_spread():
  found = paired_difference(np.array([0.9]), np.array([0.1]))
  assert found.mean == pytest.approx(0.8) and found.lo is None and found.p_value == 1.0
  assert not non_inferior(found, 0.1)


def test_equal_systems_differ_by_exactly_nothing():
  values = np.random.default_rng(0).random(50)
  found = paired_difference(values, values)
  assert (found.mean, found.lo, found.hi, found.p_value, found.relative) == (0, 0, 0, 1, 0)
  assert non_inferior(found, 0.001) and not non_inferior(found, 0.0)
  assert paired_difference(values, np.zeros(50)).relative is None


def test_exchanging_the_systems_turns_the_signs():
  rng = np.random.default_rng(1)
  a, b = rng.random((2, 40))
  one, other = paired_difference(a, b), paired_difference(b, a)
  assert one.mean == -other.mean and one.p_value == other.p_value
  assert one.lo == pytest.approx(-other.hi) and one.hi == pytest.approx(-other.lo)
  assert one == paired_difference(a, b)
  narrow = paired_difference(a, b, level=0.5)
  assert one.lo < narrow.lo < narrow.mean < narrow.hi < one.hi


def test_non_inferiority_is_about_the_lower_end():
  difference = Difference(0.001, -0.0019, 0.004, 100, 0.5, None)
  assert non_inferior(difference, 0.002)
  assert not non_inferior(difference, 0.0019)
  with pytest.raises(InputError, match="margin"):
    non_inferior(difference, -0.001)


def test_intervals_and_p_values_hold_their_level():
  # Per-user gains as they are: three users in four see none, the rest are skewed; true mean 0.
  rng = np.random.default_rng(2)
  covered = rejected = above = 0
  rounds = 400
  for trial in range(rounds):
    gains = np.where(rng.random(150) < 0.25, rng.gamma(2.0, 0.1, 150) - 0.2, 0.0)
    found = paired_difference(gains, np.zeros(150), num_resamples=400, seed=trial)
    covered += found.lo <= 0 <= found.hi
    above += found.lo > 0
    rejected += found.p_value <= 0.05
  # Binomial standard error of 5 % over 400 rounds: 1.1 points.
  assert 0.92 <= covered / rounds <= 0.98
  assert above / rounds <= 0.045
  assert 0.02 <= rejected / rounds <= 0.08


def test_intervals_of_few_users_are_widened():
  """Of normal values of 6 users a percentile interval misses 2·P(t₅ > 1.96·√(5/6)) = 13.4 %."""
  rng = np.random.default_rng(5)
  rounds, missed, plain_missed = 800, 0, 0
  for trial in range(rounds):
    values = rng.normal(size=6)
    found = paired_difference(values, np.zeros(6), num_resamples=500, seed=trial)
    lo, hi = bootstrap_intervals(values[:, None], num_resamples=500, seed=trial)
    assert found.lo < lo[0] and hi[0] < found.hi
    missed += not found.lo <= 0 <= found.hi
    plain_missed += not lo[0] <= 0 <= hi[0]
  # Over 4,000 rounds 6.4 and 13.1 %: more than three standard errors on both sides.
  assert missed / rounds < 0.095 < plain_missed / rounds


def test_the_expanded_level_by_hand():
  # n = 2: t(1 degree) at 2.5 % is −12.706, times √2 = −17.97: the whole range is left.
  assert _expanded_level(0.95, 2) == 1.0
  # n = 10: √(10/9) · −2.2622 = −2.3846, below which lies .85 % of a normal distribution.
  assert _expanded_level(0.95, 10) == pytest.approx(1 - 2 * 0.00855, abs=1e-4)
  assert _expanded_level(0.95, 10**7) == pytest.approx(0.95, abs=1e-6)


def test_a_true_gain_is_found():
  rng = np.random.default_rng(3)
  base = rng.random(400)
  found = paired_difference(base + rng.normal(0.02, 0.1, 400), base)
  assert found.lo > 0 and found.p_value < 0.01


def test_holm_by_hand():
  # Ascending .01 · 4, .02 · 3, .03 · 2 (raised to .06 before it), .5 · 1.
  assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
  assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
  assert holm([0.04]).tolist() == [0.04]
  assert holm([]).shape == (0,)
  for bad in ([0.5, 1.1], [NAN], [-0.1], [[0.1]]):
    with pytest.raises(InputError, match="p-values"):
      holm(bad)


@pytest.mark.parametrize(
  ("a", "b", "settings"),
  [
    (np.zeros(3), np.zeros(2), {}),
    (np.zeros((3, 1)), np.zeros((3, 1)), {}),
    (np.array([np.inf]), np.zeros(1), {}),
    (np.zeros(3), np.zeros(3), {"level": 1.0}),
    (np.zeros(3), np.zeros(3), {"num_resamples": 0}),
  ],
)
def test_wrong_calls_are_refused(a, b, settings):
  with pytest.raises(InputError):
    paired_difference(a, b, **settings)


def test_effect_and_verdict_by_hand():
  found = paired_difference(np.array([0.3, 0.5, 0.4]), np.array([0.2, 0.3, 0.1]))
  assert found.effect == pytest.approx(0.2 / 0.1)  # differences .1, .2, .3
  assert found.verdict == "ahead"
  assert Difference(-0.1, -0.2, -0.05, 9, 0.01, None).verdict == "behind"
  assert Difference(0.1, -0.01, 0.2, 9, 0.07, None).verdict == "not separated"
  assert Difference(0.1, None, None, 1, 1.0, None).verdict == "not separated"
