"""Draws of items for a sampled softmax: their probabilities, exactly and as observed."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.ops.candidate_sampling import draw_items, inclusion_units


def units_of(weight, size):
  return inclusion_units(np.asarray(weight, float), size=size)


def test_probabilities_by_hand():
  # Item 0 would have 8/10 · 2 > 1, so it is certain; the others share the one draw that is left.
  assert (units_of([8, 1, 1, 0], 2) / 2**29).tolist() == [1.0, 0.5, 0.5, 0.0]
  assert (units_of([1, 1, 1, 1], 1) / 2**30).tolist() == [0.25] * 4


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60).filter(any), st.integers(1, 40))
def test_they_sum_to_the_size_and_are_in_proportion_up_to_1(weight, size):
  weight = np.array(weight, float)
  units, unit = units_of(weight, size), 2**30 // size
  assert units.sum() == min(size, np.count_nonzero(weight)) * unit
  assert units.max() <= unit and (units[weight == 0] == 0).all()
  certain = units == unit
  rest = (weight > 0) & ~certain
  if rest.any():
    ratio = units[rest] / weight[rest]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-2, atol=1 / weight[rest].min())
    assert weight[rest].max() <= weight[certain].min(initial=np.inf)


def test_each_item_is_drawn_as_often_as_its_probability_says():
  weight = np.random.default_rng(0).zipf(1.5, 50).clip(0, 500).astype(float)
  weight[:5] = 0
  units = jax.device_put(units_of(weight, 12))
  drawn = jax.vmap(lambda key: draw_items(key, units, size=12))(
    jax.random.split(jax.random.key(0), 4000)
  )
  items = np.asarray(drawn.items)
  assert all(len(set(row)) == 12 for row in items.tolist())
  probability = np.asarray(units) / (2**30 // 12)
  np.testing.assert_allclose(
    np.bincount(items.ravel(), minlength=50) / 4000, probability, atol=0.03
  )
  np.testing.assert_allclose(np.exp(drawn.log_probability), probability[items], rtol=1e-5)


def test_a_sum_is_estimated_without_bias():
  value = np.random.default_rng(1).normal(size=40) ** 2
  units = jax.device_put(units_of(np.arange(1, 41), 10))
  drawn = jax.vmap(lambda key: draw_items(key, units, size=10))(
    jax.random.split(jax.random.key(1), 4000)
  )
  estimates = (value[np.asarray(drawn.items)] / np.exp(drawn.log_probability)).sum(axis=1)
  error = estimates.std() / np.sqrt(len(estimates))
  assert abs(estimates.mean() - value.sum()) < 4 * error


def test_with_fewer_items_than_draws_all_are_drawn_and_the_rest_is_padding():
  drawn = draw_items(jax.random.key(3), jax.device_put(units_of([0, 2, 0, 5, 1], 8)), size=8)
  counted = np.isfinite(drawn.log_probability)
  assert sorted(np.asarray(drawn.items)[counted].tolist()) == [1, 3, 4]
  assert np.asarray(drawn.log_probability)[counted].tolist() == pytest.approx([0, 0, 0])
