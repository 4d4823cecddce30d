"""Batches of prompts: bucketed lengths, and every prompt in exactly one batch."""

import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.inference.batching import bucket, plan


def test_buckets():
  assert [bucket(n) for n in (1, 16, 17, 24, 25, 33, 49, 64, 65, 97, 129)] == [
    16,
    16,
    24,
    24,
    32,
    48,
    64,
    64,
    96,
    128,
    192,
  ]
  for length in range(1, 3000):
    assert length <= bucket(length) <= max(16, 1.5 * length)


def test_plans_hold_every_prompt_once():
  lengths, limits = [3, 40, 17, 5, 90, 16, 41], [5, 1, 30, 2, 2, 9, 1]
  groups = plan(lengths, limits, batch_size=3)
  assert sorted(row for group in groups for row in group.rows) == list(range(7))
  for group in groups:
    assert len(group.rows) <= group.batch <= 3
    assert max(lengths[row] for row in group.rows) <= group.length
    assert max(limits[row] for row in group.rows) <= group.room
    assert group.slots >= group.length + group.room - 1
  # Prompts of like lengths stand beside each other.
  assert [group.rows for group in groups] == [(0, 3, 5), (2, 1, 6), (4,)]
  with pytest.raises(InputError, match="batch_size=0: must be at least 1"):
    plan(lengths, limits, batch_size=0)
