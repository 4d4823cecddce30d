"""Compares systems: users are the unit, and their folds and seeds are averaged first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError, require_list
from gatrec_jax.evaluate.evaluation import Estimate, bootstrap_intervals
from gatrec_jax.evaluate.significance import Difference, holm, paired_difference
from gatrec_jax.evaluate.user_values import UserValues
from gatrec_jax.runs.log import Log

Runs = Mapping[str, Sequence[UserValues]]
"""Runs by system."""


@dataclasses.dataclass(frozen=True)
class Against:
  """How a system compares with the reference.

  Attributes:
    difference: system − reference, paired over users.
    holm_p_value: corrected for the number of systems compared, metric by metric.
  """

  difference: Difference
  holm_p_value: float


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Systems, best first by the first metric.

  Attributes:
    protocol: "full" or "judged".
    reference: the system that the others are compared with.
    metrics: names, such as "ndcg@10".
    estimates: by system and metric, means over users with intervals.
    against: by system and metric; the reference is absent.
    parts, seeds: by system, what it was averaged over.
    num_resamples, seed, level: of intervals and tests.
  """

  protocol: str
  reference: str
  metrics: tuple[str, ...]
  estimates: Mapping[str, Mapping[str, Estimate]]
  against: Mapping[str, Mapping[str, Against]]
  parts: Mapping[str, tuple[str, ...]]
  seeds: Mapping[str, tuple[int, ...]]
  num_resamples: int
  seed: int
  level: float


def values_by_protocol(
  values: Sequence[UserValues], protocol: str | None, *, below: Sequence[int], log: Log
) -> dict[str, dict[str, list[UserValues]]]:
  """The users' metrics by protocol and system, one entry for each table to show.

  The chosen protocols come first. Then come those that only some splits have: the ranking of new
  items and of new users, for the systems that support it. Last are the chosen protocols restricted
  to users with fewer training ratings than each number of `below`.

  Args:
    values: of all runs and protocols. protocol: `full`, `judged`, `both`, or None for `full`.
    below: numbers of training ratings. log: gets a line for a number without users.
  Raises: InputError for a run that was not evaluated under a chosen protocol.
  """
  chosen = ("full", "judged") if protocol == "both" else (protocol or "full",)
  found: dict[str, dict[str, list[UserValues]]] = {name: {} for name in chosen}
  for one in values:
    if one.protocol in chosen or one.protocol not in ("full", "judged"):
      found.setdefault(one.protocol, {}).setdefault(one.system, []).append(one)
  for name in chosen:
    have = {(one.system, one.part, one.seed) for own in found[name].values() for one in own}
    for one in values:
      if (one.system, one.part, one.seed) not in have:
        raise InputError(
          f"{one.system} on {one.part} (seed {one.seed}) was not evaluated under `protocol={name}`"
        )
  for count in below:
    for name in chosen:
      few = {system: [one.below(count) for one in own] for system, own in found[name].items()}
      if any(one.user_ids for own in few.values() for one in own):
        found[f"{name}_below_{count}"] = few
      else:
        log.info(f"below {count}: no user has so few training ratings, so that table is omitted")
  return found


def average_over_runs(runs: Sequence[UserValues], metric: str, users: Sequence[str]) -> np.ndarray:
  """[n] float64: a metric of each user, averaged over seeds within a part, then over parts.

  Args: runs: of one system. metric: its name. users: [n] raw ids.
  Returns: NaN for users whom no run counts; runs that do not count a user are left out of the
    average.
  Raises: InputError if a run lacks the metric.
  """
  place = {user: row for row, user in enumerate(users)}
  by_part: dict[str, list[np.ndarray]] = {}
  for run in runs:
    if metric not in run.values:
      have = ", ".join(list(run.values)[:8])
      raise InputError(
        f"{run.system} has no such metric, but {have}, …", field="metrics", value=metric
      )
    row = np.full(len(users), np.nan)
    row[[place[user] for user in run.user_ids]] = run.values[metric]
    by_part.setdefault(run.part, []).append(row)
  return _mean([_mean(rows) for rows in by_part.values()])


def compare_systems(
  runs: Runs,
  *,
  reference: str,
  metrics: Sequence[str],
  num_resamples: int = 10_000,
  seed: int = 0,
  level: float = 0.95,
) -> Comparison:
  """The means of every system, and their differences from the reference.

  Systems that do not depend on a seed (closed forms) may have fewer runs of a part than others.

  Args:
    runs: by system, all of one protocol.
    reference: one of the systems. metrics: names; the first one sorts.
    num_resamples: of users for the intervals, of signs for the p-values. seed: of both.
    level: of the intervals.
  Raises:
    InputError: results of different splits or protocols, a part that only some systems have, a run
      given twice, a missing metric, a reference that is not there.

  >>> def run(system, values):
  ...   metrics = {"ndcg@10": np.array(values)}
  ...   return UserValues(system, "u1", 0, "full", ("7", "9"), None, metrics, truth="a hash")
  >>> runs = {"ease": [run("ease", [0.25, 0.5])], "mine": [run("mine", [0.5, 1.0])]}
  >>> found = compare_systems(runs, reference="ease", metrics=["ndcg@10"])
  >>> list(found.estimates), found.against["mine"]["ndcg@10"].difference.mean
  (['mine', 'ease'], 0.375)
  """
  _require_same_parts(runs, reference)
  metrics = tuple(dict.fromkeys(require_list(metrics, field="metrics")))
  users = sorted({user for own in runs.values() for run in own for user in run.user_ids})
  values = {
    system: {metric: average_over_runs(own, metric, users) for metric in metrics}
    for system, own in runs.items()
  }
  estimates = {
    system: {
      metric: _estimate(row, num_resamples=num_resamples, seed=seed, level=level)
      for metric, row in own.items()
    }
    for system, own in values.items()
  }
  others = [system for system in runs if system != reference]
  against: dict[str, dict[str, Against]] = {system: {} for system in others}
  for metric in metrics:
    differences = [
      paired_difference(
        values[system][metric],
        values[reference][metric],
        num_resamples=num_resamples,
        seed=seed,
        level=level,
      )
      for system in others
    ]
    corrected = holm([difference.p_value for difference in differences])
    for system, difference, p_value in zip(others, differences, corrected, strict=True):
      against[system][metric] = Against(difference, float(p_value))
  order = sorted(runs, key=lambda system: -estimates[system][metrics[0]].mean)
  protocols = {run.protocol for own in runs.values() for run in own}
  return Comparison(
    "/".join(sorted(protocols)),
    reference,
    metrics,
    {s: estimates[s] for s in order},
    against,
    {s: tuple(dict.fromkeys(run.part for run in runs[s])) for s in order},
    {s: tuple(sorted({run.seed for run in runs[s]})) for s in order},
    num_resamples,
    seed,
    level,
  )


def comparison_json(
  comparisons: Sequence[Comparison], facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
  """`{"reference": …, "models": {"ease": {"full": {"ndcg@10": {"mean": …, "against_reference":
  {…}}}, "train_seconds": …}}}`.

  Args: comparisons: of the same runs under one protocol each, the first of all systems. facts: by
    system, what else is known of it.
  """
  first = comparisons[0]
  models: dict[str, dict[str, Any]] = {
    system: {
      comparison.protocol: _metrics_json(comparison, system)
      for comparison in comparisons
      if system in comparison.estimates
    }
    | {"parts": first.parts[system], "seeds": first.seeds[system], **facts.get(system, {})}
    for system in first.estimates
  }
  return {
    "reference": first.reference,
    "level": first.level,
    "num_resamples": first.num_resamples,
    "seed": first.seed,
    "models": models,
  }


def _metrics_json(comparison: Comparison, system: str) -> dict[str, Any]:
  metrics: dict[str, Any] = {}
  for metric, estimate in comparison.estimates[system].items():
    metrics[metric] = dataclasses.asdict(estimate)
    if system in comparison.against:
      found = comparison.against[system][metric]
      metrics[metric]["against_reference"] = {
        **dataclasses.asdict(found.difference),
        "holm_p_value": found.holm_p_value,
        "verdict": found.difference.verdict,
      }
  return metrics


def _require_same_parts(runs: Runs, reference: str) -> None:
  """Raises InputError unless all were tested on the same users and ratings, once a seed."""
  if reference not in runs:
    raise InputError(f"not among {', '.join(runs)}", field="reference", value=reference)
  truths = {s: {run.part: run.truth for run in own} for s, own in runs.items()}
  protocols = {s: {run.protocol for run in own} for s, own in runs.items()}
  for system, own in runs.items():
    for run in own:
      if run.truth != truths[system][run.part]:
        raise InputError(
          f"results of different splits cannot be compared: {system} has two kinds of "
          f"'{run.part}' among its runs"
        )
    if protocols[system] != protocols[reference] or len(protocols[system]) > 1:
      ours, theirs = ("/".join(sorted(protocols[s])) for s in (system, reference))
      raise InputError(
        f"results of different protocols cannot be compared: {system} and {reference} "
        f"({ours}; {theirs})"
      )
    # A run that stands twice would count twice in its users' averages.
    for part, seed in {(run.part, run.seed) for run in own}:
      if sum((run.part, run.seed) == (part, seed) for run in own) > 1:
        raise InputError(f"{system} was given twice for '{part}' with seed {seed}; once is right")
    if truths[system] != truths[reference]:
      ours, theirs = (", ".join(sorted(truths[s])) for s in (system, reference))
      what = f"{system} was tested on {ours}, {reference} on {theirs}"
      if ours == theirs:
        what += ", with other ratings"
      raise InputError(f"results of different splits cannot be compared: {what}")


def _estimate(row: np.ndarray, *, num_resamples: int, seed: int, level: float) -> Estimate:
  counted = int((~np.isnan(row)).sum())
  lo, hi = bootstrap_intervals(row[:, None], num_resamples=num_resamples, seed=seed, level=level)
  if not counted:
    return Estimate(0.0, None, None, 0)
  return Estimate(float(np.nanmean(row)), float(lo[0]), float(hi[0]), counted)


def _mean(rows: Sequence[np.ndarray]) -> np.ndarray:
  """[n] means over rows [n]; NaN counts for nothing, and stays where nothing counts."""
  table = np.stack(rows)
  counted = ~np.isnan(table)
  total = np.where(counted, table, 0.0).sum(axis=0)
  return np.where(counted.any(axis=0), total / np.maximum(counted.sum(axis=0), 1), np.nan)
