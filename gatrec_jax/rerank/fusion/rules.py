"""Fuses scores of several rankers over the same candidates: pure functions on arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

RANK_CONSTANT = 60
"""c in 1 / (c + rank), as in Cormack, Clarke and Büttcher (2009)."""


@dataclasses.dataclass(frozen=True)
class Rule:
  """A weighted sum of scores: base + Σ weight · feature, all on the method's scale.

  Attributes:
    method: "zscore" or "linear" (standardized scores; they differ in how the weights are learned),
      or "reciprocal" (reciprocal ranks).
    weights: by feature; the base has weight 1.
    rank_share: share of the base's standardized −log rank in its scores, from 0 to 1; the rest are
      its standardized scores (method "linear").
  """

  method: str
  weights: Mapping[str, float]
  rank_share: float = 0.0

  @property
  def keeps_base(self) -> bool:
    """Whether all weights are 0, so that the order is that of the base."""
    return not any(self.weights.values())

  def says(self) -> str:
    """One line such as "zscore, llm × 0.2"."""
    if self.keeps_base:
      return "the base's order"
    terms = (f"{name} × {weight:.3g}" for name, weight in self.weights.items() if weight)
    return ", ".join((self.method, *terms))


@dataclasses.dataclass(frozen=True)
class ScaledScores:
  """Base and features on one method's scale.

  Attributes:
    base: [m, K] float64.
    log_ranks: [m, K] float64, standardized −log rank of the base; 0 for the reciprocal method.
    features: [F, m, K] float64, in the order of the given names.
  """

  base: np.ndarray
  log_ranks: np.ndarray
  features: np.ndarray


def z_scores(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """Standardizes each list: values minus their mean, divided by their standard deviation.

  Args: values: [m, K] float, NaN = absent. valid: [m, K] bool.
  Returns: [m, K] float64; 0 for absent and invalid items, and for lists with all values equal.
  """
  present = valid & ~np.isnan(values)
  known = np.where(present, values, 0.0).astype(np.float64)
  count = np.maximum(present.sum(axis=1, keepdims=True), 1)
  centered = np.where(present, known - known.sum(axis=1, keepdims=True) / count, 0.0)
  deviation = np.sqrt((centered**2).sum(axis=1, keepdims=True) / count)
  # Equality is tested on the values, because the mean of equal values may be off by rounding.
  highest = np.where(present, known, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
  lowest = np.where(present, known, np.inf).min(axis=1, keepdims=True, initial=np.inf)
  varied = (highest > lowest) & (deviation > 0)
  return np.where(varied, centered / np.where(varied, deviation, 1.0), 0.0)


def reciprocal_ranks(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """1 / (c + rank) of each item by descending value; items of equal value share a mean rank.

  Args: values: [m, K] float, NaN = absent. valid: [m, K] bool.
  Returns: [m, K] float64, 0 for absent and invalid items.
  """
  from scipy.stats import rankdata

  present = valid & ~np.isnan(values)
  if not present.any():
    return np.zeros(values.shape)
  ranks = rankdata(np.where(present, -values.astype(np.float64), np.inf), axis=1)
  return np.where(present, 1.0 / (RANK_CONSTANT + ranks), 0.0)


def scale_scores(
  method: str,
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  *,
  names: Sequence[str],
  valid: np.ndarray,
) -> ScaledScores:
  """Scales base and features for a method.

  Args:
    method: as in `Rule`. base: [m, K] float. features: by name, [m, K] float.
    names: of the features to take, in order. valid: [m, K] bool.
  """
  # Base items with equal scores keep their order, as in the base's own list.
  ranks = np.argsort(order_of(masked(base, valid)), axis=1) + 1.0
  if method == "reciprocal":
    scale = reciprocal_ranks
    scaled, log_ranks = np.where(valid, 1.0 / (RANK_CONSTANT + ranks), 0.0), np.zeros(base.shape)
  else:
    scale = z_scores
    scaled, log_ranks = scale(base, valid), scale(-np.log(ranks), valid)
  return ScaledScores(scaled, log_ranks, np.stack([scale(features[name], valid) for name in names]))


def fuse_scores(
  scores: ScaledScores, rule: Rule, *, names: Sequence[str], valid: np.ndarray
) -> np.ndarray:
  """base + Σ weight · feature: [m, K] float64, −inf where not valid."""
  return masked(summed(components_of(scores, rule, names=names)), valid)


def components_of(
  scores: ScaledScores, rule: Rule, *, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """The weighted base and features, whose sum is the fused score.

  Args: scores: base and features. rule: weights. names: of the features, in order.
  Returns: by name, `base` first, [m, K] float64.
  """
  base = scores.base
  if rule.rank_share:
    base = (1 - rule.rank_share) * base + rule.rank_share * scores.log_ranks
  return {"base": base} | {
    name: rule.weights[name] * values for name, values in zip(names, scores.features, strict=True)
  }


def summed(terms: Mapping[str, np.ndarray]) -> np.ndarray:
  """The sum of the terms in order. Unlike `sum` it does not start at 0, which would change −0."""
  return functools.reduce(np.add, terms.values())


def masked(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """The scores [m, K] as float64, −inf where not valid."""
  return np.where(valid, scores, -np.inf).astype(np.float64)


def order_of(scores: np.ndarray) -> np.ndarray:
  """Positions [m, K] int64 by descending score; equal scores keep their order."""
  return np.argsort(-scores, axis=1, kind="stable")
