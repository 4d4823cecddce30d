"""Results of an evaluation: values per user, means with bootstrap intervals, means per bucket."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

TRAINING_COUNT_BUCKETS = (0, 1, 5, 10, 20, 50, 100)
"""Lower ends of the user buckets by number of training interactions."""

# Users drawn at a time while resampling: bounds the memory at about 100 MB for any U.
_DRAWS_PER_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over n users with its 95 % percentile bootstrap interval (None where not computed)."""

  mean: float
  lo: float | None
  hi: float | None
  n: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The metrics of a set of recommendation lists.

  Attributes:
    protocol: "full", "judged", "new_items" or "given_5".
    users: [n] int32, the evaluated users, ascending.
    training_counts: [n] int, how many interactions of each were known.
    per_user: by metric name ("ndcg@10"), [n] float32; NaN for users whom the metric does not count.
    summary: by metric name, means over the counted users; metrics of all lists together
      ("coverage@10", "gini@10") have no interval.
    buckets: by bucket of the user's training count ("5-9"), by metric name, means without
      intervals; empty buckets are absent.
  """

  protocol: str
  users: np.ndarray
  training_counts: np.ndarray
  per_user: Mapping[str, np.ndarray]
  summary: Mapping[str, Estimate]
  buckets: Mapping[str, Mapping[str, Estimate]]

  def to_json(self) -> dict[str, dict[str, float | int | None]]:
    """`{"ndcg@10": {"mean": 0.4254, "lo": …, "hi": …, "n": 456}, …}`, plain Python numbers."""
    return {name: dataclasses.asdict(value) for name, value in self.summary.items()}

  def buckets_to_json(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """The same form for each bucket: `{"5-9": {"ndcg@10": {…}}}`."""
    return {
      bucket: {name: dataclasses.asdict(value) for name, value in values.items()}
      for bucket, values in self.buckets.items()
    }


def summarize(
  protocol: str,
  users: np.ndarray,
  per_user: Mapping[str, np.ndarray],
  together: Mapping[str, float],
  *,
  training_counts: np.ndarray,
  num_bootstrap: int,
  seed: int,
) -> Evaluation:
  """Builds an `Evaluation` from per-user values.

  Args:
    users: [n] int32. per_user: by metric, [n] float32, NaN for users who do not count.
    together: metrics of all lists together, by name.
    training_counts: [n] int, training interactions of each evaluated user.
    num_bootstrap: resamples of the users; 0 gives no intervals. seed: for these resamples.
  """
  names = list(per_user)
  values = np.stack([per_user[name] for name in names], axis=1).astype(np.float64)
  means, counts = _means(values)
  lo, hi = bootstrap_intervals(values, num_resamples=num_bootstrap, seed=seed)
  summary = {
    name: Estimate(float(means[m]), _number(lo[m]), _number(hi[m]), int(counts[m]))
    for m, name in enumerate(names)
  }
  summary |= {name: Estimate(value, None, None, len(users)) for name, value in together.items()}
  buckets = {}
  for label, rows in _bucket_rows(training_counts).items():
    means, counts = _means(values[rows])
    buckets[label] = {
      name: Estimate(float(means[m]), None, None, int(counts[m]))
      for m, name in enumerate(names)
      if counts[m]
    }
  return Evaluation(protocol, users, training_counts, per_user, summary, buckets)


def bootstrap_intervals(
  values: np.ndarray, *, num_resamples: int, seed: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile bootstrap intervals of column means (Efron 1979), users resampled with replacement.

  All columns share the drawn users, so that differences between columns keep their correlation.

  Args: values: [n, M] float64, NaN = not counted. num_resamples: 0 gives NaN. seed: of the draws.
  Returns: lower and upper ends, [M] float64 each; NaN where no value counts.

  >>> low, high = bootstrap_intervals(np.full((5, 1), 0.5), num_resamples=10, seed=0)
  >>> low.tolist(), high.tolist()
  ([0.5], [0.5])
  """
  size, width = values.shape
  if not num_resamples or not size:
    return np.full(width, np.nan), np.full(width, np.nan)
  counted = ~np.isnan(values)
  table = np.concatenate([np.where(counted, values, 0.0), counted], axis=1)
  rng = np.random.default_rng(seed)
  chunk = max(1, _DRAWS_PER_CHUNK // size)
  means = []
  for first in range(0, num_resamples, chunk):
    rows = min(chunk, num_resamples - first)
    draws = rng.integers(0, size, size=(rows, size)) + np.arange(rows)[:, None] * size
    weights = np.bincount(draws.ravel(), minlength=rows * size).reshape(rows, size)
    sums = weights.astype(np.float64) @ table
    with np.errstate(invalid="ignore"):
      means.append(sums[:, :width] / np.where(sums[:, width:] > 0, sums[:, width:], np.nan))
  tails = [(1 - level) / 2, (1 + level) / 2]
  ends = np.full((2, width), np.nan)
  known = counted.any(axis=0)
  if known.any():
    ends[:, known] = np.nanquantile(np.concatenate(means)[:, known], tails, axis=0)
  return ends[0], ends[1]


def _means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means [M] float64 (0 where nothing counts) and counts [M] of the columns of values [n, M]."""
  counts = (~np.isnan(values)).sum(axis=0)
  return np.nansum(values, axis=0) / np.maximum(counts, 1), counts


def _number(value: float) -> float | None:
  return None if np.isnan(value) else float(value)


def _bucket_rows(training_counts: np.ndarray) -> dict[str, np.ndarray]:
  lower_ends = np.array(TRAINING_COUNT_BUCKETS)
  bucket = np.searchsorted(lower_ends, training_counts, side="right") - 1
  rows = {}
  for b, low in enumerate(TRAINING_COUNT_BUCKETS):
    high = lower_ends[b + 1] - 1 if b + 1 < len(lower_ends) else None
    label = f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}"
    if (bucket == b).any():
      rows[label] = np.flatnonzero(bucket == b)
  return rows
