"""The suite `statistics` of launch.benchmark: what verdicts say where the truth is planted.

Two systems of known quality recommend ten items to 943 users in each of five folds. A user has a
quality q ~ Beta(1.8, 2.6) and r relevant items (r ~ 1 + a rounded exponential of mean 15); the item
at rank k is relevant with probability q · 0.97^(k−1), cut to r hits. Most ranks come out alike for
both systems, the others are drawn apart. That gives the spread of real runs on ML-100K (within a
fold NDCG@10 .44, standard deviation .28 over users, .10 for the difference; EASE against iALS
.09). A user's folds are averaged, and the two systems compared as launch.compare does. A quality
that is planted on hits comes out smaller in NDCG@10, since a list holds no more than r hits:
`HIT_GAIN` is what makes +3 % of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gatrec_jax.evaluate.significance import paired_difference
from gatrec_jax.runs.log import Log

USERS, FOLDS, RANKS = 943, 5, 10
ALIKE = 0.85
"""Share of ranks that come out alike for both systems."""
COMPARISONS, LEVEL_COMPARISONS = 100, 2000
RESAMPLES, LEVEL_RESAMPLES = 10_000, 1000
HIT_GAIN = 0.0355
ONE_FOLD_USERS = 456  # with a positive in the test part of u1
Json = dict[str, Any]


def simulate(
  rng: np.random.Generator, *, gain: float, users: int = USERS, folds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray]:
  """NDCG@10 per user of a system and of one whose hits are `gain` likelier, [U] float64 each.

  Args: rng: consumed. gain: relative; 0 for two copies. users, folds: how many of each.
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
  """[U, FOLDS] of hits [U, FOLDS, RANKS] bool and relevant items [U, FOLDS, 1]."""
  discount = 1 / np.log2(np.arange(RANKS) + 2.0)
  ideal = np.concatenate([[0.0], np.cumsum(discount)])
  most = np.minimum(relevant[..., 0], RANKS).astype(int)
  return (hits * discount).sum(axis=2) / ideal[most]


def run_statistics(
  *, comparisons: int = COMPARISONS, level_comparisons: int = LEVEL_COMPARISONS, log: Log
) -> Json:
  """Counts verdicts of simulated comparisons.

  Args: comparisons: of each planted check. level_comparisons: behind the level of the intervals,
    with fewer resamples each. log: where lines for the user go.
  """
  rows = []
  one_fold = {"users": ONE_FOLD_USERS, "folds": 1}
  for name, gain, size, wanted, count, resamples, share in (
    ("two copies", 0.0, {}, "not separated", comparisons, RESAMPLES, 0.95),
    ("+3 %", HIT_GAIN, {}, "ahead", comparisons, RESAMPLES, 0.90),
    ("+3 %, one fold alone", HIT_GAIN, one_fold, "ahead", comparisons, RESAMPLES, None),
    ("two copies, the level", 0.0, {}, "not separated", level_comparisons, LEVEL_RESAMPLES, None),
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


def table(results: Json) -> tuple[str, list[str], list[list[str]], list[str]]:
  """Title, headings, cells and notes."""
  head = ["planted", "comparisons", "ahead", "not separated", "behind", "wanted", "NDCG@10 gain"]
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
    f"{results['users']} users, {results['folds']} folds averaged per user first (one fold alone: "
    f"{ONE_FOLD_USERS} users); 95 % intervals",
    "a test that holds its 5 % level just so finds 95 or more of 100 copies not separated in 62 of "
    "100 cases: the level over many comparisons says more",
    "simulated users with the spread of ML-100K; gains are relative, means over comparisons",
  ]
  return "Verdicts where the truth is known", head, rows, notes
