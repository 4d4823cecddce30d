"""Smallest sets of ratings without which an item drops out of a user's list, found greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatrec_jax.explain.rescoring import Rescorer

MAX_REMOVED = 3


class Removal(NamedTuple):
  """Attributes: items: indices of the removed ratings' items. rank: of the target without them."""

  items: tuple[int, ...]
  rank: int


def rank_of(scores: np.ndarray, item: int, candidates: np.ndarray) -> int:
  """Rank of an item among the candidates, from 1; equal scores are ordered by index.

  Args: scores: [I] float. item: an index. candidates: [I] bool.
  """
  ahead = (scores > scores[item]) | ((scores == scores[item]) & (np.arange(len(scores)) < item))
  return 1 + int((ahead & candidates).sum())


def find_removals(
  rescorer: Rescorer,
  user: int,
  items: Sequence[int],
  *,
  rated: np.ndarray,
  without: np.ndarray,
  drops: np.ndarray,
  ranks: Sequence[int],
  candidates: np.ndarray,
  top_n: int,
  tried: int,
) -> list[Removal | None]:
  """For each item a small set of ratings whose removal takes it out of the first `top_n`.

  If removing a single rating is enough, the one with the largest score drop is taken, as for the
  first cited rating. Otherwise the search starts from the rating with the largest drop and adds the
  rating that lowers the rank most, until three ratings are removed.

  Args:
    rescorer: scores without given ratings.
    user: an index. items: T indices.
    rated: [h] int, indices of the ratings that may be removed.
    without: [h, I] float32, scores without each of them.
    drops: [h, T] float32, by how much the items' scores fall without each.
    ranks: [T], the items' ranks with all ratings.
    candidates: [I] bool, the items that are ranked.
    top_n: length of the list.
    tried: how many ratings are tried at each step of the greedy search.
  Returns: [T]; None for items that are not in the list, or if no set of three was found.
  """
  found: dict[int, Removal] = {}
  chosen: dict[int, list[int]] = {}
  for place, item in enumerate(items):
    if ranks[place] > top_n:
      continue
    alone = [rank_of(row, item, candidates) for row in without]
    order = np.argsort(-drops[:, place], kind="stable").tolist()
    enough = next((row for row in order if alone[row] > top_n), None)
    if enough is not None:
      found[place] = Removal((int(rated[enough]),), alone[enough])
    else:
      chosen[place] = order[:1]
  for _ in range(MAX_REMOVED - 1):
    tries = [
      (place, [*rows, int(row)])
      for place, rows in chosen.items()
      for row in np.argsort(-drops[:, place], kind="stable")[: tried + len(rows)]
      if int(row) not in rows
    ]
    if not tries:
      break
    scores = rescorer(user, [[int(rated[row]) for row in rows] for _, rows in tries])
    best: dict[int, tuple[int, float, list[int]]] = {}
    for (place, rows), row in zip(tries, scores, strict=True):
      standing = (rank_of(row, items[place], candidates), -float(row[items[place]]), rows)
      best[place] = max(best.get(place, standing), standing, key=lambda one: one[:2])
    for place, (rank, _, rows) in best.items():
      chosen[place] = rows
      if rank > top_n:
        found[place] = Removal(tuple(int(rated[row]) for row in rows), rank)
        del chosen[place]
  return [found.get(place) for place in range(len(items))]
