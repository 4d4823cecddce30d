"""Selects the weights that are best on given users. Their gain is measured on other users."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import numpy as np

from gatrec_jax.evaluate import metrics
from gatrec_jax.rerank.fusion.linear import fit_linear
from gatrec_jax.rerank.fusion.rules import (
  Rule,
  ScaledScores,
  fuse_scores,
  masked,
  order_of,
  scale_scores,
)

METHODS = ("zscore", "reciprocal", "linear", "auto")

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Possible weights of a feature for the methods zscore and reciprocal; the base has weight 1."""

# Rounds of coordinate ascent over several features.
_ROUNDS = 2

_ndcg = functools.partial(jax.jit, static_argnames="k")(metrics.ndcg)


def folds_of(size: int, folds: int, *, seed: int) -> np.ndarray:
  """[size] int64, the fold of each user; fold sizes differ by at most one."""
  return np.random.default_rng(seed).permutation(size) % folds


class Learner:
  """Searches rules by their NDCG on a set of users, and computes each rule's values once.

  Attributes:
    nothing: the rule that keeps the base's order.
    tried: number of sets of weights compared so far, including all zeros.
  """

  def __init__(
    self,
    base: np.ndarray,
    features: Mapping[str, np.ndarray],
    relevant: np.ndarray,
    num_relevant: np.ndarray,
    *,
    valid: np.ndarray,
    k: int,
    folds: int,
    seed: int,
  ) -> None:
    """Args: as in `fuse.fit_fusion`. folds: parts of the users by which "auto" chooses."""
    self._base, self._features, self._valid = base, features, valid
    self._relevant, self._num_relevant, self._k = relevant, num_relevant.astype(np.int32), k
    self._folds, self._seed = folds, seed
    self._names = tuple(features)
    self._scaled_scores: dict[str, ScaledScores] = {}
    self._values: dict[tuple[str | float, ...], np.ndarray] = {}
    self.nothing = Rule("zscore", dict.fromkeys(self._names, 0.0))
    self.values(self.nothing)

  @property
  def tried(self) -> int:
    return len(self._values)

  def values(self, rule: Rule) -> np.ndarray:
    """NDCG@k of each user under the rule, [m] float64."""
    # The base's order is the same for all methods and must not depend on their rounding.
    key = () if rule.keeps_base else (rule.method, rule.rank_share, *rule.weights.values())
    if key not in self._values:
      if rule.keeps_base:
        scores = masked(self._base, self._valid)
      else:
        scaled = self._scaled(rule.method)
        scores = fuse_scores(scaled, rule, names=self._names, valid=self._valid)
      hits = np.take_along_axis(self._relevant, order_of(scores)[:, : self._k], axis=1)
      found = _ndcg(hits, self._num_relevant, k=self._k)
      self._values[key] = np.asarray(found, np.float64)
    return self._values[key]

  def learn(self, method: str, rows: np.ndarray) -> Rule:
    """The method's best rule for the users `rows` [m] bool; at equal values, smaller weights."""
    if not rows.any():
      return self.nothing
    if method == "auto":
      return self.learn(self._best_method(rows), rows)
    if method == "linear":
      weights, rank_share = fit_linear(
        self._scaled(method), self._relevant, valid=self._valid, rows=rows
      )
      return self._rule(method, weights.tolist(), rank_share)
    return self._best_weights(method, rows)

  def _best_method(self, rows: np.ndarray) -> str:
    """The method whose rules are best by cross-validation among the users `rows` [m] bool."""
    users = np.flatnonzero(rows)
    part = np.full(len(rows), -1)
    part[users] = folds_of(len(users), self._folds, seed=self._seed + 1)
    totals = {
      method: sum(
        self.values(self.learn(method, rows & (part != fold)))[part == fold].sum()
        for fold in range(self._folds)
      )
      for method in METHODS
      if method != "auto"
    }
    return max(totals, key=totals.get)

  def _best_weights(self, method: str, rows: np.ndarray) -> Rule:
    """Coordinate ascent over `WEIGHTS`, starting at 0; a single feature needs one round."""
    weights = [0.0] * len(self._names)
    for _ in range(_ROUNDS if len(weights) > 1 else 1):
      for place in range(len(weights)):
        tries = [self._rule(method, [*weights[:place], w, *weights[place + 1 :]]) for w in WEIGHTS]
        means = [self.values(rule)[rows].mean() for rule in tries]
        weights[place] = WEIGHTS[int(np.argmax(means))]
    return self._rule(method, weights)

  def _rule(self, method: str, weights: list[float], rank_share: float = 0.0) -> Rule:
    return Rule(method, dict(zip(self._names, weights, strict=True)), rank_share)

  def _scaled(self, method: str) -> ScaledScores:
    # zscore and linear use the same scale.
    scale = "reciprocal" if method == "reciprocal" else "zscore"
    if scale not in self._scaled_scores:
      self._scaled_scores[scale] = scale_scores(
        scale, self._base, self._features, names=self._names, valid=self._valid
      )
    return self._scaled_scores[scale]
