"""Packed rows of events, by hand and as a property."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.events import make_events
from gatrec_jax.models.sequences.rows import pack_events


def events_of(user, item, rating, time, *, num_users):
  train = Interactions.from_indices(user, item, rating, time, num_users=num_users, num_items=9)
  return make_events(train, Feedback().judge(train.rating))


def test_rows_by_hand():
  user, item = [0, 0, 0, 0, 1, 1, 3], [4, 5, 6, 7, 8, 2, 3]
  rating, time = [5, 5, 5, 1, 5, 5, 5], [0, 1, 2, 3, 5, 4, 0]
  rows = pack_events(events_of(user, item, rating, time, num_users=4), places=3)
  # The latest three of user 0; then users 1 and 3 in one row. User 2 has no events.
  assert rows.item.tolist() == [[5, 6, 7], [2, 8, 3]]
  assert rows.user.tolist() == [[0, 0, 0], [1, 1, 3]]
  assert rows.later.tolist() == [[2, 1, 0], [1, 0, 0]]
  # Item 7 is no like, so nothing predicts it.
  assert rows.is_wanted.tolist() == [[True, False, False], [True, False, False]]
  wide = pack_events(events_of(user, item, rating, time, num_users=4), places=8)
  assert wide.item.tolist() == [[4, 5, 6, 7, 2, 8, 3, 0]]
  assert wide.user.tolist() == [[0, 0, 0, 0, 1, 1, 3, 4]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 7))
def test_every_user_has_the_latest_events_in_one_row(seed, places):
  rng = np.random.default_rng(seed)
  user, item = np.nonzero(rng.random((6, 9)) < 0.4)
  if not len(user):
    return
  time = rng.integers(0, 4, len(user))
  events = events_of(user, item, rng.integers(1, 6, len(user)), time, num_users=6)
  rows = pack_events(events, places=places)
  assert rows.item.shape[1] == places and (rows.user < 6).any(axis=1).all()
  for one in range(6):
    begin, end = events.start[one], events.start[one + 1]
    kept = np.arange(max(begin, end - places), end)
    row, place = np.nonzero(rows.user == one)
    assert len(set(row)) == min(len(kept), 1) and (np.diff(place) == 1).all()
    assert rows.item[row, place].tolist() == events.item[kept].tolist()
    assert rows.later[row, place].tolist() == (end - 1 - kept).tolist()
    wanted = [event + 1 in events.targets and event + 1 < end for event in kept]
    assert rows.is_wanted[row, place].tolist() == wanted
