"""Re-ranking end to end: candidates, scores of a language model, fusion, results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import write_recommendations
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.evaluate.significance import Difference, paired_difference
from gatrec_jax.explain.lists import COMPONENT_PREFIX
from gatrec_jax.rerank.candidates import Candidates
from gatrec_jax.rerank.diversity import mmr
from gatrec_jax.rerank.fusion.features import FEATURES, extra_features
from gatrec_jax.rerank.fusion.fuse import Fusion, contributions, cross_fit, fit_fusion
from gatrec_jax.rerank.fusion.rules import masked, summed
from gatrec_jax.rerank.fusion.selection import METHODS
from gatrec_jax.rerank.prompting.contexts import DISLIKED, LIKED, make_contexts
from gatrec_jax.rerank.prompting.titles import prompt_titles
from gatrec_jax.rerank.score_cache import Cost, QueryBatch, open_scores, options_of, score_lists
from gatrec_jax.rerank.scoring_plan import plan_scoring, require_sizes, shuffled
from gatrec_jax.rerank.sources import Source
from gatrec_jax.rerank.strategies.registry import Strategy
from gatrec_jax.runs.log import Log

METRIC = "ndcg@10"
ACCURACY = ("precision", "recall", "ndcg", "map", "mrr", "hit")  # 0 without a relevant candidate
SEGMENTS = ((20, "under 20"), (100, "20 to 99"), (np.inf, "100 and more"))


@dataclasses.dataclass(frozen=True)
class RerankSettings:
  """How candidates are re-ranked.

  Attributes:
    liked, disliked: maximum numbers of liked and disliked titles in a prompt.
    fusion: `linear`, `zscore`, `reciprocal`, or `auto` for the best of them by cross-fitting.
    features: to fuse in addition to the language model's scores: any of `features.FEATURES`.
    by_segment: whether users with few and with many training ratings get weights of their own if
      validation supports them.
    diversity: trade-off of MMR: 1 keeps the fused order, lower values prefer different items.
    valid_users: how many validation users the weight is learned on, drawn at random; None for as
      many as the model can score in `minutes`.
    minutes: for the lists of validation users.
    measure_only: scores only the test lists that have a relevant candidate. The accuracy is the
      same, as that of the others cannot change; other metrics are left out, and no lists are
      written.
    seed: of folds, intervals and samples.
    bootstrap: resamples for the intervals.
  """

  liked: int = LIKED
  disliked: int = DISLIKED
  fusion: str = "linear"
  features: tuple[str, ...] = ()
  by_segment: bool = False
  diversity: float = 1.0
  valid_users: int | None = None
  minutes: float = 10.0
  measure_only: bool = False
  seed: int = 0
  bootstrap: int = 10_000

  def __post_init__(self) -> None:
    if unknown := set(self.features) - set(FEATURES):
      raise InputError(
        f"must be any of {', '.join(FEATURES)}", field="features", value=",".join(unknown)
      )
    if min(self.liked, self.disliked) < 0:
      raise InputError("must be at least 0", field="history", value=self.liked)
    if self.fusion not in METHODS:
      raise InputError(f"not one of {', '.join(METHODS)}", field="fusion", value=self.fusion)
    if not 0 <= self.diversity <= 1:
      raise InputError(
        "must lie in [0, 1]; 1 keeps the order", field="diversity", value=self.diversity
      )
    require_sizes(users=self.valid_users, minutes=self.minutes)
    if self.measure_only and self.diversity < 1:
      raise InputError("needs every list; leave out `measure_only`", field="diversity")


@dataclasses.dataclass(frozen=True)
class Reranked:
  """The result of re-ranking.

  Attributes:
    candidates: the lists that were re-ranked.
    lists: [m, N] int32, the re-ranked lists.
    fusions: the learned weights: one, or one for each part of the users.
    cost: of the language model.
    results: plain values: metrics by system (`base`, `llm`, `fused`), differences, cost.
    folder: that the results were written to.
  """

  candidates: Candidates
  lists: np.ndarray
  fusions: Sequence[Fusion]
  cost: Cost
  results: Mapping[str, Any]
  folder: pathlib.Path


def rerank(
  source: Source,
  strategy: Strategy,
  *,
  model_name: str,
  model_hash: str,
  settings: RerankSettings,
  log: Log,
) -> Reranked:
  """Scores candidates, fuses the scores with the base's, evaluates on the test part, writes files.

  The result departs from the base's order only as far as validation ratings support it
  (`fusion/fuse.py`).

  Args:
    source: candidates and data about their users; results are written to rerank/… in its folder.
      Weights are learned on its validation lists. Lists from a file have none; their weights are
      cross-fitted over halves of the users. Prompts use training ratings and profiles only.
    strategy: from `make_strategy`. model_name, model_hash: of its model and adapter.
    settings: how to re-rank. log: where messages go.
  Raises:
    InputError: missing text vectors, or more candidates than letters.
    Interrupted: on a signal; calling again resumes the work.
  """
  candidates, prepared = source.candidates, source.prepared
  profiles, text_vectors = source.user_profiles, source.text_vectors
  titles = prompt_titles(strategy.model, prepared)
  parts = {"test": candidates}
  if source.validation is not None:
    parts["valid"] = shuffled(source.validation, seed=settings.seed)
  rows = {name: _has_context(part, prepared.train, profiles) for name, part in parts.items()}
  for name, kept in rows.items():
    if left := int((~kept).sum()):
      log.info(f"rerank: {left} {name} users without history and profile keep their order")
    if name == "valid" or settings.measure_only:
      kept &= parts[name].hits.any(axis=1)
  batches = [
    QueryBatch(
      name,
      [prepared.interactions.user_ids[user] for user in part.users[rows[name]]],
      make_contexts(
        prepared.train,
        part.users[rows[name]],
        titles=titles,
        profiles=profiles,
        feedback=prepared.feedback,
        liked=settings.liked,
        disliked=settings.disliked,
      ),
      [[titles[item] for item in items if item >= 0] for items in part.items[rows[name]]],
    )
    for name, part in parts.items()
  ]
  folder, rate = open_scores(
    strategy, batches, source.workdir, model_name=model_name, model_hash=model_hash
  )
  plan = plan_scoring(
    rate,
    test=rows["test"],
    valid=rows.get("valid", np.zeros(0, bool)),
    users=settings.valid_users,
    minutes=settings.minutes,
  )
  log.info(f"rerank: {plan.says(f'{strategy.name} by {model_name}')}")
  if "valid" in parts:
    parts["valid"] = parts["valid"].take(np.arange(plan.valid_users))
    rows["valid"] = rows["valid"][: plan.valid_users]
  counts = [int(kept.sum()) for kept in rows.values()]
  scores, cost = score_lists(folder, strategy, batches, counts, rate=rate, log=log)
  features = {
    name: {"llm": _table(part, rows[name], given)}
    | extra_features(part, settings.features, prepared=prepared, text_vectors=text_vectors)
    for (name, part), given in zip(parts.items(), scores, strict=True)
  }
  fused, fusions, components = _fused(candidates, parts.get("valid"), features, prepared, settings)
  for fusion in fusions:
    log.info(f"rerank: {fusion.says(source.name)}")
  llm = np.nan_to_num(features["test"]["llm"], nan=-np.inf)
  llm[~rows["test"]] = candidates.base[~rows["test"]]
  lists = {
    "base": candidates.lists,
    "llm": candidates.reordered(llm),
    "fused": candidates.reordered(fused),
  }
  if settings.diversity < 1:
    num_users = prepared.interactions.num_users
    lists["diverse"] = _diverse(candidates, fused, text_vectors, settings, num_users=num_users)
  results = _results(lists, candidates, prepared, source.truth, text_vectors, settings) | {
    "fusion": [fusion.to_json() for fusion in fusions],
    "says": [fusion.says(source.name) for fusion in fusions],
    "cost": dataclasses.asdict(cost),
    "plan": dataclasses.asdict(plan),
    "strategy": strategy.name,
    "options": options_of(strategy),
    "llm_name": model_name,
    "settings": dataclasses.asdict(settings),
    "environment": runs.environment(),
  }
  final = lists.get("diverse", lists["fused"])
  files = []
  if not settings.measure_only:
    files.append("recommendations.parquet")
    ids = prepared.interactions
    write_recommendations(
      folder / files[0],
      users=candidates.users,
      items=final,
      scores=np.broadcast_to(1.0 / np.arange(1, final.shape[1] + 1), final.shape),
      user_ids=ids.user_ids,
      item_ids=ids.item_ids,
      more={
        f"{COMPONENT_PREFIX}{name}": candidates.along(final, values)
        for name, values in components.items()
      },
    )
  runs.write_sealed(folder / "results.json", results, files=files)
  return Reranked(candidates, final, fusions, cost, results, folder)


def _has_context(
  part: Candidates, train: Interactions, profiles: Sequence[str | None]
) -> np.ndarray:
  """[m] bool: users with candidates and a history or a profile that a prompt can describe."""
  rated = np.bincount(train.user, minlength=train.num_users)[part.users] > 0
  described = np.array([bool(profiles[user]) for user in part.users], bool)
  return (rated | described) & part.valid.any(axis=1)


def _table(part: Candidates, kept: np.ndarray, scores: Sequence[np.ndarray]) -> np.ndarray:
  """[m, K] float32 from the scores of the kept lists; NaN for padding and other lists."""
  table = np.full(part.items.shape, np.nan, np.float32)
  for row, values in zip(np.flatnonzero(kept), scores, strict=True):
    table[row, : len(values)] = values
  return table


def _fused(
  candidates: Candidates,
  validation: Candidates | None,
  features: Mapping[str, Mapping[str, np.ndarray]],
  prepared: Prepared,
  settings: RerankSettings,
) -> tuple[np.ndarray, list[Fusion], dict[str, np.ndarray]]:
  """Fused scores [m, K] of the test lists, the weights, and the components of the scores by name
  ({} for cross-fitted weights)."""
  count = np.bincount(prepared.train.user, minlength=prepared.train.num_users)

  def segments(part: Candidates) -> np.ndarray | None:
    if not settings.by_segment:
      return None
    ends = np.array([end for end, _ in SEGMENTS])
    return np.array([name for _, name in SEGMENTS])[
      np.searchsorted(ends, count[part.users], side="right")
    ]

  shared = {"method": settings.fusion, "seed": settings.seed}
  if validation is None:
    scores, fusions = cross_fit(
      candidates.base,
      features["test"],
      candidates.hits,
      candidates.num_relevant,
      valid=candidates.valid,
      segments=segments(candidates),
      **shared,
    )
    return scores, fusions, {}
  fusion = fit_fusion(
    validation.base,
    features["valid"],
    validation.hits,
    validation.num_relevant,
    valid=validation.valid,
    segments=segments(validation),
    **shared,
  )
  terms = contributions(
    fusion, candidates.base, features["test"], valid=candidates.valid, segments=segments(candidates)
  )
  return masked(summed(terms), candidates.valid), [fusion], terms


def _diverse(
  candidates: Candidates,
  fused: np.ndarray,
  text_vectors: np.ndarray | None,
  settings: RerankSettings,
  *,
  num_users: int,
) -> np.ndarray:
  """[m, N] int32 lists with the candidates in the order of MMR."""
  if text_vectors is None:
    raise InputError(
      "needs text vectors of the items, which this run does not have", field="diversity"
    )
  order = mmr(
    np.where(candidates.valid, fused, 0.0),
    text_vectors[num_users:],
    items=candidates.items,
    valid=candidates.valid,
    trade_off=settings.diversity,
    k=candidates.top,
  )
  head = np.take_along_axis(candidates.items, np.maximum(order, 0), axis=1)
  head = np.where(order >= 0, head, -1)
  return np.concatenate([head, candidates.lists[:, candidates.top :]], axis=1)


def _results(
  lists: Mapping[str, np.ndarray],
  candidates: Candidates,
  prepared: Prepared,
  truth: Interactions,
  text_vectors: np.ndarray | None,
  settings: RerankSettings,
) -> dict[str, Any]:
  """Full-ranking metrics of each system on `truth`, and paired differences from the base."""
  num_users = prepared.interactions.num_users
  diversity = text_vectors is not None and not settings.measure_only
  evaluations = {
    name: full_ranking(
      items,
      candidates.users,
      train=prepared.known,
      test=truth,
      feedback=prepared.feedback,
      ks=(5, 10, 20),
      num_bootstrap=1000,
      item_vectors=text_vectors[num_users:] if diversity else None,
    )
    for name, items in lists.items()
  }
  base = evaluations["base"].per_user
  differences = {
    name: {
      metric: dataclasses.asdict(_difference(evaluation.per_user[metric], base[metric], settings))
      for metric in (METRIC, "recall@10", "diversity@10")
      if metric in base
    }
    for name, evaluation in evaluations.items()
    if name != "base"
  }
  metrics = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
  if settings.measure_only:
    metrics = {
      system: {name: value for name, value in found.items() if name.startswith(ACCURACY)}
      for system, found in metrics.items()
    }
  return {"metrics": metrics, "differences": differences}


def _difference(values: np.ndarray, base: np.ndarray, settings: RerankSettings) -> Difference:
  return paired_difference(values, base, num_resamples=settings.bootstrap, seed=settings.seed)
