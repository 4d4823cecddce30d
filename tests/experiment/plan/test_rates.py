"""Rates are measured."""

import math

from gatrec_jax.experiment.plan.rates import measure_rates


def test_rates_are_numbers_that_machines_have():
  rates = measure_rates()
  assert all(math.isfinite(rate) and 1e3 < rate < 1e16 for rate in rates)
  assert rates.flops > rates.softmax > 0
