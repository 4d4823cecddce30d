"""Several rows of one user and item as one row, by a rule."""

from __future__ import annotations

import numpy as np

RULES = ("last", "first", "max", "strongest", "sum", "count", "mean")


def merge_duplicates(
  keys: np.ndarray, timestamp: np.ndarray, rating: np.ndarray, *, rule: str
) -> tuple[np.ndarray | None, np.ndarray]:
  """Which row stays for each key, and with which rating.

  The latest row of each key stays (by `first` the earliest), in its place and with its time; of
  rows with equal times, the one that comes last (first).

  Args:
    keys: [R] int64, a number for each (user, item).
    timestamp: [R] int64.
    rating: [R] float32.
    rule: `last` and `first` keep the rating of the row that stays; `max`, `sum` and `mean` compute
      it from all rows of the key; `strongest` is the one farthest from 0, the positive one of two;
      `count` is their number.
  Returns:
    [n] int64 ascending, the rows that stay (None: all), and [R] float32 ratings.

  >>> kept, rating = merge_duplicates(
  ...   np.array([7, 5, 7]), np.array([1, 2, 3]), np.array([3, 1, 4], np.float32), rule="sum"
  ... )
  >>> kept.tolist(), rating[kept].tolist()
  ([1, 2], [1.0, 7.0])
  """
  if rule == "count":
    rating = np.ones(len(keys), np.float32)
  ordered = np.sort(keys)
  repeats = ordered[1:] == ordered[:-1]
  if not repeats.any():
    return None, rating
  # Few pairs occur twice; only their rows are sorted by time.
  repeated = np.unique(ordered[1:][repeats])
  place = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
  is_repeated = repeated[place] == keys
  rows = np.flatnonzero(is_repeated)
  # lexsort is stable: rows with equal times keep their order.
  rows = rows[np.lexsort((timestamp[rows], keys[rows]))]
  starts = np.flatnonzero(np.append(True, keys[rows][1:] != keys[rows][:-1]))
  ends = np.append(starts[1:], len(rows)) - 1
  chosen = rows[starts if rule == "first" else ends]
  kept = ~is_repeated
  kept[chosen] = True
  if rule not in ("last", "first"):
    values = rating[rows].astype(np.float64)
    if rule in ("max", "strongest"):
      merged = np.maximum.reduceat(values, starts)
      if rule == "strongest":
        least = np.minimum.reduceat(values, starts)
        merged = np.where(-least > merged, least, merged)
    else:
      merged = np.add.reduceat(values, starts)
    rating = rating.copy()
    rating[chosen] = merged / (ends - starts + 1) if rule == "mean" else merged
  return np.flatnonzero(kept), rating
