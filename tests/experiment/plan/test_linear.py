"""The linear stage against the arrays that the model makes."""

import jax
import numpy as np
import pytest
from helpers.programs import toy_ratings

from gatrec_jax.config.models import EaseConfig, EaseRatedConfig
from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment.plan.linear import linear, weights_of
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import sizes_of_table
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.linear.ridge import EXACT_ITEMS, RidgeRecommender

RATES = Rates(flops=1e9, edges=1e6, softmax=1e6, ranks=1e6, sparse=1e9, rows=1e6, bandwidth=1e9)


def sizes(users, items, ratings):
  return sizes_of_table(get_preset("best"), users=users, items=items, ratings=ratings)


@pytest.mark.parametrize(
  "settings",
  [
    EaseConfig(form="exact"),
    EaseRatedConfig(form="exact"),
    EaseConfig(form="spectral", rank=5, neighbors=3),
    EaseRatedConfig(form="spectral", rank=5, neighbors=3),
  ],
)
def test_bytes_of_the_weights_are_those_that_are_made(settings):
  train = toy_ratings(num_users=12, num_items=9)
  recommender = RidgeRecommender(settings, 12, 9)
  inputs = make_inputs(recommender, train)
  made = jax.eval_shape(recommender.weights, inputs.own)
  count = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(made) if leaf.shape)
  # All eigenvectors are taken where there are few.
  assert weights_of(settings, sizes(12, 9, len(train))).bytes == 4 * count


def test_the_choice_is_that_of_the_model():
  small, large = sizes(5000, EXACT_ITEMS, 10**6), sizes(5000, EXACT_ITEMS + 1, 10**6)
  assert weights_of(EaseConfig(), small).choice == "exact: 1 × 6,000 × 6,000 weights"
  assert weights_of(EaseConfig(rank=64), large).choice == "spectral: 64 eigenvectors, 32 neighbors"


def test_short_histories_are_scored_by_the_weights_of_their_ratings():
  settings, few = EaseConfig(form="exact"), sizes(10**5, 40_000, 10**6)._replace(train=10**6)
  assert weights_of(settings, few).score_flops == 2 * 64 * 10
  assert weights_of(settings, few._replace(train=10**8)).score_flops == 2 * 40_000


def test_an_exact_fit_by_hand():
  one = sizes(10**6, 1000, 50 * 10**6)._replace(train=10**6, pairs=1e12)
  stage = linear(EaseConfig(form="exact"), one, RATES)
  # Dense histories: 2 U I² FLOPs, and I³ for factor and inverse.
  assert stage.work == pytest.approx(2e12 + 1e9) and stage.seconds == pytest.approx(2001.0)
  assert stage.left == 4 * 1000**2 + 12 * 10**6
  two = linear(EaseRatedConfig(form="exact"), one, RATES)
  assert two.work == pytest.approx(3 * 2e12 + 8e9) and two.left == 8 * 1000**2 + 12 * 10**6


def test_a_choice_fits_twice_and_keeps_both_weights():
  large = sizes(10**5, 50_000, 10**7)
  once, twice = (linear(EaseRatedConfig(), large, RATES, chooses=both) for both in (False, True))
  assert twice.seconds == 2 * once.seconds and twice.work == 2 * once.work
  assert twice.peak - once.peak == weights_of(EaseRatedConfig(), large).bytes
  assert twice.left == once.left


def test_elimination_takes_twice_the_operations_of_lapack():
  few, many = sizes(10, 23_000, 1000), sizes(10, 23_001, 1000)
  assert linear(EaseConfig(form="exact"), few, RATES).work == pytest.approx(23_000**3, rel=1e-2)
  assert linear(EaseConfig(form="exact"), many, RATES).work == pytest.approx(
    2 * 23_001**3, rel=1e-2
  )


def test_a_smaller_rank_takes_less():
  large = sizes(10**5, 50_000, 10**7)
  many, few = (linear(EaseRatedConfig(rank=rank), large, RATES) for rank in (256, 64))
  assert few.peak < many.peak and few.left < many.left and few.seconds < many.seconds
