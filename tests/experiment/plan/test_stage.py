"""What a plan adds up."""

import pytest

from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment.plan.sizes import sizes_of_table
from gatrec_jax.experiment.plan.stage import BASE_BYTES, Plan, Stage

SIZES = sizes_of_table(get_preset("ease"), users=10, items=10, ratings=50)


def stage(name, peak, left, seconds=None):
  return Stage(name, "", peak, left, 1.0, "rows", seconds)


def test_a_stage_has_what_earlier_ones_left_and_not_their_peaks():
  plan = Plan((stage("a", 1000, 10), stage("b", 300, 200), stage("c", 50, 0)), SIZES)
  assert [memory - BASE_BYTES for memory in plan.memory] == [1000, 310, 260]
  assert plan.peak == BASE_BYTES + 1000 and plan.largest.name == "a"


def test_the_programs_of_a_stage_stay():
  plan = Plan((stage("graph", 0, 0), stage("training", 0, 0), stage("other", 0, 0)), SIZES)
  graph, training, other = (memory - BASE_BYTES for memory in plan.memory)
  assert 0 < graph < training == other


def test_times_are_added_where_there_are_any():
  assert Plan((stage("a", 0, 0), stage("b", 0, 0)), SIZES).seconds is None
  assert Plan((stage("a", 0, 0, 2.0), stage("b", 0, 0, 3.5)), SIZES).seconds == 5.5


def test_as_json_the_stages_have_names():
  tree = Plan((stage("a", 5 << 20, 0, 2.0),), SIZES).to_json()["stages"]
  assert tree["a"]["memory_mb"] == (BASE_BYTES >> 20) + 5 and tree["a"]["seconds"] == 2.0


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_fewer_users_have_as_long_histories(share):
  sizes = sizes_of_table(get_preset("best"), users=1000, items=300, ratings=20_000)
  fewer = sizes.of_users(share)
  assert fewer.users == 1000 * share and fewer.items == 300 and fewer.train == sizes.train * share
  assert fewer.pairs == pytest.approx(sizes.pairs * share) and fewer.longest == sizes.longest
