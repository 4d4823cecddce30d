"""True reasons made false on purpose, to see whether a checker notices."""

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
class Edit:
  """Attributes: kind: of the error. text: the reason with it."""

  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class _Facts:
  """What an edit is made from.

  Attributes:
    disliked, unrated: titles that the user dislikes, that she has not rated; idle: that she likes
      and whose removal raises the score.
    genres: those that the item does not have. own_genres: those that it has.
    people: those who are not in it.
  """

  disliked: Sequence[str]
  unrated: Sequence[str]
  idle: Sequence[str]
  genres: Sequence[str]
  own_genres: Sequence[str]
  people: Sequence[str]


def corruptions(
  text: str, evidence: Evidence, checker: Checker, user: int, item: int, rng: np.random.Generator
) -> Iterator[Edit]:
  """One edit of each kind that the text leaves room for, each of which makes it false.

  Args: text: a true reason. evidence: of it. user, item: indices. rng: is drawn from.
  """
  facts = _facts(checker, user, item)
  cited = [shown_title(one.title) for one in evidence.cited if one.opinion == "liked"]
  first = cited[0] if cited and text.find(cited[0]) >= 0 else None

  def pick(values):
    return str(values[rng.integers(len(values))])

  if first:
    yield Edit("invented title", text.replace(first, NOTHING))
    if facts.unrated:
      yield Edit("title never rated", text.replace(first, pick(facts.unrated)))
    if facts.disliked:
      yield Edit("disliked told as liked", text.replace(first, pick(facts.disliked)))
    if facts.idle:
      yield Edit("title without influence", text.replace(first, pick(facts.idle), 1))
    if told := re.search(r"\b[Yy]ou (?:liked|enjoyed)\b", text):
      edited = f"{text[: told.start()]}you disliked{text[told.end() :]}"
      yield Edit("liked told as disliked", edited)
  if named := re.search(r"[^,.“”]*?(?= \((?:director|actor|writer)\))", text):
    trait = next(t for t in evidence.traits if t.kind in ("director", "actor", "writer"))
    yield Edit("invented person", text.replace(trait.name, NOBODY))
    if facts.people and named:
      yield Edit("person of another item", text.replace(trait.name, pick(facts.people)))
    other = "director" if trait.kind != "director" else "actor"
    if trait.name.casefold() not in _people(checker, item, (other, f"{other}s")):
      yield Edit(
        "wrong role", text.replace(f"{trait.name} ({trait.kind})", f"{trait.name} ({other})")
      )
  yield from _of_numbers(text)
  if (genre := next((t.name for t in evidence.traits if t.kind == "genre"), None)) and facts.genres:
    edited = re.sub(
      rf"\b{re.escape(genre)}\b(?=[^.]*you liked|[ ,].*genre| is one)",
      lambda _: pick(facts.genres),
      text,
      count=1,
    )
    if edited != text:
      yield Edit("wrong genre", edited)
  if evidence.avoided and facts.own_genres:
    name = evidence.avoided[0].genre
    edited = re.sub(
      rf"(free of |are |it is not ){re.escape(name)}\b(?=[^.]*(?:you disliked|is not)|\.)",
      lambda match: match.group(1) + pick(facts.own_genres),
      text,
    )
    if edited != text:
      yield Edit("free of its own genre", edited)


def _of_numbers(text: str) -> Iterator[Edit]:
  """Numbers that are one too high."""

  def more(match: re.Match[str]) -> str:
    return match.group(1) + str(int(match.group(2)) + 1) + match.group(3)

  for kind, pattern in (
    ("wrong share", r"()(\d+)( of the \d+ you )"),
    ("wrong share", r"(you (?:dis)?liked )(\d+)( are )"),
    ("wrong number of people", r"()(\d+)( people like both)"),
    ("wrong number of people", r"(\), )(\d+)( like (?:this one|it)\b)"),
    ("wrong number of people", r"()(\d+)( people who like )"),
    ("wrong number of people", r"(liked by )(\d+)( people)"),
    ("wrong rank", r"(number )(\d+)()"),
    ("wrong rating", r"(gave [^.]* a |, a )(\d+)(\b(?! of))"),
  ):
    edited = re.sub(pattern, more, text, count=1)
    if edited != text:
      yield Edit(kind, edited)


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
