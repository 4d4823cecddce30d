"""Corruptions: true reasons made false on purpose, to test whether a checker notices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from gatrec_jax.explain.audit.fact_checker import Checker
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import shown_title
from gatrec_jax.profiles.builder import PEOPLE_FIELDS, genres_of, terms_of

NOBODY, NOTHING = "Zelda Quimby-Farrow", "The Purple Compass of Yarm (1987)"


@dataclasses.dataclass(frozen=True)
class Corruption:
  """A reason that is false.

  Attributes: kind: what was changed. text: the changed reason.
  """

  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class _Facts:
  """Titles and names that would make a reason false.

  Attributes:
    disliked, unrated: titles that the user dislikes, or has not rated.
    idle: titles that the user likes and whose removal raises the score.
    genres: that the item does not have. own_genres: that it has.
    people: who did not work on the item.
  """

  disliked: Sequence[str]
  unrated: Sequence[str]
  idle: Sequence[str]
  genres: Sequence[str]
  own_genres: Sequence[str]
  people: Sequence[str]


def corruptions(
  text: str, evidence: Evidence, checker: Checker, user: int, item: int, rng: np.random.Generator
) -> Iterator[Corruption]:
  """Yields one corruption of each kind that applies to the text.

  Args:
    text: a true reason. evidence: that it was written from. checker: knows titles and ratings.
    user, item: indices. rng: source of the draws.
  """
  facts = _facts(checker, user, item)
  cited = [shown_title(one.title) for one in evidence.cited if one.opinion == "liked"]
  first = cited[0] if cited and text.find(cited[0]) >= 0 else None

  def pick(values: Sequence[str]) -> str:
    return str(values[rng.integers(len(values))])

  if first:
    yield Corruption("invented title", text.replace(first, NOTHING))
    if facts.unrated:
      yield Corruption("title never rated", text.replace(first, pick(facts.unrated)))
    if facts.disliked:
      yield Corruption("disliked called liked", text.replace(first, pick(facts.disliked)))
    if facts.idle:
      yield Corruption("title without influence", text.replace(first, pick(facts.idle), 1))
    if liked := re.search(r"\b([Yy]ou (?:also )?)(?:liked|enjoyed)\b", text):
      edited = f"{text[: liked.end(1)]}disliked{text[liked.end() :]}"
      yield Corruption("liked called disliked", edited)
  if named := re.search(r"[^,.“”]*?(?= \((?:director|actor|writer)\))", text):
    trait = next(t for t in evidence.traits if t.kind in ("director", "actor", "writer"))
    yield Corruption("invented person", text.replace(trait.name, NOBODY))
    if facts.people and named:
      yield Corruption("person of another item", text.replace(trait.name, pick(facts.people)))
    other = "director" if trait.kind != "director" else "actor"
    if trait.name.casefold() not in _people(checker, item, (other, f"{other}s")):
      yield Corruption(
        "wrong role", text.replace(f"{trait.name} ({trait.kind})", f"{trait.name} ({other})")
      )
  yield from _of_numbers(text)
  if (genre := next((t.name for t in evidence.traits if t.kind == "genre"), None)) and facts.genres:
    edited = re.sub(
      rf"\b{re.escape(genre)}\b(?=[^.]*you liked|[ ,].*genre)",
      lambda _: pick(facts.genres),
      text,
      count=1,
    )
    if edited != text:
      yield Corruption("wrong genre", edited)
  if evidence.avoided and facts.own_genres:
    name = evidence.avoided[0].genre
    edited = re.sub(
      rf"(steers clear of the |are in the |is not in the ){re.escape(name)}\b"
      r"(?=[^.]*(?:you disliked|; this one is not)| genre\.)",
      lambda match: match.group(1) + pick(facts.own_genres),
      text,
    )
    if edited != text:
      yield Corruption("avoids its own genre", edited)


def _of_numbers(text: str) -> Iterator[Corruption]:
  """Corruptions with a number that is too high by one."""

  def more(match: re.Match[str]) -> str:
    return match.group(1) + str(int(match.group(2)) + 1) + match.group(3)

  for kind, pattern in (
    ("wrong share", r"()(\d+)( of the \d+ titles you )"),
    ("wrong share", r"(titles you (?:dis)?liked, )(\d+)( are )"),
    ("wrong number of people", r"()(\d+)( people liked both)"),
    ("wrong number of people", r"(the people who liked .*?, )(\d+)( also liked )"),
    ("wrong number of people", r"()(\d+)( people who liked )"),
    ("wrong number of people", r"([Ll]iked by )(\d+)( (?:people|person))"),
    ("wrong rank", r"(number )(\d+)()"),
    ("wrong rating", r"(rating of )(\d+)()"),
  ):
    edited = re.sub(pattern, more, text, count=1)
    if edited != text:
      yield Corruption(kind, edited)


def _facts(checker: Checker, user: int, item: int) -> _Facts:
  prepared, rated = checker.prepared, checker.ratings[user]
  feedback = prepared.feedback
  every = list(rated)
  scores = checker.quick_scores(user, [[], *([other] for other in every)])[:, item]
  own = set(genres_of(prepared.item_fields[item]))
  all_genres = {name for fields in prepared.item_fields for name in genres_of(fields)}
  here = _people(checker, item, PEOPLE_FIELDS)
  people = {
    name
    for other in range(0, len(prepared.item_fields), 7)
    for field in PEOPLE_FIELDS
    for name in terms_of(prepared.item_fields[other].get(field))
    if name.casefold() not in here and len(name.split()) > 1
  }
  title = checker.titles
  return _Facts(
    disliked=[title[other] for other, rating in rated.items() if feedback.disliked(rating)],
    unrated=[title[other] for other in range(len(title)) if other not in rated and other != item],
    idle=[
      title[other]
      for other, score in zip(every, scores[1:], strict=True)
      if feedback.liked(rated[other]) and score > scores[0] + 1e-4
    ],
    genres=sorted(all_genres - own),
    own_genres=sorted(own),
    people=sorted(people),
  )


def _people(checker: Checker, item: int, fields: Sequence[str]) -> set[str]:
  own = checker.prepared.item_fields[item]
  return {name.casefold() for field in fields for name in terms_of(own.get(field))}
