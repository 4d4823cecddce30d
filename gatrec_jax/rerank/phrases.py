"""The sentences that a reason may be made of, and the claims that each makes: one table for both
directions, so that whatever is written can be read back."""

from __future__ import annotations

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
    words: with slots such as {title}; {titles} is a list.
  """

  kind: str
  words: str


PHRASES: Sequence[Phrase] = (
  Phrase("liked", "It is here above all because you liked {titles}."),
  Phrase("liked", "You liked {titles}, and nothing speaks more for it."),
  Phrase("liked", "What brings it up most is that you liked {titles}."),
  Phrase("liked", "It follows most of all from your liking {titles}."),
  Phrase("liked_too", "That you liked {titles} counts for it as well."),
  Phrase("liked_too", "You liked {titles}, which speaks for it, too."),
  Phrase("rated_most", "Most of all it rests on your rating of {title}, a {rating}."),
  Phrase("rated_most", "What brings it up most is {title}, which you gave a {rating}."),
  Phrase("rated", "Your rating of {title}, a {rating}, counts for it as well."),
  Phrase("rated", "That you gave {title} a {rating} speaks for it, too."),
  Phrase("person", "Like {title}, which you liked, it has {name} ({role})."),
  Phrase("person", "{name} ({role}) had a hand in {title} as well, which you liked."),
  Phrase("person", "You liked {title}, and {name} ({role}) is here again."),
  Phrase("tag", "Like {title}, which you liked, it is about “{name}”."),
  Phrase("tag", "“{name}” is a theme of it, and of {title}, which you liked."),
  Phrase("genre", "Its genres include {name}, as do those of {n} of the {m} you liked."),
  Phrase("genre", "{name} is one of its genres, and {n} of the {m} you liked have it."),
  Phrase("genre", "Of the {m} you liked {n} are {name}, and so is this one."),
  Phrase("both", "{n} people like both it and {title}."),
  Phrase("both", "Of those who like {title}, {n} like this one, too."),
  Phrase("likes", "{n} people like it."),
  Phrase("likes", "It has found {n} people who like it."),
  Phrase("avoided", "It is free of {name}, the genre of {n} of the {m} you disliked."),
  Phrase("avoided", "Of the {m} you disliked {n} are {name}, which this one is not."),
  Phrase("moved", "Re-ranking moved it from place {n} to {m}."),
  Phrase("leaves", "Without {titles} in your history it would be number {n}, outside the top {m}."),
  Phrase("leaves", "Had you not rated {titles}, it would be number {n} and not in the top {m}."),
  Phrase("stays", "No single one of your ratings decides that it is in your top {m}."),
  Phrase("stays", "Take away any one of your ratings, and it stays in your top {m}."),
)
"""Those of a kind are alike in what they claim."""

_SLOT = re.compile(r"\{(\w+)\}")


def shown_title(title: str) -> str:
  """A title as people say it: its article in front, its year behind."""
  year = YEAR.search(title)
  return plain_title(title) + (f" {year.group().strip()}" if year else "")


def write(phrase: Phrase, values: Mapping[str, str | Sequence[str]]) -> str:
  """The sentence. Args: values: by slot; titles may hold any characters."""

  def filled(slot: re.Match[str]) -> str:
    value = values[slot.group(1)]
    return value if isinstance(value, str) else listed(value)

  return _SLOT.sub(filled, phrase.words)


def listed(titles: Sequence[str]) -> str:
  """“A”, “A and B”, “A, B and C”."""
  return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def read(sentence: str, titles: Sequence[str]) -> tuple[Claim, ...] | None:
  """The claims of a sentence; None for one that is not made of these phrases.

  Args: titles: those that may be named, as `shown_title` gives them; a list is cut where these
    end, and what is none of them stands in a claim of its own.
  """
  for phrase, pattern in zip(PHRASES, _PATTERNS, strict=True):
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
  if kind in ("liked", "liked_too"):
    most = (Claim("most", titles[:1]),) if kind == "liked" else ()
    return most + tuple(Claim(k, (t,)) for t in titles for k in ("liked", "rests_on"))
  if kind in ("rated", "rated_most"):
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
  return (Claim(kind, {
    "both": (title, n), "likes": (n,), "moved": (n, m), "stays": (m,)
  }[kind]),)  # fmt: skip


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
  kinds = {"n": r"\d+", "m": r"\d+", "rating": r"[\d.]+", "role": r"[\w ]+"}
  return re.compile("".join(
    re.escape(part) if place % 2 == 0 else f"(?P<{part}>{kinds.get(part, '.+')})"
    for place, part in enumerate(parts)
  ))  # fmt: skip


_PATTERNS = tuple(_pattern(phrase) for phrase in PHRASES)
