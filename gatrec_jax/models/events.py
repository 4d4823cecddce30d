"""Ratings in the order of time: what came before each of them, for models of sequences.

An event is a rating. What a model may know when it predicts one are the events of the same user
that come before it. `earlier` reads nothing else, so that nothing of the future can leak.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions

Array = jax.Array


class Events(NamedTuple):
  """R training ratings, user by user in the order of time (of equal times, by item).

  Attributes:
    item, user: [R] int32.
    start: [U + 1] int32, where each user's events begin.
    time: [R] float32, from the user's first event on, in units of `typical_gap`.
    relevance: [R] float32 in (0, 1] (gatrec_jax/data/feedback.py).
    targets: [T] int32, the events to be predicted: likes with an event before them.
  """

  item: Array
  user: Array
  start: Array
  time: Array
  relevance: Array
  targets: Array


class Earlier(NamedTuple):
  """Up to L events of each of B users, the latest first.

  Attributes:
    item: [B, L] int32; 0 where there is none.
    inside: [B, L] bool, where there is one.
    gap: [B, L] float32 ≥ 0, the time from the event to the latest one.
    relevance: [B, L] float32; 1 where there is none.
  """

  item: Array
  inside: Array
  gap: Array
  relevance: Array


def make_events(train: Interactions, judged: JudgedRatings) -> Events:
  """The events of training rows in any order; numpy arrays.

  Without times, all of which are 0 then, the order is that of the items' indices and means nothing.
  """
  order = np.lexsort((train.item, train.timestamp, train.user))
  user, item = train.user[order].astype(np.int32), train.item[order].astype(np.int32)
  start = np.searchsorted(user, np.arange(train.num_users + 1)).astype(np.int32)
  seconds = train.timestamp[order]
  since = seconds - seconds[np.minimum(start[user], max(len(user) - 1, 0))]
  is_first = np.arange(len(user)) == start[user]
  targets = np.flatnonzero(judged.liked[order] & ~is_first).astype(np.int32)
  time = (since / typical_gap(train)).astype(np.float32)
  return Events(item, user, start, time, judged.relevance[order].astype(np.float32), targets)


def typical_gap(train: Interactions) -> float:
  """The median time between two successive ratings of a user that differ in time; 1 without any.

  >>> times = [10, 30, 30]
  >>> typical_gap(
  ...   Interactions.from_indices([0, 0, 0], [0, 1, 2], None, times, num_users=1, num_items=3)
  ... )
  20.0
  """
  order = np.lexsort((train.timestamp, train.user))
  gaps = np.diff(train.timestamp[order])[np.diff(train.user[order]) == 0]
  return float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0


def earlier(events: Events, users: Array, end: Array, *, length: int) -> Earlier:
  """The last `length` events before the places `end`; traceable.

  Args:
    users: [B] int32.
    end: [B] int32, in start[user] … start[user + 1]: of an event itself, for what came before it,
      or of the user's end, for all they have rated.
  """
  place = end[:, None] - 1 - jnp.arange(length, dtype=jnp.int32)
  inside = place >= events.start[users][:, None]
  place = jnp.maximum(place, 0)
  time = events.time[place]
  return Earlier(
    item=jnp.where(inside, events.item[place], 0),
    inside=inside,
    gap=jnp.where(inside, jnp.maximum(time[:, :1] - time, 0.0), 0.0),
    relevance=jnp.where(inside, events.relevance[place], 1.0),
  )


def liked_as_events(liked: list[np.ndarray], *, length: int) -> Earlier:
  """New users' likes, in the order in which they came, as events without times.

  Args: liked: B arrays of item indices, the latest last.
  """
  item = np.zeros((len(liked), length), np.int32)
  inside = np.zeros((len(liked), length), bool)
  for row, items in enumerate(liked):
    latest = np.asarray(items)[::-1][:length]
    item[row, : len(latest)], inside[row, : len(latest)] = latest, True
  ones = np.ones(item.shape, np.float32)
  return Earlier(item, inside, 0 * ones, ones)
