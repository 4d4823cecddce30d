"""Contexts: what prompts say about users, from training interactions alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.rerank.prompting.prompts import Context, profile_line

LIKED, DISLIKED = 30, 10
SHORT = 10  # liked titles for models to which a title is many tokens


def make_contexts(
  train: Interactions,
  users: np.ndarray,
  *,
  titles: Sequence[str],
  profiles: Sequence[str | None],
  feedback: Feedback,
  liked: int = LIKED,
  disliked: int = DISLIKED,
  draws: np.random.Generator | None = None,
) -> list[Context]:
  """A Context per user: the profile, and the latest liked and disliked titles in temporal order.

  Args:
    train: the only interactions that are read.
    users: [m] int32, indices.
    titles: [I], all different. profiles: [U] texts, None or "" for users without one.
    feedback: which ratings count as liked and as disliked. Ratings in between are left out.
    liked, disliked: maximum number of each. The latest are taken; at equal times, those with the
      higher item index.
    draws: draws at random instead of taking the latest, for training examples.
  """
  rows = np.flatnonzero(feedback.liked(train.rating) | feedback.disliked(train.rating))
  rows = rows[np.lexsort((train.item[rows], train.timestamp[rows], train.user[rows]))]
  first = np.searchsorted(train.user[rows], users, side="left")
  last = np.searchsorted(train.user[rows], users, side="right")
  contexts = []
  for user, start, end in zip(users, first, last, strict=True):
    own = rows[start:end]
    good = feedback.liked(train.rating[own])
    kept = np.sort(
      np.concatenate(
        [_some(np.flatnonzero(good), liked, draws), _some(np.flatnonzero(~good), disliked, draws)]
      )
    )
    history = tuple(
      (titles[item], bool(is_liked))
      for item, is_liked in zip(train.item[own[kept]], good[kept], strict=True)
    )
    contexts.append(Context(profile_line(profiles[user] or ""), history))
  return contexts


def _some(places: np.ndarray, most: int, draws: np.random.Generator | None) -> np.ndarray:
  """At most `most` of the places: the last ones, or random ones if `draws` is given."""
  if draws is None or len(places) <= most:
    return places[max(len(places) - most, 0) :]
  return draws.choice(places, most, replace=False)
