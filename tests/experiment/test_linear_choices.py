"""Choices for the linear channel: what is clearly better, and nothing else."""

import numpy as np

from gatrec_jax.experiment.linear_choices import MULTIPLES, choose

OTHERS = [0.25 * multiple for multiple in MULTIPLES]


def values_with(gain_of):
  rng = np.random.default_rng(0)
  base, noise = rng.random(400), rng.normal(size=400)
  return lambda weight: base + gain_of(weight) + 0.1 * noise * (weight != 0.25)


def test_a_clearly_better_weight_is_chosen():
  weight, means = choose(0.25, OTHERS, values_with(lambda w: {1.0: 0.05, 2.0: 0.08}.get(w, 0.0)))
  assert weight == 2.0
  assert means[2.0] - means[0.25] > 0.07
  assert set(means) == {0.25, 0.0, 0.0625, 0.125, 0.5, 1.0, 2.0, 4.0, 16.0}


def test_what_may_be_chance_is_not():
  assert choose(0.25, OTHERS, values_with(lambda w: 0.005 * (w == 1.0)))[0] == 0.25


def test_equal_values_keep_the_configured_weight():
  assert choose(3.0, OTHERS, lambda w: np.ones(5))[0] == 3.0
