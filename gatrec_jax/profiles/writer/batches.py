"""The batches of a user's history that a written profile is made from."""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions

RECENT, BATCH = 10, 5


@dataclasses.dataclass(frozen=True)
class HistoryBatches:
  """A user's items in batches of indices.

  Attributes: liked, disliked: batches, in the order in which the model reads them, liked first.
  """

  liked: tuple[tuple[int, ...], ...] = ()
  disliked: tuple[tuple[int, ...], ...] = ()


def batches_of_users(
  train: Interactions, *, feedback: Feedback, described: np.ndarray
) -> list[HistoryBatches]:
  """The 10 latest liked and the 10 latest disliked items of each user, in batches of 5.

  At equal times, the item with the higher index counts as later. The oldest comes first, within a
  batch and from batch to batch.

  Args:
    train: training interactions; nothing else is read.
    feedback: which ratings count as liked and as disliked.
    described: [I] bool, whether an item has a profile; others are left out.
  Returns: [U].
  """
  known = described[train.item]
  liked = _latest(train, known & feedback.liked(train.rating))
  disliked = _latest(train, known & feedback.disliked(train.rating))
  return [HistoryBatches(*pair) for pair in zip(liked, disliked, strict=True)]


def _latest(train: Interactions, chosen: np.ndarray) -> list[tuple[tuple[int, ...], ...]]:
  rows = np.flatnonzero(chosen)
  rows = rows[np.lexsort((train.item[rows], train.timestamp[rows], train.user[rows]))]
  ends = np.searchsorted(train.user[rows], np.arange(train.num_users + 1))
  batches = []
  for start, end in zip(ends[:-1], ends[1:], strict=True):
    items = train.item[rows[max(start, end - RECENT) : end]].tolist()
    batches.append(tuple(tuple(items[n : n + BATCH]) for n in range(0, len(items), BATCH)))
  return batches
