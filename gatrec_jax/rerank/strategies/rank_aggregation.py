"""Rankings of some candidates each, merged into one score a candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# TrueSkill's own: a skill is believed to be 25 ± 25/3, a game adds a noise of 25/6.
SKILL, DEVIATION, NOISE = 25.0, 25.0 / 3, 25.0 / 6


def overlapping(count: int, size: int, stride: int) -> list[range]:
  """Windows of `size` over 0 … count - 1, each `stride` behind the one before; the last ends there.

  Args: stride: below `size`, so that neighbors have candidates in common.
  """
  if count <= size:
    return [range(count)]
  starts = [*range(0, count - size, stride), count - size]
  return [range(start, start + size) for start in starts]


def borda(rankings: Sequence[Sequence[int]], count: int) -> np.ndarray:
  """Borda points: the share of its opponents that a candidate is above, averaged over rankings.

  Args: rankings: places of candidates, the best first. count: K.
  Returns: [K] float32; 0 for a candidate in no ranking, ½ for one that is alone in its own.
  """
  points, times = np.zeros(count), np.zeros(count)
  for ranking in rankings:
    last = len(ranking) - 1
    for rank, place in enumerate(ranking):
      points[place] += (last - rank) / last if last else 0.5
      times[place] += 1
  return (points / np.maximum(times, 1)).astype(np.float32)


def true_skill(rankings: Sequence[Sequence[int]], count: int) -> np.ndarray:
  """Means of Gaussian skills after all games that the rankings stand for.

  Each pair of a ranking is a game that the one above has won, ranking after ranking, the upper
  pairs first. A game moves both means and narrows both deviations by TrueSkill's update for two
  players without draws (Herbrich, Minka & Graepel 2006, "TrueSkill: A Bayesian Skill Rating
  System", §3 and table 1; dynamics τ = 0). The exact posterior of a ranking of many players would
  need message passing; pairs are an approximation of it.

  Args: rankings: places of candidates, the best first. count: K.
  Returns: [K] float32; `SKILL` for a candidate in no game.
  """
  mean, variance = np.full(count, SKILL), np.full(count, DEVIATION**2)
  for ranking in rankings:
    for rank, winner in enumerate(ranking):
      for loser in ranking[rank + 1 :]:
        spread = math.sqrt(2 * NOISE**2 + variance[winner] + variance[loser])
        surprise = (mean[winner] - mean[loser]) / spread
        shift = _truncated_mean(surprise)
        narrowing = shift * (shift + surprise)
        for place, sign in ((winner, 1), (loser, -1)):
          mean[place] += sign * variance[place] / spread * shift
          variance[place] *= 1 - variance[place] / spread**2 * narrowing
  return mean.astype(np.float32)


def _truncated_mean(surprise: float) -> float:
  """V(t) = φ(t) / Φ(t); about -t far below 0, where both vanish."""
  below = math.erfc(-surprise / math.sqrt(2)) / 2
  if below < 1e-300:
    return -surprise
  return math.exp(-(surprise**2) / 2) / math.sqrt(2 * math.pi) / below


MERGES = {"borda": borda, "trueskill": true_skill}
