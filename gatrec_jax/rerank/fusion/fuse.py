"""Fuses other rankers with the base only if validation shows that they improve it.

Weights are learned on users whose relevant items are known (validation ratings). Their gain is
measured by cross-fitting: each user's gain comes from weights learned without that user, since the
gain on the users that weights were chosen on would be biased upward. Unless the confidence interval
of the mean gain lies above 0, all weights are 0 and the order is that of the base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.significance import Difference, paired_difference
from gatrec_jax.rerank.fusion.rules import Rule, components_of, masked, scale_scores, summed
from gatrec_jax.rerank.fusion.selection import METHODS, Learner, folds_of

ALL_USERS = "all"
"""Name of the rule for users whose segment has no rule of its own."""

_RESAMPLES = 4000


@dataclasses.dataclass(frozen=True)
class Fusion:
  """Learned weights and the evidence for them.

  Attributes:
    method: as requested, one of `METHODS`.
    features: names of the fused features, in order.
    rules: by segment, how scores are fused; always contains `ALL_USERS`, other segments only if
      validation supports them.
    gain: cross-fitted gain in NDCG@k of one rule for all users over the base, on validation.
    segment_gains: by segment, cross-fitted gain of its own rule over the rule for all.
    tried: number of sets of weights compared.
    k: cut-off of the NDCG.
    reason: why the rule for all users was chosen.
  """

  method: str
  features: tuple[str, ...]
  rules: Mapping[str, Rule]
  gain: Difference
  segment_gains: Mapping[str, Difference]
  tried: int
  k: int
  reason: str

  @property
  def keeps_base(self) -> bool:
    """Whether all users keep the base's order."""
    return all(rule.keeps_base for rule in self.rules.values())

  @property
  def weights(self) -> dict[str, dict[str, float]]:
    """Weights by segment and feature; the base has weight 1."""
    return {name: dict(rule.weights) for name, rule in self.rules.items()}

  def says(self, base: str = "the GAT") -> str:
    """One line about the choice and its evidence. Args: base: name of the base ranker."""
    names = ["the LLM" if name == "llm" else name for name in self.features]
    who = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    general = self.rules[ALL_USERS]
    if self.gain.lo is None:
      found = self.reason
    else:
      found = f"gain {self.gain.says()} in NDCG@{self.k} over {self.gain.n} users"
    if self.gain.lo is None:
      line = f"no weight was learned for {who} ({found}): the order of {base} is kept"
    elif general.keeps_base:
      verb = "does" if len(names) == 1 else "do"
      line = f"{who} {verb} not help on validation ({found}): the order of {base} is kept"
    else:
      line = f"{who} with {base}: {general.says()} ({found} on validation)"
    own = (
      f"{name} users: {rule.says()} ({self.segment_gains[name].says()})"
      for name, rule in self.rules.items()
      if name != ALL_USERS
    )
    return "; ".join((line, *own))

  def to_json(self) -> dict[str, Any]:
    """Plain values, for files."""
    return dataclasses.asdict(self) | {"features": list(self.features)}


def fit_fusion(
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  relevant: np.ndarray,
  num_relevant: np.ndarray,
  *,
  valid: np.ndarray | None = None,
  method: str = "auto",
  segments: np.ndarray | None = None,
  k: int = 10,
  folds: int = 5,
  seed: int = 0,
  level: float = 0.95,
  min_users: int = 30,
) -> Fusion:
  """Learns the weights of features relative to the base; they may be 0.

  Args:
    base: [m, K] float, the base's scores of K candidates for each of m users.
    features: by name, [m, K] float; higher is better, NaN = absent.
    relevant: [m, K] bool, from validation ratings that neither base nor features have seen.
    num_relevant: [m] int, number of the user's relevant items, inside and outside the candidates;
      users with 0 are ignored.
    valid: [m, K] bool, False for padding; None if there is none.
    method: "zscore": z(base) + Σ w · z(feature); "reciprocal": 1 / (c + rank) in place of z;
      "linear": as zscore, with weights of either sign from a listwise loss; "auto": the best of the
      three by cross-fitting among the users that the weights are learned from, so that the gain is
      that of the whole procedure.
    segments: [m] names (or integers) of groups of users, such as cold and warm. A group gets its
      own rule if its cross-fitted gain over the rule for all passes the same test.
    k: cut-off of the NDCG.
    folds: parts of the users for cross-fitting, ≥ 2. seed: of the folds and the intervals.
    level: of the paired bootstrap interval, whose lower end must lie above 0. An uninformative
      ranker passes with probability (1 − level) / 2. With S segments, theirs have the level
      1 − (1 − level) / S.
    min_users: with fewer users (in total, or in a segment), all weights are 0.
  Raises: InputError for inconsistent shapes, unknown methods, or values that cannot be ranked.
  """
  valid = np.ones(np.shape(base), bool) if valid is None else np.asarray(valid, bool)
  base, features = _checked(base, features, valid=valid)
  relevant, num_relevant = _checked_truth(relevant, num_relevant, valid=valid)
  labels = _labels(segments, len(base))
  if method not in METHODS:
    raise InputError(f"fusion method {method!r}: not one of {', '.join(METHODS)}")
  if folds < 2 or k < 1 or not 0 < level < 1:
    raise InputError(
      f"fusion: folds={folds} must be at least 2, k={k} at least 1, level={level} within (0, 1)"
    )

  counted = num_relevant > 0
  learner = Learner(
    base, features, relevant, num_relevant, valid=valid, k=k, folds=folds, seed=seed
  )
  part = folds_of(len(base), folds, seed=seed)

  def compare(gains: np.ndarray, level: float) -> Difference:
    return paired_difference(
      gains, np.zeros(len(gains)), num_resamples=_RESAMPLES, seed=seed, level=level
    )

  def passes(gain: Difference) -> bool:
    return gain.lo is not None and gain.lo > 0

  nothing = learner.nothing
  if (num_users := int(counted.sum())) < min_users:
    reason = f"only {num_users} users with a relevant item, at least {min_users} are needed"
    none = Difference(0.0, None, None, num_users, 1.0, None, level)
    return Fusion(method, tuple(features), {ALL_USERS: nothing}, none, {}, learner.tried, k, reason)
  learned = [learner.learn(method, counted & (part != fold)) for fold in range(folds)]
  values = _by_fold(learned, part, learner.values)
  without = learner.values(nothing)
  gain = compare((values - without)[counted], level)
  rule = learner.learn(method, counted) if passes(gain) else nothing
  if rule.keeps_base:
    reason = "the interval of the cross-fitted gain does not lie above 0"
  else:
    reason = f"the {level:.0%} interval of the cross-fitted gain lies above 0"

  rules, segment_gains = {ALL_USERS: rule}, {}
  names = (
    []
    if segments is None
    else [
      str(name)
      for name, size in zip(*np.unique(labels[counted], return_counts=True), strict=True)
      if size >= min_users
    ]
  )
  # The alternative for users of a segment, also learned without each user.
  otherwise = without if rule.keeps_base else values
  for name in names:
    members = counted & (labels == name)
    own = [learner.learn(method, members & (part != fold)) for fold in range(folds)]
    difference = (_by_fold(own, part, learner.values) - otherwise)[members]
    segment_gains[name] = compare(difference, 1 - (1 - level) / len(names))
    if passes(segment_gains[name]):
      rules[name] = learner.learn(method, members)
  return Fusion(method, tuple(features), rules, gain, segment_gains, learner.tried, k, reason)


def apply_fusion(
  fusion: Fusion,
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  *,
  valid: np.ndarray | None = None,
  segments: np.ndarray | None = None,
) -> np.ndarray:
  """Fused scores of any users.

  Args:
    fusion: the learned weights.
    base, features, valid, segments: as in `fit_fusion`. Unknown features are ignored; segments
      without a rule of their own use the rule for all.
  Returns: [m, K] float64, −inf where not valid; sort with `order_of`. If all weights of a user's
    rule are 0, the base's scores are returned unchanged, so that the order is exactly the base's.
  Raises: InputError as `fit_fusion`, and for a missing feature.
  """
  terms = contributions(fusion, base, features, valid=valid, segments=segments)
  return masked(summed(terms), np.ones(np.shape(base), bool) if valid is None else valid)


def contributions(
  fusion: Fusion,
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  *,
  valid: np.ndarray | None = None,
  segments: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """The components of fused scores: what the base and each feature contribute to the sum.

  Args, Raises: as `apply_fusion`.
  Returns: by name, `base` first, [m, K] float64; any value where not valid.
  """
  missing = [name for name in fusion.features if name not in features]
  if missing:
    raise InputError(f"fusion was learned with {', '.join(missing)}, which is missing")
  valid = np.ones(np.shape(base), bool) if valid is None else np.asarray(valid, bool)
  base, features = _checked(base, {name: features[name] for name in fusion.features}, valid=valid)
  labels = _labels(segments, len(base))
  terms = {"base": base.astype(np.float64)}
  # Adding −0 changes no number, not even −0.
  terms |= {feature: np.full(base.shape, -0.0) for feature in fusion.features}
  for name, rule in fusion.rules.items():
    others = [other for other in fusion.rules if other != ALL_USERS]
    rows = ~np.isin(labels, others) if name == ALL_USERS else labels == name
    if rule.keeps_base or not rows.any():
      continue
    chosen = {feature: values[rows] for feature, values in features.items()}
    scaled = scale_scores(rule.method, base[rows], chosen, names=fusion.features, valid=valid[rows])
    for feature, values in components_of(scaled, rule, names=fusion.features).items():
      terms[feature][rows] = values
  return terms


def cross_fit(
  base: np.ndarray,
  features: Mapping[str, np.ndarray],
  relevant: np.ndarray,
  num_relevant: np.ndarray,
  *,
  valid: np.ndarray | None = None,
  segments: np.ndarray | None = None,
  parts: int = 2,
  seed: int = 0,
  **settings: Any,
) -> tuple[np.ndarray, list[Fusion]]:
  """Fused scores for lists without validation ratings, by cross-fitting on the evaluated ratings.

  The users are divided into parts by `seed`. The scores of each part come from a fusion that was
  learned on the other parts, by `fit_fusion` with its own cross-fitting and test.

  Args: as in `fit_fusion`, also for `settings`. parts: number of parts, 2 for halves.
  Returns: scores [m, K] float64 as from `apply_fusion`, and the fusion of each part.
  """
  if parts < 2:
    raise InputError(f"fusion: parts={parts} must be at least 2")
  base, relevant, num_relevant = map(np.asarray, (base, relevant, num_relevant))
  valid = np.ones(base.shape, bool) if valid is None else np.asarray(valid, bool)
  features = {name: np.asarray(values) for name, values in features.items()}
  labels = None if segments is None else np.asarray(segments)
  scores = np.full(base.shape, -np.inf)
  fusions = []
  part = folds_of(len(base), parts, seed=seed)
  for number in range(parts):
    inside, outside = part == number, part != number

    fusion = fit_fusion(
      base[outside],
      _rows_of(features, outside),
      relevant[outside],
      num_relevant[outside],
      valid=valid[outside],
      segments=None if labels is None else labels[outside],
      seed=seed,
      **settings,
    )
    scores[inside] = apply_fusion(
      fusion,
      base[inside],
      _rows_of(features, inside),
      valid=valid[inside],
      segments=None if labels is None else labels[inside],
    )
    fusions.append(fusion)
  return scores, fusions


def _rows_of(features: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
  return {name: values[rows] for name, values in features.items()}


def _by_fold(
  rules: Sequence[Rule], part: np.ndarray, values: Callable[[Rule], np.ndarray]
) -> np.ndarray:
  """[m] float64, each user's value under the rule that was learned without the user's fold."""
  table = np.stack([values(rule) for rule in rules])
  return table[part, np.arange(len(part))]


def _checked(
  base: np.ndarray, features: Mapping[str, np.ndarray], *, valid: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  base = np.asarray(base)
  if base.ndim != 2 or valid.shape != base.shape:
    raise InputError(f"fusion: base {base.shape} and valid {valid.shape} must be [m, K] alike")
  if not features:
    raise InputError("fusion: needs at least one feature, such as llm")
  features = {name: np.asarray(values) for name, values in features.items()}
  for name, values in {"base": base, **features}.items():
    if values.shape != base.shape:
      raise InputError(f"fusion: {name} has shape {values.shape}, but base has {base.shape}")
    if np.isinf(values[valid]).any() or (name == "base" and np.isnan(values[valid]).any()):
      absent = "" if name == "base" else " (NaN = absent)"
      raise InputError(f"fusion: {name} has non-finite values{absent}")
  return base, features


def _checked_truth(
  relevant: np.ndarray, num_relevant: np.ndarray, *, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  relevant, num_relevant = np.asarray(relevant, bool), np.asarray(num_relevant)
  if relevant.shape != valid.shape or num_relevant.shape != valid.shape[:1]:
    raise InputError(
      f"fusion: relevant {relevant.shape} and num_relevant {num_relevant.shape} must be "
      f"{valid.shape} and {valid.shape[:1]}"
    )
  relevant = relevant & valid
  if (relevant.sum(axis=1) > num_relevant).any():
    raise InputError("fusion: num_relevant is less than a user's number of relevant candidates")
  return relevant, num_relevant


def _labels(segments: np.ndarray | None, size: int) -> np.ndarray:
  """[m] names of segments as text; "" for all if there are none."""
  if segments is None:
    return np.full(size, "")
  labels = np.asarray(segments).astype(str)
  if labels.shape != (size,):
    raise InputError(f"fusion: segments have shape {labels.shape}, not ({size},)")
  if (labels == ALL_USERS).any():
    raise InputError(f"fusion: no segment may be named {ALL_USERS!r}")
  return labels
