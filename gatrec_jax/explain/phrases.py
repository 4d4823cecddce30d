"""The sentences that a reason may be made of, and the claims that each makes: one table for both
directions, so that whatever is written can be read back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gatrec_jax.profiles.builder import YEAR, plain_title


class Claim(NamedTuple):
  """Something that is true or not.

  Attributes:
    kind: `liked` (a title), `rated` (title, rating); `rests_on` (a title: without that rating the
      score falls), `most` (a title: further than without any other); `both` (a title, how many
      people); `likes` (how many people); `has` (kind, name); `shares` (kind, name, title);
      `liked_with` (kind, name, n, m: n of the m liked items have it); `free_of` (genre);
      `disliked_with` (genre, n, m); `moved` (from, to); `leaves` (rank, top_n, titles …); `stays`
      (top_n).
    values: as text.
  """

  kind: str
  values: tuple[str, ...]


class Phrase(NamedTuple):
  """Attributes:
  kind: what it is about. Those of a kind say the same in other words.
  words: with slots such as {title}; {titles} is a list, {tag} a name in quotation marks.
  """

  kind: str
  words: str


# By kind; <one|other> stands for either.
_TABLE: Mapping[str, Sequence[str]] = {
  "liked": (
    "<It is here|It is on your list|It comes up> <above all|most of all> because you "
    "<liked|enjoyed> {titles}.",
    "<Above all|Most of all>, <it is here|it is on your list|it comes up> because you "
    "<liked|enjoyed> {titles}.",
    "You <liked|enjoyed> {titles}, and nothing <speaks|counts> more for it.",
    "What <brings it up|speaks for it> most is that you <liked|enjoyed> {titles}.",
    "It follows <above all|most of all> from your liking {titles}.",
  ),
  "liked_some": (
    "That you <liked|enjoyed> {titles} <counts|speaks> for it.",
    "You <liked|enjoyed> {titles}, which <speaks|counts> for it.",
    "It rests on your liking {titles}.",
  ),
  "liked_too": (
    "That you <liked|enjoyed> {titles} <counts|speaks> for it <as well|too>.",
    "You <liked|enjoyed> {titles}, which <speaks|counts> for it <as well|too>.",
    "It also rests on your liking {titles}.",
  ),
  "rated_most": (
    "<Above all|Most of all>, it rests on your rating of {title}, a {rating}.",
    "What brings it up most is {title}, which you gave a {rating}.",
    "<It is here|It comes up> <above all|most of all> because you gave {title} a {rating}.",
  ),
  "rated_some": (
    "Your rating of {title}, a {rating}, <counts|speaks> for it.",
    "That you gave {title} a {rating} <speaks|counts> for it.",
    "It rests on your rating of {title}, a {rating}.",
  ),
  "rated": (
    "Your rating of {title}, a {rating}, <counts|speaks> for it <as well|too>.",
    "That you gave {title} a {rating} <speaks|counts> for it <as well|too>.",
    "It also rests on your rating of {title}, a {rating}.",
  ),
  "person": (
    "Like {title}, which you <liked|enjoyed>, it has {name} ({role}).",
    "{name} ({role}) had a hand in {title} as well, which you <liked|enjoyed>.",
    "You <liked|enjoyed> {title}, and {name} ({role}) is <here again|part of this one, too>.",
    "{name} ({role}) is part of it, as of {title}, which you <liked|enjoyed>.",
  ),
  "tag": (
    "Like {title}, which you <liked|enjoyed>, it is about {tag}.",
    "{tag} is a theme of it, and of {title}, which you <liked|enjoyed>.",
    "It shares the theme {tag} with {title}, which you <liked|enjoyed>.",
  ),
  "genre": (
    "Its genres include {name}, as do those of {n} of the {m} you liked.",
    "{name} is <one of|among> its genres, and {n} of the {m} you liked <have|share> it.",
    "Of the {m} you liked {n} are {name}, <and so|as> is this one.",
    "It shares the genre {name} with {n} of the {m} you liked.",
  ),
  "both": (
    "{n} people like both it and {title}.",
    "Of those who like {title}, {n} like <this one|it> <as well|too>.",
    "{n} people who like {title} like this one <as well|too>.",
  ),
  "likes": (
    "{n} people like it.",
    "It has found {n} people who like it.",
    "It is liked by {n} people.",
  ),
  "avoided": (
    "It is free of {name}, the genre of {n} of the {m} you disliked.",
    "Of the {m} you disliked {n} are {name}, which this one is not.",
    "Unlike {n} of the {m} you disliked, it is not {name}.",
  ),
  "moved": (
    "Re-ranking moved it from place {n} to {m}.",
    "It was moved from place {n} to {m} by re-ranking.",
  ),
  "leaves": (
    "Without {titles} in your history it would be number {n}, outside your top {m}.",
    "Had you not rated {titles}, it would be number {n} and not in your top {m}.",
    "Take {titles} out of your history, and it is number {n}, outside your top {m}.",
  ),
  "stays": (
    "No single one of your ratings decides that it is in your top {m}.",
    "Take away any one of your ratings, and it <stays|is still> in your top {m}.",
    "It stays in your top {m}, whichever one of your ratings is taken away.",
  ),
}

_EITHER = re.compile(r"<([^>]*)>")


def _wordings(words: str) -> list[str]:
  parts = [
    part.split("|") if place % 2 else [part] for place, part in enumerate(_EITHER.split(words))
  ]
  return ["".join(chosen) for chosen in itertools.product(*parts)]


PHRASES: Mapping[str, tuple[Phrase, ...]] = {
  kind: tuple(Phrase(kind, one) for words in own for one in _wordings(words))
  for kind, own in _TABLE.items()
}
"""All that may be said, by kind. The first of a kind is the plainest."""

_SLOT = re.compile(r"\{(\w+)\}")


def shown_title(title: str) -> str:
  """A title as people say it: its article in front, its year behind."""
  year = YEAR.search(title)
  return plain_title(title) + (f" {year.group().strip()}" if year else "")


def slots_of(phrase: Phrase) -> tuple[str, ...]:
  """The names of its slots, in the order in which they stand."""
  return tuple(_SLOT.findall(phrase.words))


def write(phrase: Phrase, values: Mapping[str, str | Sequence[str]]) -> str:
  """The sentence. Args: values: as for `filled`."""
  return fill(phrase, {slot: filled(slot, values) for slot in slots_of(phrase)})


def fill(phrase: Phrase, texts: Mapping[str, str]) -> str:
  """The sentence. Args: texts: what stands in each slot."""
  return _SLOT.sub(lambda slot: texts[slot.group(1)], phrase.words)


def filled(slot: str, values: Mapping[str, str | Sequence[str]]) -> str:
  """What stands in a slot. Args: values: `titles`, `title`, `name`, `role`, `n`, `m`, `rating`, as
  far as they are needed; they may hold any characters."""
  if slot == "tag":
    return f"“{values['name']}”"
  value = values[slot]
  return value if isinstance(value, str) else listed(value)


def listed(titles: Sequence[str]) -> str:
  """“A”, “A and B”, “A, B and C”."""
  return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def read(sentence: str, titles: Sequence[str]) -> tuple[Claim, ...] | None:
  """The claims of a sentence; None for one that is not made of these phrases.

  Args: titles: those that may be named, as `shown_title` gives them; a list is cut where these
    end, and what is none of them stands in a claim of its own.
  """
  for phrase, pattern in _PATTERNS:
    if found := pattern.fullmatch(sentence):
      values = {
        slot: _cut(text, titles) if slot == "titles" else text
        for slot, text in found.groupdict().items()
      }
      return claims_of(phrase.kind, values)
  return None


def claims_of(kind: str, values: Mapping[str, str | Sequence[str]]) -> tuple[Claim, ...]:
  """What a phrase of a kind claims with these values of its slots."""
  one = {slot: value for slot, value in values.items() if isinstance(value, str)}
  titles = tuple(values.get("titles", ()))
  title, name, n, m = (one.get(slot, "") for slot in ("title", "name", "n", "m"))
  if kind in ("liked", "liked_some", "liked_too"):
    most = (Claim("most", titles[:1]),) if kind == "liked" else ()
    return most + tuple(Claim(k, (t,)) for t in titles for k in ("liked", "rests_on"))
  if kind in ("rated", "rated_some", "rated_most"):
    most = (Claim("most", (title,)),) if kind == "rated_most" else ()
    return *most, Claim("rated", (title, one["rating"])), Claim("rests_on", (title,))
  if kind in ("person", "tag"):
    sort = one["role"] if kind == "person" else "tag"
    shared = ("person" if kind == "person" else "tag", name, title)
    return Claim("liked", (title,)), Claim("has", (sort, name)), Claim("shares", shared)
  if kind == "genre":
    return Claim("has", ("genre", name)), Claim("liked_with", ("genre", name, n, m))
  if kind == "avoided":
    return Claim("free_of", (name,)), Claim("disliked_with", (name, n, m))
  if kind == "leaves":
    return (Claim("leaves", (n, m, *titles)),)
  return (Claim(kind, {"both": (title, n), "likes": (n,), "moved": (n, m), "stays": (m,)}[kind]),)


def _cut(text: str, titles: Sequence[str]) -> tuple[str, ...]:
  """A list of titles as its parts."""
  rest, found = text, []
  while rest:
    known = [t for t in titles if rest == t or rest.startswith((f"{t}, ", f"{t} and "))]
    if not known:
      return (*found, rest)
    longest = max(known, key=len)
    found.append(longest)
    rest = rest[len(longest) :].removeprefix(", ").removeprefix(" and ")
  return tuple(found)


def _pattern(phrase: Phrase) -> re.Pattern[str]:
  parts = _SLOT.split(phrase.words)  # words and slots by turns
  kinds = {
    "n": r"(?P<n>\d+)",
    "m": r"(?P<m>\d+)",
    "rating": r"(?P<rating>[\d.]+)",
    "role": r"(?P<role>[\w ]+)",
    "tag": "“(?P<name>.+)”",
  }
  return re.compile(
    "".join(
      re.escape(part) if place % 2 == 0 else kinds.get(part, f"(?P<{part}>.+)")
      for place, part in enumerate(parts)
    )
  )


_PATTERNS = tuple((phrase, _pattern(phrase)) for own in PHRASES.values() for phrase in own)
