"""Buckets of iALS: lengths by hand and at random, every pair once in its row."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.models.baselines import ials_buckets
from gatrec_jax.models.baselines.ials_buckets import bucket_lengths, by_row, layout, padded_rows


@pytest.mark.parametrize(
  ("worth", "lengths"),
  [
    # Rows of 3, 5, 16 and 100 pairs: one length of 100 pads 276 cells.
    (0, [8, 16, 100]),
    (15, [8, 16, 100]),  # 8 beside 16 saves two times 8 cells
    (17, [16, 100]),
    (251, [16, 100]),  # 16 beside 100 saves three times 84 cells
    (253, [100]),
  ],
)
def test_lengths_by_hand(monkeypatch, worth, lengths):
  monkeypatch.setattr(ials_buckets, "_WORTH_A_LENGTH", worth)
  assert bucket_lengths(np.array([16, 3, 100, 5])).tolist() == lengths


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=50))
def test_lengths_reach_every_row_and_the_longest_exactly(counts):
  lengths = bucket_lengths(np.array(counts))
  assert lengths[-1] == max(counts) and (np.diff(lengths) > 0).all() and lengths[0] > 0


@settings(deadline=None, max_examples=25)
@given(
  st.sets(st.tuples(st.integers(0, 11), st.integers(0, 30)), min_size=1, max_size=120),
  st.booleans(),
)
def test_every_pair_is_once_in_the_list_of_its_row(pairs, weighted):
  user, item = np.array(sorted(pairs)).T
  weight = (1 + user + 100 * item).astype(np.float32) if weighted else None
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ials_buckets, "_WORTH_A_LENGTH", 5)
    patch.setattr(ials_buckets, "_CPU_CHUNK", 64)
    patch.setattr(jax, "default_backend", lambda: "cpu")
    made = layout(
      by_row(item, user, weight, num_rows=31), by_row(user, item, weight, num_rows=12), width=2
    )
  lists = [
    row for bucket in made.buckets for row in bucket.lists.reshape(-1, bucket.lists.shape[2])
  ]
  totals = np.concatenate([bucket.totals.ravel() for bucket in made.buckets])
  padding = len(lists)
  assert (made.user_slot[np.setdiff1d(np.arange(12), user)] == padding).all()
  assert (made.item_slot[np.setdiff1d(np.arange(31), item)] == padding).all()
  used = np.concatenate([made.user_slot[np.unique(user)], made.item_slot[np.unique(item)]])
  assert len(np.unique(used)) == len(used) and used.max() < padding
  found = {
    (row, column)
    for row in range(12)
    for column in range(31)
    if max(made.user_slot[row], made.item_slot[column]) < padding
    and made.item_slot[column] in lists[made.user_slot[row]]
  }
  assert found == pairs
  assert sum((row < padding).sum() for row in lists) == 2 * len(pairs)
  own = np.ones(len(user)) if weight is None else weight
  np.testing.assert_array_equal(totals[made.user_slot[user]], np.bincount(user, own)[user])
  np.testing.assert_array_equal(totals[made.item_slot[item]], np.bincount(item, own)[item])
  for bucket in made.buckets:
    if weighted:
      np.testing.assert_array_equal(bucket.weights > 0, bucket.lists < padding)
    of_users = bucket.lists[bucket.item_chunks :]
    assert np.isin(of_users, [*made.item_slot, padding]).all()


def test_padded_rows_by_hand():
  pairs = by_row(np.array([2, 0, 2]), np.array([4, 1, 3]), None, num_rows=3)
  bucket = padded_rows(pairs, num_items=5, width=2)
  assert bucket.lists.shape == (1, 3, 8) and bucket.weights is None and bucket.item_chunks == 0
  assert bucket.lists[0, :, :3].tolist() == [[1, 5, 5], [5, 5, 5], [4, 3, 5]]
  assert bucket.totals.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("num_rows", [1 << 16, (1 << 16) + 3])
def test_rows_are_sorted_beyond_16_bits(num_rows):
  row = np.array([num_rows - 1, 2, 0, num_rows - 1, 2])
  pairs = by_row(
    row, np.array([7, 5, 6, 3, 1]), np.arange(5.0, dtype=np.float32), num_rows=num_rows
  )
  assert pairs.other.tolist() == [6, 5, 1, 7, 3] and pairs.weight.tolist() == [2, 1, 4, 0, 3]
  assert pairs.counts[[0, 2, num_rows - 1]].tolist() == [1, 2, 2] and pairs.counts.sum() == 5
