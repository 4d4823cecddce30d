"""Measures how true and how relevant reasons are, over many recommendations of a run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.explain.audit.corruptions import corruptions
from gatrec_jax.explain.audit.fact_checker import Checker, Finding, make_checker
from gatrec_jax.explain.audit.retraining import retrained_falls
from gatrec_jax.explain.authors import Author
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.explainer import Explainer, profile_tags
from gatrec_jax.explain.lists import lists_of_run, reasons_for
from gatrec_jax.explain.reasons import Reason
from gatrec_jax.explain.rescoring import Rescorer
from gatrec_jax.runs.log import Log


@dataclasses.dataclass(frozen=True)
class Audited:
  """An audited recommendation.

  Attributes:
    user, item: indices. evidence, reason: for the recommendation.
    findings: of the fact checker. seconds: for collecting the evidence and writing the reason.
  """

  user: int
  item: int
  evidence: Evidence
  reason: Reason
  findings: Sequence[Finding]
  seconds: float


def audit_reasons(
  explainer: Explainer,
  author: Author,
  *,
  pairs: int,
  style: str,
  top_n: int,
  seed: int,
  log: Log,
  retrained: int = 0,
) -> dict[str, Any]:
  """Audits the reasons for the whole lists of randomly drawn users.

  Args:
    explainer, author: make the reasons.
    pairs: at least how many recommendations are audited.
    style: of the reasons. top_n: items per list. seed: of all draws. log: where messages go.
    retrained: for how many users the model is retrained without the ratings that one of their
      reasons cites; needs a writable run folder.
  Returns: plain values, described in `MEANINGS`.
  Raises: InputError if no user has training ratings.
  """
  rng = np.random.default_rng(seed)
  run = explainer.run
  users = np.flatnonzero(explainer.rescorer.ratings > 0)
  if not len(users):
    raise InputError(f"{run.workdir}: no user has training ratings")
  users = rng.permutation(users)[: -(-pairs // top_n)]
  whole = explainer.rescorer.whole
  checker = make_checker(
    run.prepared,
    explainer.titles,
    whole,
    _LastAnswer(explainer.rescorer),
    profile_tags(run),
    histories=run.histories,
  )
  audited: list[Audited] = []
  for place, user in enumerate(users):
    if place % 10 == 0:
      log.info(f"audit: {len(audited)} reasons for {place} of {len(users)} users")
    audited += _of_user(explainer, author, checker, int(user), style=style, top_n=top_n)
  corrupted, caught = _corrupted(audited, checker, rng)
  texts = [one.reason.text for one in audited]
  findings = [finding for one in audited for finding in one.findings]
  wrong = Counter(finding.kind for finding in findings if not finding.true)
  count = len(audited)
  return {
    "pairs": count,
    "claims": len(findings),
    "evidence_precision": 1 - sum(wrong.values()) / len(findings),
    "wrong_claims": dict(wrong),
    "invented_title_rate": _share(audited, lambda f, _: f.kind == "title"),
    "contradiction_rate": _share(audited, lambda f, one: _contradicts(f, one, checker)),
    **_fidelity(audited, checker, whole, rng),
    **_counterfactuals(audited, whole, checker),
    **_retrained(audited, explainer, retrained, rng, log),
    "model": author.name,
    "template_share": (
      sum(one.reason.by_template for one in audited)
      / sum(len(one.reason.sentences) for one in audited)
    ),
    "coverage": sum(bool(one.evidence.cited) for one in audited) / count,
    "distinct_2": _distinct_2(texts),
    "repeated_text_share": 1 - len(set(texts)) / count,
    "seconds_per_reason": sum(one.seconds for one in audited) / count,
    "corruptions": corrupted.total(),
    "corruptions_caught": caught.total() / max(corrupted.total(), 1),
    "corruptions_by_kind": {
      kind: [caught[kind], number] for kind, number in sorted(corrupted.items())
    },
  }


MEANINGS = {
  "evidence_precision": "share of claims that the independent fact checker finds true",
  "invented_title_rate": "share of reasons with a title that is not in the catalog",
  "contradiction_rate": "share of reasons that call a disliked title liked",
  "score_fall_cited": "mean drop of the score without the cited ratings",
  "score_fall_random": "the same without as many other ratings of the user, drawn at random",
  "fidelity_score_ratio": "ratio of the two; none if random ratings do not lower the score",
  "retrained_score_falls": "the same drops for models retrained without these ratings",
  "retrained_rank_falls": "positions that the item loses in the retrained models",
  "counterfactual_validity": "share of counterfactuals whose rank, outside the list, is that of a "
  "full rerun",
  "no_counterfactual_share": "share of items without a counterfactual of at most three ratings",
  "template_share": "share of sentences written by templates",
  "coverage": "share of reasons that cite a rating",
  "distinct_2": "different word pairs ÷ word pairs",
  "repeated_text_share": "share of reasons with a text that occurs more than once",
  "corruptions_caught": "share of true reasons, made false on purpose, that the checker rejects",
}


@dataclasses.dataclass
class _LastAnswer:
  """A rescorer that keeps its last answer: the checker repeats the same query about a user."""

  rescorer: Rescorer
  key: Any = None
  answer: np.ndarray | None = None

  def __call__(self, user: int, without: Sequence[Sequence[int]]) -> np.ndarray:
    key = (user, tuple(map(tuple, without)))
    if key != self.key:
      self.key, self.answer = key, self.rescorer(user, without)
    return self.answer


def _of_user(
  explainer: Explainer, author: Author, checker: Checker, user: int, *, style: str, top_n: int
) -> list[Audited]:
  own = lists_of_run(explainer.run, [user], top_n=top_n)[user]
  found = reasons_for(explainer, author, user, own, style=style, top_n=top_n)
  return [
    Audited(user, item, evidence, reason, checker(reason.text, user, item), seconds)
    for item, (evidence, reason, seconds) in zip(own.items, found, strict=True)
  ]


def _share(audited: Sequence[Audited], matches: Callable[[Finding, Audited], bool]) -> float:
  """The share of reasons with a false finding that matches."""
  return sum(
    any(not finding.true and matches(finding, one) for finding in one.findings) for one in audited
  ) / len(audited)


def _contradicts(finding: Finding, one: Audited, checker: Checker) -> bool:
  if finding.kind != "liked":
    return False
  rating = checker.ratings[one.user].get(checker.titles.index(finding.text))
  return rating is not None and checker.prepared.feedback.disliked(rating)


def _fidelity(
  audited: Sequence[Audited], checker: Checker, whole: Rescorer, rng: np.random.Generator
) -> dict[str, float | None]:
  """Mean drops of score and rank without the cited ratings, and without as many random others."""
  places = {raw: place for place, raw in enumerate(checker.prepared.interactions.item_ids)}
  falls: dict[str, list[tuple[float, float]]] = {"cited": [], "random": []}
  for one in audited:
    cited = [places[c.item_id] for c in one.evidence.cited]
    others = np.setdiff1d(list(checker.ratings[one.user]), cited)
    if not cited or len(others) < len(cited):
      continue
    random = rng.choice(others, len(cited), replace=False).tolist()
    scores = whole(one.user, [[], cited, random])
    ranks = [checker.rank(row, one.user, one.item) for row in scores]
    for name, row in (("cited", 1), ("random", 2)):
      falls[name].append((scores[0, one.item] - scores[row, one.item], ranks[row] - ranks[0]))
  if not falls["cited"]:
    return {}
  cited, random = (np.mean(falls[name], axis=0) for name in ("cited", "random"))
  return {
    "score_fall_cited": float(cited[0]),
    "score_fall_random": float(random[0]),
    "fidelity_score_ratio": float(cited[0] / random[0]) if random[0] > 0 else None,
    "rank_fall_cited": float(cited[1]),
    "rank_fall_random": float(random[1]),
  }


def _retrained(
  audited: Sequence[Audited], explainer: Explainer, count: int, rng: np.random.Generator, log: Log
) -> dict[str, Any]:
  """Mean drops of score and rank in models retrained without the cited, or random, ratings."""
  places = {raw: place for place, raw in enumerate(explainer.run.prepared.interactions.item_ids)}
  rated = explainer.run.histories
  chosen: dict[int, tuple[int, list[int], list[int]]] = {}
  for one in (audited[place] for place in rng.permutation(len(audited))):
    cited = [places[c.item_id] for c in one.evidence.cited]
    others = np.setdiff1d(rated.item[rated.user == one.user], cited)
    if len(chosen) < count and one.user not in chosen and cited and len(others) >= len(cited):
      random = rng.choice(others, len(cited), replace=False).tolist()
      chosen[one.user] = (one.item, cited, random)
  if not chosen:
    return {}
  falls = retrained_falls(
    explainer.run,
    [(user, item) for user, (item, _, _) in chosen.items()],
    {"cited": [own[1] for own in chosen.values()], "random": [own[2] for own in chosen.values()]},
    log=log,
  )
  return {
    "retrained_pairs": len(chosen),
    "retrained_score_falls": {name: own["score"] for name, own in falls.items()},
    "retrained_rank_falls": {name: own["rank"] for name, own in falls.items()},
  }


def _counterfactuals(
  audited: Sequence[Audited], whole: Rescorer, checker: Checker
) -> dict[str, float | int]:
  """How many counterfactuals a run of the whole network confirms."""
  places = {raw: place for place, raw in enumerate(checker.prepared.interactions.item_ids)}
  stated = [one for one in audited if one.evidence.counterfactual]
  right = 0
  for one in stated:
    found = one.evidence.counterfactual
    scores = whole(one.user, [[places[raw] for raw in found.item_ids]])[0]
    rank = checker.rank(scores, one.user, one.item)
    right += rank == found.rank and rank > one.evidence.top_n
  return {
    "counterfactuals": len(stated),
    "counterfactual_validity": right / len(stated) if stated else 1.0,
    "no_counterfactual_share": 1 - len(stated) / len(audited),
  }


def _corrupted(
  audited: Sequence[Audited], checker: Checker, rng: np.random.Generator
) -> tuple[Counter[str], Counter[str]]:
  """Corrupts true reasons. Returns: by kind, how many corruptions, and how many were caught."""
  corrupted: Counter[str] = Counter()
  caught: Counter[str] = Counter()
  for one in audited[:: max(1, len(audited) // 60)]:
    if not all(finding.true for finding in one.findings):
      continue
    for edit in corruptions(one.reason.text, one.evidence, checker, one.user, one.item, rng):
      corrupted[edit.kind] += 1
      found = checker(edit.text, one.user, one.item)
      caught[edit.kind] += any(not finding.true for finding in found)
  return corrupted, caught


def _distinct_2(texts: Sequence[str]) -> float:
  """Share of different word pairs (distinct-2, Li et al. 2016)."""
  pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
  return len(set(pairs)) / max(len(pairs), 1)
