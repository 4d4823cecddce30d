"""Suite `statistics`: the verdicts of launch.compare on simulated systems of known quality.

Two systems recommend ten items to 943 users in each of five folds. A user has a quality
q ~ Beta(1.8, 2.6) and r relevant items (r ~ 1 + a rounded exponential with mean 15). The item at
rank k is relevant with probability q · 0.97^(k−1), up to r hits in total. Most ranks have the same
outcome for both systems, and the others are drawn independently. This reproduces the spread of real
runs on ML-100K (within a fold NDCG@10 .44, standard deviation .28 over users, .10 for the
difference; .09 between EASE and iALS). Each user's folds are averaged and the two systems compared
as in launch.compare. A relative gain in hits is smaller in NDCG@10, since a list has at most r
hits; `HIT_GAIN` corresponds to +3 % NDCG@10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gatrec_jax.evaluate.significance import paired_difference
from gatrec_jax.runs.log import Log
from launch.cli.grid import Table

USERS, FOLDS, RANKS = 943, 5, 10
ALIKE = 0.85
"""Share of ranks with the same outcome for both systems."""
COMPARISONS, LEVEL_COMPARISONS = 100, 2000
RESAMPLES, LEVEL_RESAMPLES = 10_000, 1000
HIT_GAIN = 0.0355
ONE_FOLD_USERS = 456  # with a positive in the test part of u1
Json = dict[str, Any]


def simulate(
  rng: np.random.Generator, *, gain: float, users: int = USERS, folds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray]:
  """NDCG@10 per user of a system and of one whose hits are `gain` more likely, [U] float64 each.

  Args: rng: consumed. gain: relative; 0 for two equal systems. users, folds: how many of each.
  """
  quality = rng.beta(1.8, 2.6, size=users)[:, None, None]
  relevant = 1 + rng.exponential(15.0, size=(users, folds, 1)).round()
  chance = quality * 0.97 ** np.arange(RANKS)
  shape = (users, folds, RANKS)
  first = rng.random(shape)
  second = np.where(rng.random(shape) < ALIKE, first, rng.random(shape))
  values = []
  for draw, factor in ((first, 1.0), (second, 1.0 + gain)):
    hits = draw < np.minimum(chance * factor, 1.0)
    hits &= np.cumsum(hits, axis=2) <= relevant
    values.append(_ndcg(hits, relevant).mean(axis=1))
  return values[0], values[1]


def _ndcg(hits: np.ndarray, relevant: np.ndarray) -> np.ndarray:
  """[U, FOLDS] NDCG of hits [U, FOLDS, RANKS] bool and relevant items [U, FOLDS, 1]."""
  discount = 1 / np.log2(np.arange(RANKS) + 2.0)
  ideal = np.concatenate([[0.0], np.cumsum(discount)])
  most = np.minimum(relevant[..., 0], RANKS).astype(int)
  return (hits * discount).sum(axis=2) / ideal[most]


def run_statistics_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite; it needs none of the flags."""
  del flags
  return run_statistics(log=log)


def run_statistics(
  *, comparisons: int = COMPARISONS, level_comparisons: int = LEVEL_COMPARISONS, log: Log
) -> Json:
  """Counts the verdicts of simulated comparisons.

  Args: comparisons: per check. level_comparisons: for the level of the intervals, with fewer
    resamples each. log: for lines of progress.
  """
  rows = []
  one_fold = {"users": ONE_FOLD_USERS, "folds": 1}
  for name, gain, size, wanted, count, resamples, share in (
    ("two equal systems", 0.0, {}, "not separated", comparisons, RESAMPLES, 0.95),
    ("+3 %", HIT_GAIN, {}, "ahead", comparisons, RESAMPLES, 0.90),
    ("+3 %, one fold", HIT_GAIN, one_fold, "ahead", comparisons, RESAMPLES, None),
    (
      "two equal systems, level",
      0.0,
      {},
      "not separated",
      level_comparisons,
      LEVEL_RESAMPLES,
      None,
    ),
  ):
    log.info(f"{name}: {count} comparisons")
    verdicts = {"ahead": 0, "not separated": 0, "behind": 0}
    spreads, gains = [], []
    for number in range(count):
      old, new = simulate(np.random.default_rng((7, number)), gain=gain, **size)
      found = paired_difference(new, old, num_resamples=resamples, seed=number)
      verdicts[found.verdict] += 1
      spreads.append(float((new - old).std(ddof=1)))
      gains.append(float(found.relative or 0.0))
    rows.append(
      {
        "check": name,
        "comparisons": count,
        "resamples": resamples,
        **verdicts,
        "wanted": wanted,
        "share": verdicts[wanted] / count,
        "required": share,
        "relative_gain": float(np.mean(gains)),
        "deviation_of_difference": float(np.mean(spreads)),
      }
    )
  return {"users": USERS, "folds": FOLDS, "checks": rows}


def table(results: Json) -> Table:
  """The table of `run_statistics`'s results."""
  header = [
    "simulated",
    "comparisons",
    "ahead",
    "not separated",
    "behind",
    "expected",
    "NDCG@10 gain",
  ]
  rows = []
  for check in results["checks"]:
    wanted = f"{check['wanted']} {check['share']:.1%}"
    if check["required"]:
      wanted += f" (≥ {check['required']:.0%})"
    rows.append(
      [
        check["check"],
        str(check["comparisons"]),
        str(check["ahead"]),
        str(check["not separated"]),
        str(check["behind"]),
        wanted,
        f"{check['relative_gain']:+.2%}",
      ]
    )
  notes = [
    f"{results['users']} users, {results['folds']} folds averaged per user (one fold: "
    f"{ONE_FOLD_USERS} users); 95 % intervals",
    "a test with an exact level of 5 % leaves at least 95 of 100 equal pairs not separated in only "
    "62 % of cases, so the level over many comparisons is more informative",
    "simulated users with the spread of ML-100K; gains are relative, means over comparisons",
  ]
  return Table("Verdicts on simulated systems", header, rows, notes)
