"""Several rows of a pair as one, by every rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.data.duplicates import RULES, merge_duplicates

#      pair:  a  b  a  a  b  c
KEYS = np.array([7, 3, 7, 7, 3, 5])
TIMES = np.array([10, 50, 30, 20, 50, 0])
RATINGS = np.array([1, 2, 3, 5, 4, 9], np.float32)


@pytest.mark.parametrize(
  ("rule", "kept", "ratings"),
  [
    ("last", [2, 4, 5], [3, 4, 9]),  # the later row of equal times
    ("first", [0, 1, 5], [1, 2, 9]),
    ("max", [2, 4, 5], [5, 4, 9]),
    ("strongest", [2, 4, 5], [5, 4, 9]),
    ("sum", [2, 4, 5], [9, 6, 9]),
    ("count", [2, 4, 5], [3, 2, 1]),
    ("mean", [2, 4, 5], [3, 3, 9]),
  ],
)
def test_by_hand(rule, kept, ratings):
  rows, rating = merge_duplicates(KEYS, TIMES, RATINGS, rule=rule)
  assert rows.tolist() == kept
  assert rating[rows].tolist() == ratings and rating.dtype == np.float32
  assert RATINGS.tolist() == [1, 2, 3, 5, 4, 9]  # the argument stays


def test_the_strongest_may_be_a_dislike():
  keys, times = np.array([1, 1, 2, 2, 3, 3]), np.arange(6)
  ratings = np.array([1, -2, 5, -2, 2, -2], np.float32)
  rows, rating = merge_duplicates(keys, times, ratings, rule="strongest")
  assert rating[rows].tolist() == [-2, 5, 2]


def test_without_repeats_everything_stays():
  rows, rating = merge_duplicates(KEYS[1:3], TIMES[1:3], RATINGS[1:3], rule="sum")
  assert rows is None and rating.tolist() == [2, 3]
  rows, rating = merge_duplicates(KEYS[1:3], TIMES[1:3], RATINGS[1:3], rule="count")
  assert rows is None and rating.tolist() == [1, 1]


@given(
  rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 5)), min_size=1),
  rule=st.sampled_from(RULES),
)
def test_equals_a_dictionary(rows, rule):
  keys, times, ratings = (np.array(column) for column in zip(*rows, strict=True))
  kept, merged = merge_duplicates(keys, times, ratings.astype(np.float32), rule=rule)
  kept = np.arange(len(rows)) if kept is None else kept
  groups = {}
  for place, (key, time, rating) in enumerate(rows):
    groups.setdefault(key, []).append((time, place, rating))
  assert sorted(keys[kept].tolist()) == sorted(groups)
  for row in kept:
    group = sorted(groups[keys[row]])
    values = [rating for *_, rating in group]
    expected = {
      "last": values[-1],
      "first": values[0],
      "max": max(values),
      "strongest": max(values, key=abs),
      "sum": sum(values),
      "count": len(values),
      "mean": sum(values) / len(values),
    }[rule]
    assert merged[row] == np.float32(expected)
    assert row == group[0 if rule == "first" else -1][1]
