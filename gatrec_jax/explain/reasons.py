"""Reasons in words, from evidence alone: sentences of the table in phrases.py, and their check."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping

from gatrec_jax.errors import InputError
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import PHRASES, Claim, claims_of, read, shown_title, write

STYLES = ("short", "detailed", "counterfactual")
_FEWEST_BOTH = 3  # people who like both, for that to be said


@dataclasses.dataclass(frozen=True)
class Reason:
  """Why something is recommended.

  Attributes: sentences: one or more. claims: of all of them. by_template: how many sentences were
    not written by a language model.
  """

  sentences: tuple[str, ...]
  claims: tuple[Claim, ...]
  by_template: int

  @property
  def text(self) -> str:
    return " ".join(self.sentences)


@dataclasses.dataclass(frozen=True)
class Point:
  """Something that may be said: a kind of phrase and the values of its slots."""

  kind: str
  values: Mapping[str, str | tuple[str, ...]]


def sentence_by_template(point: Point, evidence: Evidence, place: int) -> str:
  """What is to be said, in words that are always the same for the same pair and place in it."""
  choices = PHRASES[point.kind]
  seed = f"{evidence.user_id}\n{evidence.item_id}\n{place}".encode()
  return write(choices[zlib.crc32(seed) % len(choices)], point.values)


def points_of(evidence: Evidence, *, style: str) -> list[Point]:
  """What a reason of that style says, in order.

  Args: style: `short` (one or two sentences), `detailed` (all that there is to say), or
    `counterfactual` (what would have to be different).
  Raises: InputError for another style.
  """
  if style not in STYLES:
    raise InputError(f"must be one of {', '.join(STYLES)}", field="style", value=style)
  if style == "counterfactual":
    if evidence.counterfactual is not None:
      return _what_if(evidence)
    return [*(_ratings(evidence)[:1] or _popular(evidence)), *_what_if(evidence)]
  ratings, traits, both = _ratings(evidence), _traits(evidence), _both(evidence)
  if style == "short":
    first = ratings[:1] or _popular(evidence)
    return [*first, *(traits or both or _free_of(evidence))[:1]]
  first = ratings or _popular(evidence)
  return [*first, *traits, *both, *_free_of(evidence), *_moved(evidence), *_what_if(evidence)]


def _ratings(evidence: Evidence) -> list[Point]:
  """The rating that counts most comes first; it is called that where all were tried."""
  if not evidence.cited:
    return []
  first = evidence.cited[0].opinion == "liked"
  liked = tuple(shown_title(one.title) for one in evidence.cited if one.opinion == "liked")
  kinds = ("liked_some", "rated_some") if evidence.prefiltered else ("liked", "rated_most")
  of_liked = [Point(kinds[0] if first else "liked_too", {"titles": liked})] if liked else []
  of_others = [
    Point("rated", {"title": shown_title(one.title), "rating": f"{one.rating:g}"})
    for one in evidence.cited
    if one.opinion != "liked"
  ]
  if first:
    return of_liked + of_others
  return [Point(kinds[1], of_others[0].values), *of_liked, *of_others[1:]]


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
      points.append(Point("person", {"name": trait.name, "role": trait.kind, "title": title}))
  return points


def _both(evidence: Evidence) -> list[Point]:
  found = [one for one in evidence.cited if one.opinion == "liked" and one.both >= _FEWEST_BOTH]
  return [
    Point("both", {"title": shown_title(one.title), "n": str(one.both)})
    for one in sorted(found, key=lambda one: -one.both)[:1]
  ]


def _popular(evidence: Evidence) -> list[Point]:
  return [Point("likes", {"n": str(evidence.likes)})]


def _free_of(evidence: Evidence) -> list[Point]:
  return [
    Point("avoided", {"name": one.genre, "n": str(one.disliked), "m": str(one.num_disliked)})
    for one in evidence.avoided
  ]


def _moved(evidence: Evidence) -> list[Point]:
  if evidence.rank == evidence.rank_before:
    return []
  return [Point("moved", {"n": str(evidence.rank_before), "m": str(evidence.rank)})]


def _what_if(evidence: Evidence) -> list[Point]:
  found, top = evidence.counterfactual, str(evidence.top_n)
  if found is not None:
    titles = tuple(shown_title(title) for title in found.titles)
    return [Point("leaves", {"titles": titles, "n": str(found.rank), "m": top})]
  known = evidence.rank_before <= evidence.top_n and not evidence.prefiltered
  return [Point("stays", {"m": top})] if known else []


def unsupported(reason: Reason, evidence: Evidence) -> list[str]:
  """What a reason's sentences claim, read back, that the evidence does not say; [] where all is
  well. A sentence that cannot be read is unsupported as a whole."""
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
  """All that a reason may name, as people say them."""
  found = evidence.counterfactual
  return [
    shown_title(title)
    for title in (
      *(one.title for one in evidence.cited),
      *(title for trait in evidence.traits for title in trait.titles),
      *(found.titles if found else ()),
    )
  ]
