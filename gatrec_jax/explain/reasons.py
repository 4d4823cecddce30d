"""Reasons in words, written from evidence alone, and the check of a reason against its evidence."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping

from gatrec_jax.errors import InputError
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import PHRASES, Claim, claims_of, read, shown_title, write
from gatrec_jax.explain.traits import MAKERS

STYLES = ("short", "detailed", "counterfactual")
_MIN_BOTH = 3  # people who liked both titles, for a reason to mention them


@dataclasses.dataclass(frozen=True)
class Reason:
  """Why an item is recommended.

  Attributes:
    sentences: one or more.
    claims: all that the sentences claim.
    by_template: how many of the sentences come from templates, not from a language model.
  """

  sentences: tuple[str, ...]
  claims: tuple[Claim, ...]
  by_template: int

  @property
  def text(self) -> str:
    return " ".join(self.sentences)


@dataclasses.dataclass(frozen=True)
class Point:
  """One fact that a reason states.

  Attributes: kind: of a phrase. values: for its slots, as in `phrases.slot_text`.
  """

  kind: str
  values: Mapping[str, str | tuple[str, ...]]


def sentence_by_template(point: Point, evidence: Evidence, place: int) -> str:
  """The sentence of a template for the point at this place of a reason.

  The same user, item and place always get the same wording. Neighboring points of one kind get
  different wordings.
  """
  choices = PHRASES[point.kind]
  seed = f"{evidence.user_id}\n{evidence.item_id}\n{point.kind}".encode()
  # In steps of two, since neighbors in the table may differ in a single word.
  return write(choices[(zlib.crc32(seed) + 2 * place) % len(choices)], point.values)


def points_of(evidence: Evidence, *, style: str) -> list[Point]:
  """The facts that a reason in this style states, in order.

  Args:
    style: `short` (one or two sentences), `detailed` (everything the evidence supports) or
      `counterfactual` (what would have to be different).
  Raises: InputError for any other style.
  """
  if style not in STYLES:
    raise InputError(f"must be one of {', '.join(STYLES)}", field="style", value=style)
  if style == "counterfactual":
    if evidence.counterfactual is not None:
      return _counterfactual(evidence)
    return [*(_ratings(evidence)[:1] or _popularity(evidence)), *_counterfactual(evidence)]
  ratings, traits, both = _ratings(evidence), _traits(evidence), _both(evidence)
  first = ratings or _popularity(evidence)
  if style == "short":
    return [*first[:1], *(traits or both or _avoided(evidence))[:1]]
  return [
    *first,
    *_strongest(evidence),
    *traits,
    *both,
    *_avoided(evidence),
    *_moved(evidence),
    *_counterfactual(evidence),
  ]


def _ratings(evidence: Evidence) -> list[Point]:
  """The cited ratings, the one with the largest effect first; liked titles share a sentence."""
  if not evidence.cited:
    return []
  liked_first = evidence.cited[0].opinion == "liked"
  liked = tuple(shown_title(one.title) for one in evidence.cited if one.opinion == "liked")
  of_liked = [Point("liked" if liked_first else "liked_too", {"titles": liked})] if liked else []
  of_others = [
    Point("rated_too", {"title": shown_title(one.title), "rating": f"{one.rating:g}"})
    for one in evidence.cited
    if one.opinion != "liked"
  ]
  if liked_first:
    return of_liked + of_others
  return [Point("rated", of_others[0].values), *of_liked, *of_others[1:]]


def _strongest(evidence: Evidence) -> list[Point]:
  """Which rating has the largest effect of all, known only if every rating was tried."""
  if not evidence.cited or evidence.prefiltered:
    return []
  return [Point("strongest", {"title": shown_title(evidence.cited[0].title)})]


def _traits(evidence: Evidence) -> list[Point]:
  points = []
  for trait in evidence.traits:
    title = shown_title(trait.titles[0])
    if trait.kind == "genre":
      values = {"name": trait.name, "n": str(trait.liked), "m": str(trait.num_liked)}
      points.append(Point("genre", values))
    elif trait.kind == "tag":
      points.append(Point("tag", {"name": trait.name, "title": title}))
    else:
      kind = "maker" if trait.kind in MAKERS else "person"
      points.append(Point(kind, {"name": trait.name, "role": trait.kind, "title": title}))
  return points


def _both(evidence: Evidence) -> list[Point]:
  found = [one for one in evidence.cited if one.opinion == "liked" and one.both >= _MIN_BOTH]
  return [
    Point("both", {"title": shown_title(one.title), "n": str(one.both)})
    for one in sorted(found, key=lambda one: -one.both)[:1]
  ]


def _popularity(evidence: Evidence) -> list[Point]:
  return [Point("likes", {"n": str(evidence.likes)})]


def _avoided(evidence: Evidence) -> list[Point]:
  return [
    Point("avoided", {"name": one.genre, "n": str(one.disliked), "m": str(one.num_disliked)})
    for one in evidence.avoided
  ]


def _moved(evidence: Evidence) -> list[Point]:
  if evidence.rank == evidence.rank_before:
    return []
  return [Point("moved", {"n": str(evidence.rank_before), "m": str(evidence.rank)})]


def _counterfactual(evidence: Evidence) -> list[Point]:
  found, top = evidence.counterfactual, str(evidence.top_n)
  if found is not None:
    titles = tuple(shown_title(title) for title in found.titles)
    return [Point("leaves", {"titles": titles, "n": str(found.rank), "m": top})]
  known = evidence.rank_before <= evidence.top_n and not evidence.prefiltered
  return [Point("stays", {"m": top})] if known else []


def unsupported(reason: Reason, evidence: Evidence) -> list[str]:
  """The claims of a reason that its evidence does not support; [] if it supports all of them.

  The claims are read from the sentences. A sentence that cannot be read counts as one unsupported
  claim.
  """
  known = {
    claim
    for style in STYLES
    for point in points_of(evidence, style=style)
    for claim in claims_of(point.kind, point.values)
  }
  known |= {Claim("likes", (str(evidence.likes),))}
  titles = titles_of(evidence)
  wrong = []
  for sentence in reason.sentences:
    claims = read(sentence, titles)
    if claims is None:
      wrong.append(sentence)
    else:
      wrong += [
        f"{claim.kind}: {', '.join(claim.values)}" for claim in claims if claim not in known
      ]
  return wrong


def titles_of(evidence: Evidence) -> list[str]:
  """Every title that a reason may name, as `shown_title` gives it."""
  found = evidence.counterfactual
  return [
    shown_title(title)
    for title in (
      *(one.title for one in evidence.cited),
      *(title for trait in evidence.traits for title in trait.titles),
      *(found.titles if found else ()),
    )
  ]
