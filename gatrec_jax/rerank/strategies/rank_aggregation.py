"""Aggregates rankings of subsets of the candidates into one score per candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# TrueSkill's defaults: the prior of a skill is 25 ± 25/3, and a game adds noise of 25/6.
SKILL, DEVIATION, NOISE = 25.0, 25.0 / 3, 25.0 / 6


def overlapping(count: int, size: int, stride: int) -> list[range]:
  """Windows of `size` over 0 … count − 1 at distances of `stride`; the last one ends at the end.

  Args: stride: below `size`, so that neighboring windows share candidates.
  """
  if count <= size:
    return [range(count)]
  starts = [*range(0, count - size, stride), count - size]
  return [range(start, start + size) for start in starts]


def borda(rankings: Sequence[Sequence[int]], count: int) -> np.ndarray:
  """Borda scores: the share of opponents that a candidate outranks, averaged over rankings.

  Args: rankings: places of candidates, the best first. count: K.
  Returns: [K] float32; 0 for a candidate in no ranking, ½ for one that is alone in its ranking.
  """
  points, times = np.zeros(count), np.zeros(count)
  for ranking in rankings:
    last = len(ranking) - 1
    for rank, place in enumerate(ranking):
      points[place] += (last - rank) / last if last else 0.5
      times[place] += 1
  return (points / np.maximum(times, 1)).astype(np.float32)


def true_skill(rankings: Sequence[Sequence[int]], count: int) -> np.ndarray:
  """Mean TrueSkill ratings after all games that the rankings stand for.

  Each pair of a ranking is a game won by the higher one; games are played ranking by ranking, upper
  pairs first. Each game updates both players by TrueSkill's rule for two players without draws
  (Herbrich, Minka & Graepel 2006, "TrueSkill: A Bayesian Skill Rating System", §3 and table 1;
  dynamics τ = 0). This approximates the exact posterior of a ranking, which would need message
  passing.

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
  """V(t) = φ(t) / Φ(t); about −t far below 0, where both underflow."""
  below = math.erfc(-surprise / math.sqrt(2)) / 2
  if below < 1e-300:
    return -surprise
  return math.exp(-(surprise**2) / 2) / math.sqrt(2 * math.pi) / below


MERGES = {"borda": borda, "trueskill": true_skill}
