"""Events: their order, targets, and what is visible to a target."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.events import earlier, make_events, typical_gap


def events_of(user, item, rating, time, *, num_users=3, num_items=6):
  rows = Interactions.from_indices(
    user, item, rating, time, num_users=num_users, num_items=num_items
  )
  return make_events(rows, Feedback(4.0, 2.0).judge(rows.rating))


def test_events_are_in_the_order_of_time_and_targets_are_likes_with_a_history():
  events = events_of(
    [2, 0, 0, 2, 0, 2], [5, 3, 1, 4, 2, 0], [5, 5, 2, 4, 4, 3], [9, 7, 1, 3, 7, 20]
  )
  assert events.user.tolist() == [0, 0, 0, 2, 2, 2]
  assert events.item.tolist() == [1, 2, 3, 4, 5, 0]  # of the same time: by item
  assert events.start.tolist() == [0, 3, 3, 6]
  assert events.targets.tolist() == [1, 2, 4]  # not first, and liked
  # gaps of 6, 6, 11 seconds: a typical one is 6
  np.testing.assert_allclose(events.time, [0, 1, 1, 0, 1, 17 / 6], rtol=1e-6)
  assert events.relevance[0] < events.relevance[1] < events.relevance[2] == 1


def test_earlier_events_come_latest_first_and_end_at_the_users_first():
  events = events_of([0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [5, 1, 5, 5, 5], [0, 10, 40, 0, 20])
  users, end = jnp.array([0, 0, 1, 2]), jnp.array([2, 3, 4, 5])
  found = earlier(events, users, end, length=3)
  assert found.inside.tolist() == [
    [True, True, False],
    [True, True, True],
    [True, False, False],
    [False, False, False],  # a user without events
  ]
  assert found.item.tolist() == [[1, 0, 0], [2, 1, 0], [3, 0, 0], [0, 0, 0]]
  np.testing.assert_allclose(found.gap[1], np.array([0, 30, 40]) / 20, rtol=1e-6)
  assert found.relevance[0, 0] < found.relevance[0, 1] == found.relevance[0, 2] == 1


def test_without_times_no_gap_is_typical():
  rows = Interactions.from_indices([0, 0], [0, 1], num_users=1, num_items=2)
  assert typical_gap(rows) == 1.0
  assert events_of([0, 0], [0, 1], [5, 5], [0, 0]).time.tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_only_earlier_events_of_the_same_user_are_visible(seed, length):
  rng = np.random.default_rng(seed)
  user, item = np.nonzero(rng.random((3, 6)) < 0.5)
  if not len(user):
    return
  time = rng.integers(0, 5, len(user))
  events = events_of(user, item, None, time)
  events = jax.tree.map(jnp.asarray, events)
  ends = jnp.arange(len(user))
  found = jax.jit(earlier, static_argnames="length")(events, events.user[ends], ends, length=length)
  when = {(u, i): t for u, i, t in zip(user, item, time, strict=True)}
  for place in range(len(user)):
    u, i = int(events.user[place]), int(events.item[place])
    seen = np.asarray(found.item[place])[np.asarray(found.inside[place])]
    times = [when[u, j] for j in seen]
    assert i not in seen and len(set(seen)) == len(seen)
    assert all(t <= when[u, i] for t in times) and times == sorted(times, reverse=True)
    assert len(seen) == min(length, place - int(events.start[u]))
