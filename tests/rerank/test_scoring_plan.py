"""How many lists are scored: samples by a time budget, and what is said of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.rerank.candidates import Candidates
from gatrec_jax.rerank.score_cache import CHUNK, Rate
from gatrec_jax.rerank.scoring_plan import plan_scoring, require_sizes, shuffled

RATE = Rate(tokens_per_list=300.0, lists_per_second=0.5)
TEST = np.ones(30, bool)


def plan(valid, *, rate=RATE, users=None, minutes=10.0):
  return plan_scoring(rate, test=TEST, valid=np.array(valid, bool), users=users, minutes=minutes)


def test_the_sample_is_as_large_as_the_time_allows():
  # 10 minutes are 300 lists, and every second user has one to score.
  found = plan([True, False] * 1000)
  assert (found.valid_lists, found.valid_users, found.all_valid_users) == (300, 600, 2000)
  assert found.minutes == pytest.approx((30 + 300) * 2 / 60)


def test_a_number_of_users_is_taken_as_given():
  found = plan([True, True, False, True], users=3)
  assert (found.valid_lists, found.valid_users) == (2, 3)
  assert plan([True, False], users=99).valid_users == 2


def test_a_slow_model_still_scores_a_chunk():
  assert plan([True] * 500, rate=Rate(300.0, 1e-4)).valid_lists == CHUNK


@given(st.lists(st.booleans(), max_size=400), st.floats(0.01, 5.0))
def test_no_sample_exceeds_its_budget(valid, rate):
  found = plan(valid, rate=Rate(1.0, rate), minutes=1.0)
  most = max(CHUNK, int(60 * rate))
  assert found.valid_lists == sum(valid[: found.valid_users]) <= most
  assert found.valid_users == len(valid) or valid[found.valid_users]
  assert found.valid_users == len(valid) or found.valid_lists == most


def test_one_line_says_users_tokens_and_minutes():
  assert plan([True, False] * 1000).says("label by m") == (
    "plan: label by m takes 300 tokens and 2 s a list; 30 test lists (1.0 minutes) and 300 lists "
    "(10.0 minutes) of 600 of 2000 validation users for the weight: 99,000 tokens, 11.0 minutes "
    "unless they are stored already"
  )
  assert "of all 2 validation users" in plan([True, False]).says("x")
  assert "validation" not in plan([]).says("x")


def test_a_sample_is_the_beginning_of_a_random_order():
  items = np.arange(40, dtype=np.int32).reshape(20, 2)
  lists = Candidates(np.arange(20), items, items.astype(float), 2, items > 30, np.ones(20))
  order = shuffled(lists, seed=0).users
  assert sorted(order) == list(range(20)) and list(order) != list(range(20))
  np.testing.assert_array_equal(order, shuffled(lists, seed=0).users)
  np.testing.assert_array_equal(shuffled(lists, seed=0).items[:, 0], 2 * order)


def test_impossible_sizes_are_refused():
  with pytest.raises(InputError, match="valid_users=0: must be at least 1"):
    require_sizes(users=0, minutes=1.0)
  for minutes in (0.0, float("nan")):
    with pytest.raises(InputError, match="minutes=.*: must be above 0"):
      require_sizes(users=None, minutes=minutes)
