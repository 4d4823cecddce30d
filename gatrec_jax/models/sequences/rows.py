"""Users' events packed into rows of equal length, so that little of a step is padding."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from gatrec_jax.lm.finetune.packing import first_fit
from gatrec_jax.models.events import Events

Array = jax.Array


class Rows(NamedTuple):
  """The latest events of all users, in N rows of T places, each user's in one row.

  Attributes:
    item: [N, T] int32, in the order of time within a user; 0 for padding.
    user: [N, T] int32; the number of users U for padding.
    later: [N, T] int32, how many events of the same user follow; 0 for padding.
    is_wanted: [N, T] bool, whether the event after this one is to be predicted from it.
  """

  item: Array
  user: Array
  later: Array
  is_wanted: Array


def pack_events(events: Events, *, places: int) -> Rows:
  """The latest `places` events of every user in rows of as many; numpy arrays.

  The same events always give the same rows, with the longest histories first.
  """
  num_users = len(events.start) - 1
  counts = np.minimum(np.diff(events.start), places)
  users = np.flatnonzero(counts)
  bins = first_fit(counts[users].tolist(), places)
  row = np.repeat(np.arange(len(bins)), [len(one) for one in bins])
  users = users[np.concatenate(bins)]
  counts = counts[users]
  row = np.repeat(row, counts)
  of_row = np.bincount(row, minlength=len(bins))
  place = np.arange(len(row)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
  ends = np.cumsum(counts)
  later = np.repeat(ends, counts) - 1 - np.arange(len(row))
  user = np.repeat(users, counts)
  event = events.start[user + 1] - 1 - later
  is_target = np.zeros(len(events.item) + 1, bool)
  is_target[events.targets] = True

  def filled(values: np.ndarray, padding: int) -> np.ndarray:
    out = np.full((len(bins), places), padding, values.dtype)
    out[row, place] = values
    return out

  return Rows(
    item=filled(events.item[event].astype(np.int32), 0),
    user=filled(user.astype(np.int32), num_users),
    later=filled(later.astype(np.int32), 0),
    is_wanted=filled((later > 0) & is_target[event + 1], False),
  )
