"""Raw columns to vocabularies and dense indices."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.data.interactions import (
  Interactions,
  build_interactions,
  catalog_order,
  distinct,
  pair_keys,
)
from gatrec_jax.errors import InputError


def build(user, item, rating=None, timestamp=None, **settings):
  rating = np.ones(len(user)) if rating is None else rating
  timestamp = np.zeros(len(user), dtype=int) if timestamp is None else timestamp
  return build_interactions(user, item, rating, timestamp, **settings)


def test_solved_by_hand():
  interactions, notes = build([10, 9, 10], ["b", "a", "c"], [3, 4.5, 1], [5, 6, 7])
  assert interactions.user_ids == ("9", "10")
  assert interactions.item_ids == ("a", "b", "c")
  np.testing.assert_array_equal(interactions.user, [1, 0, 1])
  np.testing.assert_array_equal(interactions.item, [1, 0, 2])
  np.testing.assert_array_equal(interactions.rating, np.float32([3, 4.5, 1]))
  np.testing.assert_array_equal(interactions.timestamp, [5, 6, 7])
  dtypes = [interactions.user.dtype, interactions.item.dtype, interactions.rating.dtype]
  assert dtypes == [np.int32, np.int32, np.float32]
  assert interactions.timestamp.dtype == np.int64
  assert notes == {}


def test_given_vocabulary_is_united_with_the_ids_that_occur():
  interactions, _ = build([3, 30], [1, 2], user_ids=["4", 100], item_ids=[])
  assert interactions.user_ids == ("3", "4", "30", "100")
  np.testing.assert_array_equal(interactions.user, [0, 2])


def test_order_is_numeric_only_where_all_ids_are_integers():
  assert catalog_order([10, "9", -1]) == ("-1", "9", "10")
  assert catalog_order(["10", "9", "x"]) == ("10", "9", "x")
  assert catalog_order(["007", "10", "7"]) == ("007", "10", "7")


def test_of_duplicates_the_latest_by_time_then_by_row_stays():
  interactions, notes = build(
    ["a", "a", "b", "a", "b"], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [9, 20, 7, 8, 7]
  )
  np.testing.assert_array_equal(interactions.rating, [2, 5])
  np.testing.assert_array_equal(interactions.user, [0, 1])
  assert notes == {"duplicate ratings dropped": 3}


@pytest.mark.parametrize(
  "column",
  [
    [3, 1, 3],
    np.array([3, 1, 3], dtype=np.uint16),
    np.array([3.0, 1.0, 3.0]),
    np.array([3, 1, 3], dtype=object),
    pa.array(["3", "1", "3"], type=pa.large_string()),
    pa.chunked_array([pa.array([3]), pa.array([1, 3])]),
    pa.chunked_array([pa.array(part).dictionary_encode() for part in (["3"], ["1", "3"])]),
    # "99" stands in the dictionary and in no row
    pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(["1", "99", "3"])),
  ],
)
def test_every_kind_of_column_gives_the_same(column):
  interactions, _ = build(column, np.array(["x", "y", "z"]))
  assert interactions.user_ids == ("1", "3")
  np.testing.assert_array_equal(interactions.user, [1, 0, 1])


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    (dict(user=[], item=[]), "no interactions"),
    (dict(user=[1, 2], item=[1]), "differ in length"),
    (dict(user=[1, "x1"], item=[1, 2]), r"user id: mixed types, 1 in row 0 .* 'x1' in row 1"),
    (dict(user=[1, True], item=[1, 2]), "True in row 1"),
    (dict(user=[1, 2], item=[1, None]), "item id: None in row 1"),
    (dict(user=pa.array([1, None]), item=[1, 2]), "user id: missing in row 1"),
    (dict(user=np.array([1.5, 2]), item=[1, 2]), "user id: not all are whole numbers"),
    (dict(user=np.array([1, np.nan]), item=[1, 2]), "user id: not all are whole numbers"),
    (dict(user=np.array([True, False]), item=[1, 2]), "user id: type bool"),
    (dict(user=["a", " "], item=[1, 2]), "user id: some are empty"),
    (dict(user=[1, 2], item=[1, 2], rating=[1, np.nan]), "rating: nan in row 1"),
    (dict(user=[1, 2], item=[1, 2], rating=[np.inf, 1]), "rating: inf in row 0"),
    (dict(user=[1, 2], item=[1, 2], rating=np.array([1, 1e39])), "rating: 1e.39 in row 1"),
    (dict(user=[1, 2], item=[1, 2], rating=["1", "2"]), "rating: type"),
    (dict(user=[1, 2], item=[1, 2], timestamp=[0, 1_600_000_000_000]), "not milliseconds"),
    (dict(user=[1, 2], item=[1, 2], timestamp=[0, np.nan]), "timestamp: nan in row 1"),
  ],
)
def test_bad_columns_are_named(columns, message):
  with pytest.raises(InputError, match=message) as caught:
    build(**columns, source="mine.csv")
  assert str(caught.value).startswith("mine.csv: ")
  assert "\n" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(
  rows=st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 3), st.integers(1, 5), st.integers(0, 4)),
    min_size=1,
    max_size=30,
  )
)
def test_each_pair_is_kept_once_and_is_its_latest(rows):
  interactions, notes = build(*(list(column) for column in zip(*rows, strict=True)))
  latest = {}
  for user, item, rating, time in rows:
    if (user, item) not in latest or time >= latest[user, item][1]:
      latest[user, item] = (rating, time)
  found = {
    (int(interactions.user_ids[u]), int(interactions.item_ids[i])): (r, t)
    for u, i, r, t in zip(
      interactions.user, interactions.item, interactions.rating, interactions.timestamp, strict=True
    )
  }
  assert found == latest
  assert len(np.unique(pair_keys(interactions))) == len(interactions)
  assert notes.get("duplicate ratings dropped", 0) == len(rows) - len(latest)


def test_arrays_may_lack_ratings_and_times():
  rows = Interactions.from_arrays(["b", "a", "b"], [1, 1, 1])
  assert rows.user_ids == ("a", "b") and len(rows) == 2
  assert rows.rating.tolist() == [1.0, 1.0] and rows.timestamp.tolist() == [0, 0]


def test_indices_keep_their_places():
  rows = Interactions.from_indices(
    np.array([10, 2]), np.array([0, 11]), [3, 4], [7, 8], num_users=12, num_items=12
  )
  assert rows.user.tolist() == [10, 2] and rows.item.tolist() == [0, 11]
  assert rows.user_ids == tuple(map(str, range(12))) == rows.item_ids
  for user, item, field in (([12], [0], "user"), ([-1], [0], "user"), ([0], [12], "item")):
    with pytest.raises(InputError, match="must lie in 0…11") as caught:
      Interactions.from_indices(user, item, num_users=12, num_items=12)
    assert caught.value.field == field


@given(st.lists(st.integers(-3, 3)), st.sampled_from([np.int32, np.int64, np.float64]))
def test_distinct_values_are_those_of_numpy(values, kind):
  values = np.array(values, kind)
  found = distinct(values)
  assert found.dtype == kind
  np.testing.assert_array_equal(found, np.unique(values))


def test_a_column_of_one_value_takes_no_memory():
  rows = Interactions.from_indices([0, 1, 2], [0, 1, 2], [5, 5, 5], num_users=3, num_items=3)
  for part in (rows, rows.take(np.array([0, 2]))):
    assert part.rating.strides == part.timestamp.strides == (0,)
    assert part.rating.tolist() == [5.0] * len(part) and part.timestamp.dtype == np.int64
  mixed = Interactions.from_indices([0, 1, 2], [0, 1, 2], [5, 4, 5], num_users=3, num_items=3)
  assert mixed.rating.tolist() == [5.0, 4.0, 5.0] and mixed.rating.strides == (4,)
  assert mixed.take(np.array([0, 2])).rating.tolist() == [5.0, 5.0]
