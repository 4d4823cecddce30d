"""Splits: complete, disjoint, seeded, and blind to what they must not see."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.data.interactions import build_interactions
from gatrec_jax.data.splits import KINDS, carve_validation, split_interactions
from gatrec_jax.errors import InputError


def make(num_rows=400, num_users=30, num_items=40, seed=0, text_ids=False):
  random = np.random.default_rng(seed)
  pairs = random.choice(num_users * num_items, size=num_rows, replace=False)
  user, item = (pairs // num_items).tolist(), (pairs % num_items).tolist()
  if text_ids:
    user = [f"u{index}" for index in user]
  times = random.integers(1, 50, num_rows)
  return build_interactions(user, item, random.integers(1, 6, num_rows), times)[0]


def options(interactions, kind):
  every_fifth = (interactions.user + interactions.item) % 5 == 0
  return dict(kind=kind, fold="2", test_rows=every_fifth if kind == "shipped" else None)


def pairs(interactions, rows):
  """The raw (user, item) of `rows`, in any order."""
  return {
    (interactions.user_ids[u], interactions.item_ids[i])
    for u, i in zip(interactions.user[rows], interactions.item[rows], strict=True)
  }


def parts(interactions, split):
  return [pairs(interactions, rows) for rows in (split.train, split.valid, split.test)]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(
  seed=st.integers(0, 5),
  test_share=st.sampled_from([0.1, 0.2, 0.5]),
  valid_share=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_complete_disjoint_repeatable_and_blind_to_the_order_of_rows(
  kind, seed, test_share, valid_share
):
  interactions = make(seed=seed)
  chosen = dict(test_share=test_share, valid_share=valid_share, split_seed=seed, valid_seed=seed)
  split = split_interactions(interactions, **options(interactions, kind), **chosen)
  together = np.concatenate([split.train, split.valid, split.test])
  np.testing.assert_array_equal(np.sort(together), np.arange(len(interactions)))
  for rows in (split.train, split.valid, split.test):
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, np.sort(rows))
  remaining = len(split.train) + len(split.valid)
  if kind in ("shipped", "random", "kfold", "cold_users", "none") or not valid_share:
    assert len(split.valid) == round(valid_share * remaining)
  else:
    assert 0 < len(split.valid) < remaining

  shuffled = interactions.take(np.random.default_rng(seed).permutation(len(interactions)))
  again = split_interactions(shuffled, **options(shuffled, kind), **chosen)
  assert parts(shuffled, again) == parts(interactions, split)


@pytest.mark.parametrize("kind", ["random", "per_user", "cold_users", "cold_items"])
def test_seeds_choose_the_parts_they_name(kind):
  interactions = make()
  first = split_interactions(interactions, kind=kind)
  other = split_interactions(interactions, kind=kind, split_seed=1)
  assert set(first.test) != set(other.test)
  validated = split_interactions(interactions, kind=kind, valid_seed=1)
  assert set(first.test) == set(validated.test)
  assert set(first.valid) != set(validated.valid)


def test_shares_solved_by_hand():
  interactions = make()
  assert len(split_interactions(interactions, kind="random", test_share=0.25).test) == 100
  users = split_interactions(interactions, kind="cold_users", test_share=0.1)
  assert len(set(interactions.user[users.test])) == 3
  assert not set(interactions.user[users.test]) & set(interactions.user[users.train])
  items = split_interactions(interactions, kind="cold_items", test_share=0.1)
  assert len(set(interactions.item[items.test])) == 4
  assert not set(interactions.item[items.test]) & set(interactions.item[items.valid])


def test_per_user_rounds_each_user_and_leaves_at_least_one():
  user = [0] * 10 + [1] * 1 + [2] * 2 + [3] * 3
  interactions, _ = build_interactions(user, list(range(16)), [1] * 16, [0] * 16)
  split = split_interactions(interactions, kind="per_user", test_share=0.5, valid_share=0)
  assert np.bincount(interactions.user[split.test], minlength=4).tolist() == [5, 0, 1, 2]
  high = split_interactions(interactions, kind="per_user", test_share=0.99, valid_share=0)
  assert np.bincount(interactions.user[high.train], minlength=4).tolist() == [1, 1, 1, 1]


def test_the_folds_of_kfold_are_equal_parts_of_all():
  interactions = make(num_rows=403)
  tests = [
    split_interactions(interactions, kind="kfold", test_share=0.2, fold=str(part + 1)).test
    for part in range(5)
  ]
  assert sorted(np.concatenate(tests)) == list(range(403))
  assert sorted(map(len, tests)) == [80, 80, 81, 81, 81]


def test_temporal_cuts_between_seconds_nearest_to_the_share():
  times = [1, 1, 2, 3, 3, 3, 3, 3, 4, 5]
  interactions, _ = build_interactions(list(range(10)), [0] * 10, [1] * 10, times)
  split = split_interactions(interactions, kind="temporal", test_share=0.2, valid_share=0)
  assert split.test.tolist() == [8, 9]
  split = split_interactions(interactions, kind="temporal", test_share=0.3, valid_share=0)
  assert split.test.tolist() == [8, 9]
  split = split_interactions(interactions, kind="temporal", test_share=0.6, valid_share=0)
  assert split.test.tolist() == [3, 4, 5, 6, 7, 8, 9]
  split = split_interactions(interactions, kind="temporal", test_share=0.95, valid_share=0)
  assert split.test.tolist() == list(range(2, 10))


def test_leave_last_takes_the_latest_of_users_with_two():
  interactions, _ = build_interactions(
    [0, 0, 0, 1, 2, 2], list("abcabc"), [1] * 6, [5, 9, 7, 3, 2, 1]
  )
  split = split_interactions(interactions, kind="leave_last", valid_share=0)
  assert split.test.tolist() == [1, 4]


def history(*rows):
  """Interactions of rows (user, item, time)."""
  user, item, times = zip(*rows, strict=True)
  return build_interactions(list(user), list(item), [1] * len(rows), list(times))[0]


def test_next_items_are_the_two_latest_of_users_with_three():
  three = [("a", "x", 5), ("a", "y", 9), ("a", "z", 7), ("a", "w", 2)]
  interactions = history(*three, ("b", "x", 3), ("b", "y", 4), ("c", "z", 1))
  split = split_interactions(interactions, kind="next_item")
  assert (split.test.tolist(), split.valid.tolist()) == ([1], [2])
  other = split_interactions(interactions, kind="next_item", valid_share=0.9, valid_seed=3)
  assert other.valid.tolist() == [2]
  whole = split_interactions(interactions, kind="next_item", valid_share=0)
  assert (whole.test.tolist(), whole.valid.tolist()) == ([1, 5], [])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), valid_share=st.sampled_from([0.0, 0.1]))
def test_next_items_follow_each_other_in_time(seed, valid_share):
  interactions = make(num_rows=120, seed=seed)  # four rows a user, with equal times among them
  interactions = dataclasses.replace(interactions, timestamp=interactions.timestamp % 7)
  split = split_interactions(
    interactions, kind="next_item", split_seed=seed, valid_share=valid_share
  )
  counts = np.bincount(interactions.user)
  assert len(split.test) == (counts >= (3 if valid_share else 2)).sum()
  for user in interactions.user[split.test]:
    of_user = [
      np.sort(interactions.timestamp[rows[interactions.user[rows] == user]])
      for rows in (split.train, split.valid, split.test)
    ]
    train, valid, test = of_user
    assert (len(valid), len(test)) == (bool(valid_share), 1)
    together = np.concatenate(of_user)
    np.testing.assert_array_equal(together, np.sort(together))
  without = np.setdiff1d(interactions.user, interactions.user[split.test])
  assert np.isin(without, interactions.user[split.train]).all()


def test_the_seed_decides_between_equal_times():
  interactions = history(*[("a", item, 1) for item in "wxyz"], ("b", "x", 2))
  parts_of = {
    tuple(split.valid) + tuple(split.test)
    for seed in range(40)
    for split in [split_interactions(interactions, kind="next_item", split_seed=seed)]
  }
  assert len(parts_of) > 6 and all(valid != test for valid, test in parts_of)


def test_validation_rows_are_the_latest_where_test_rows_are():
  times = [1, 1, 2, 3, 3, 4, 5, 6, 7, 8]
  interactions = history(*[(user, "x", time) for user, time in enumerate(times)])
  split = split_interactions(interactions, kind="temporal", test_share=0.2, valid_share=0.25)
  assert (split.valid.tolist(), split.test.tolist()) == ([6, 7], [8, 9])
  rows = [(user, item, 3 * user + item) for user in range(4) for item in range(3)]
  interactions = history(*rows, (4, 0, 9), (4, 1, 1))
  latest = {1, 4, 7, 10}  # before the rows of the test; the fifth user has one row left
  for share, count in ((0.25, 2), (0.9, 4)):
    found = [
      split_interactions(interactions, kind="leave_last", valid_share=share, valid_seed=seed)
      for seed in range(20)
    ]
    assert {len(split.valid) for split in found} == {count}
    assert {row for split in found for row in split.valid} == latest


def test_validation_rows_are_of_each_user_or_of_whole_items_where_test_rows_are():
  user = np.repeat([0, 1, 2], [20, 10, 1])
  interactions, _ = build_interactions(user, list(range(31)), [1] * 31, [0] * 31)
  split = split_interactions(interactions, kind="per_user", test_share=0.5, valid_share=0.2)
  assert np.bincount(interactions.user[split.valid], minlength=3).tolist() == [2, 1, 0]
  interactions = make()
  split = split_interactions(interactions, kind="cold_items", test_share=0.1, valid_share=0.25)
  items = [set(interactions.item[rows]) for rows in (split.train, split.valid, split.test)]
  assert [len(one) for one in items] == [27, 9, 4] and len(set.union(*items)) == 40


@pytest.mark.parametrize("text_ids", [False, True])
def test_validation_does_not_see_the_test_rows(text_ids):
  """Deleting, permuting or altering the test rows leaves train and valid as they were."""
  interactions = make(text_ids=text_ids)
  is_test = np.random.default_rng(3).random(len(interactions)) < 0.3
  split = split_interactions(interactions, kind="shipped", test_rows=is_test)
  expected = parts(interactions, split)
  test_rows, train_rows = np.flatnonzero(is_test), np.flatnonzero(~is_test)

  def rebuilt(rows, replace_test_ids=None):
    """The interactions of `rows` with vocabularies that hold nothing but what occurs there."""
    user = [interactions.user_ids[u] for u in interactions.user[rows]]
    item = [interactions.item_ids[i] for i in interactions.item[rows]]
    if replace_test_ids:
      item = [replace_test_ids + i if t else i for i, t in zip(item, is_test[rows], strict=True)]
    built, _ = build_interactions(user, item, np.ones(len(rows)), np.zeros(len(rows), dtype=int))
    return built, is_test[rows]

  for rows in (
    np.concatenate([train_rows, test_rows[:1]]),  # all but one deleted
    np.concatenate([train_rows, test_rows[::2]]),  # half deleted
    np.concatenate([test_rows[::-1], train_rows]),  # permuted, and put first
    np.concatenate([test_rows, train_rows[::-1]]),  # the file's order reversed
  ):
    built, marks = rebuilt(rows)
    split = split_interactions(built, kind="shipped", test_rows=marks)
    assert parts(built, split)[:2] == expected[:2]
  # Ids that are no numbers, in test rows alone, turn the whole catalog to the order of text.
  built, marks = rebuilt(np.arange(len(interactions)), replace_test_ids="x")
  split = split_interactions(built, kind="shipped", test_rows=marks)
  assert parts(built, split)[:2] == expected[:2]
  altered = dataclasses.replace(
    interactions,
    rating=np.where(is_test, 1, interactions.rating).astype(np.float32),
    timestamp=np.where(is_test, 0, interactions.timestamp),
  )
  assert parts(altered, split_interactions(altered, kind="shipped", test_rows=is_test)) == expected


@pytest.mark.parametrize("kind", ["random", "per_user", "temporal", "leave_last", "cold_items"])
def test_validation_of_every_kind_is_of_the_training_rows_alone(kind):
  interactions = make(text_ids=True)
  rows = np.flatnonzero(np.random.default_rng(3).random(len(interactions)) < 0.7)
  chosen = dict(kind=kind, valid_share=0.2, valid_seed=1)
  expected = [pairs(interactions, part) for part in carve_validation(interactions, rows, **chosen)]
  user, item = (
    [ids[index] for index in column[rows[::-1]]]
    for ids, column in (
      (interactions.user_ids, interactions.user),
      (interactions.item_ids, interactions.item),
    )
  )
  times = interactions.timestamp[rows[::-1]]
  # Another item, of no training row, turns the catalog to the order of text.
  alone, _ = build_interactions(
    [*user, "u1"], [*item, "x"], [1] * (len(rows) + 1), [*times.tolist(), 0]
  )
  parts_alone = carve_validation(alone, np.arange(len(rows)), **chosen)
  assert [pairs(alone, part) for part in parts_alone] == expected
  assert expected[0] and expected[1]


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    (dict(kind="recbole"), "split=recbole: unknown; one of shipped, .*, recbole_a, recbole_b$"),
    (dict(kind="recbole_a"), "split=recbole_a: a whole protocol.*apply_protocol"),
    (dict(kind="shipped"), "split=shipped: needs"),
    (dict(kind="shipped", test_rows=np.zeros(3, bool)), "3 test marks for 400"),
    (
      dict(kind="shipped", test_rows=np.zeros(400, bool)),
      "empty split: no test rows.*`split=shipped`",
    ),
    (dict(kind="shipped", test_rows=np.ones(400, bool)), "empty split: no training rows"),
    (dict(kind="random", test_share=0), "empty split.*`test_share=0`"),
    (dict(kind="random", test_share=1e-9), "empty split.*`test_share=1e-09`"),
    (dict(kind="temporal", test_share=1e-9), "empty split.*`test_share=1e-09`"),
    (dict(kind="cold_users", test_share=0.001), "empty split.*`split=cold_users`"),
    (dict(kind="cold_items", test_share=0.999), "empty split: no training rows"),
    (dict(kind="random", test_share=1.0), "test_share=1.0: must be at least 0 and below 1"),
    (dict(kind="random", test_share=float("nan")), "test_share=nan"),
    (dict(kind="random", valid_share=-0.1), "valid_share=-0.1"),
    (dict(kind="random", valid_share=1e-6), "no validation rows.*`valid_share=1e-06`"),
    (dict(kind="random", valid_share=0.999), "no training rows.*`valid_share=0.999`"),
    (dict(kind="per_user", valid_share=0.01), "no validation rows.*`valid_share=0.01`"),
    (dict(kind="cold_items", valid_share=0.01), "no validation rows.*`valid_share=0.01`"),
    (dict(kind="random", split_seed=-1), "split_seed=-1"),
    (dict(kind="kfold"), r"`fold=\(none\)` must be 1 to 5"),
    (dict(kind="kfold", fold="6"), "`fold=6` must be 1 to 5"),
    (dict(kind="kfold", fold="1", test_share=0.9), "`test_share=0.9` must be 1/n"),
    (dict(kind="kfold", fold="1", test_share=0), "`test_share=0` must be 1/n"),
  ],
)
def test_bad_choices_are_named(chosen, message):
  with pytest.raises(InputError, match=message):
    split_interactions(make(), **chosen)


@pytest.mark.parametrize("kind", ["temporal", "leave_last", "next_item"])
def test_without_times_there_is_no_last(kind):
  interactions, _ = build_interactions([0, 0, 1], [1, 2, 3], [1, 1, 1], [7, 7, 7])
  with pytest.raises(InputError, match=f"split={kind}: all times are 7.*`time_column`"):
    split_interactions(interactions, kind=kind)
