"""Comparison of interactions."""

import numpy as np


def assert_same_rows(one, other):
  """Two `Interactions` with the same ids and the same rows in the same order, types included."""
  assert (one.user_ids, one.item_ids) == (other.user_ids, other.item_ids)
  for name in ("user", "item", "rating", "timestamp"):
    ours, theirs = getattr(one, name), getattr(other, name)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
