"""How the scores of several rankers over the same candidates become one: pure functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

RANK_CONSTANT = 60
"""c of 1 / (c + rank), as Cormack, Clarke and Büttcher (2009) have it."""


@dataclasses.dataclass(frozen=True)
class Rule:
  """One way to fuse: base + Σ weight · feature, all brought to the method's scale.

  Attributes:
    method: "zscore" or "linear" (standardized scores; they differ in how weights are found), or
      "reciprocal" (reciprocal ranks).
    weights: by feature; the base's own weight is 1.
    rank_share: how much of the base's standardized scores stands aside for its standardized −log
      rank (method "linear"); 0 … 1.
  """

  method: str
  weights: Mapping[str, float]
  rank_share: float = 0.0

  @property
  def keeps_base(self) -> bool:
    """Whether every weight is 0, so that the order is the base's."""
    return not any(self.weights.values())

  def says(self) -> str:
    """`zscore, llm × 0.2`."""
    if self.keeps_base:
      return "the base's order"
    terms = (f"{name} × {weight:.3g}" for name, weight in self.weights.items() if weight)
    return ", ".join((self.method, *terms))


@dataclasses.dataclass(frozen=True)
class Parts:
  """Base and features of one method's scale.

  Attributes:
    base: [m, K] float64.
    log_ranks: [m, K] float64, standardized −log rank of the base; 0 by the reciprocal method.
    features: [F, m, K] float64, in the order of the names given.
  """

  base: np.ndarray
  log_ranks: np.ndarray
  features: np.ndarray


def z_scores(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """Each list's values minus their mean, ÷ their standard deviation.

  Args: values: [m, K] float, NaN = absent. valid: [m, K] bool.
  Returns: [m, K] float64; 0 (no evidence either way) for absent and invalid items, and all over a
    list whose values are all equal.
  """
  present = valid & ~np.isnan(values)
  filled = np.where(present, values, 0.0).astype(np.float64)
  count = np.maximum(present.sum(axis=1, keepdims=True), 1)
  centered = np.where(present, filled - filled.sum(axis=1, keepdims=True) / count, 0.0)
  deviation = np.sqrt((centered**2).sum(axis=1, keepdims=True) / count)
  # Compared by the values themselves: the mean of equal values may be off by rounding.
  highest = np.where(present, filled, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
  lowest = np.where(present, filled, np.inf).min(axis=1, keepdims=True, initial=np.inf)
  varied = (highest > lowest) & (deviation > 0)
  return np.where(varied, centered / np.where(varied, deviation, 1.0), 0.0)


def reciprocal_ranks(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """1 / (c + rank) of each item by its value, best first; items of equal value share a mean rank.

  Args: values: [m, K] float, NaN = absent. valid: [m, K] bool.
  Returns: [m, K] float64, 0 for absent and invalid items.
  """
  from scipy.stats import rankdata

  present = valid & ~np.isnan(values)
  if not present.any():
    return np.zeros(values.shape)
  ranks = rankdata(np.where(present, -values.astype(np.float64), np.inf), axis=1)
  return np.where(present, 1.0 / (RANK_CONSTANT + ranks), 0.0)


def parts_of(
  method: str,
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  *,
  names: Sequence[str],
  valid: np.ndarray,
) -> Parts:
  """Brings base [m, K] and the named features [m, K] to the scale of the method."""
  # Base items of equal score keep the order in which they are given, as in the base's own list.
  ranks = np.argsort(order_of(masked(base, valid)), axis=1) + 1.0
  if method == "reciprocal":
    scale = reciprocal_ranks
    scaled, log_ranks = np.where(valid, 1.0 / (RANK_CONSTANT + ranks), 0.0), np.zeros(base.shape)
  else:
    scale = z_scores
    scaled, log_ranks = scale(base, valid), scale(-np.log(ranks), valid)
  return Parts(scaled, log_ranks, np.stack([scale(features[name], valid) for name in names]))


def fused(parts: Parts, rule: Rule, *, names: Sequence[str], valid: np.ndarray) -> np.ndarray:
  """base + Σ weight · feature: [m, K] float64, −inf where not valid."""
  return masked(summed(added(parts, rule, names=names)), valid)


def added(parts: Parts, rule: Rule, *, names: Sequence[str]) -> dict[str, np.ndarray]:
  """What the base and each feature add: by name, `base` first, [m, K] float64."""
  base = parts.base
  if rule.rank_share:
    base = (1 - rule.rank_share) * base + rule.rank_share * parts.log_ranks
  return {"base": base} | {
    name: rule.weights[name] * part for name, part in zip(names, parts.features, strict=True)
  }


def summed(terms: Mapping[str, np.ndarray]) -> np.ndarray:
  """Their sum, in their order; unlike `sum` it does not begin with 0, which would change −0."""
  return functools.reduce(np.add, terms.values())


def masked(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """The scores [m, K] as float64, −inf where not valid."""
  return np.where(valid, scores, -np.inf).astype(np.float64)


def order_of(scores: np.ndarray) -> np.ndarray:
  """Positions [m, K] int64 from the best score to the worst; equal scores stay as they are."""
  return np.argsort(-scores, axis=1, kind="stable")
