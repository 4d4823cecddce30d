"""The sentences that a reason may consist of, and the claims that each sentence makes.

One table serves both directions: `write` turns a phrase and its values into a sentence, and `read`
turns a sentence back into claims, so that any text can be checked against the evidence.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gatrec_jax.profiles.builder import YEAR, plain_title


class Claim(NamedTuple):
  """A statement that is either true or false.

  Attributes:
    kind: `liked` (title), `rated` (title, rating), `rests_on` (title: the score falls without this
      rating), `most` (title: it falls further than without any other single rating), `both`
      (title, number of people), `likes` (number of people), `has` (kind, name), `shares` (kind,
      name, title), `liked_with` (kind, name, n, m: n of the m liked items have it), `free_of`
      (genre), `disliked_with` (genre, n, m), `moved` (from, to), `leaves` (rank, top_n, titles …)
      or `stays` (top_n).
    values: text.
  """

  kind: str
  values: tuple[str, ...]


class Phrase(NamedTuple):
  """A sentence with slots.

  Attributes:
    kind: what the sentence is about. All phrases of one kind make the same claims.
    words: the sentence; slots such as {title} are named as in `slot_text`.
  """

  kind: str
  words: str


# By kind; <one|other> stands for either. The first phrase of a kind is the plainest.
_TABLE: Mapping[str, Sequence[str]] = {
  "liked": (
    "Because you <liked|enjoyed> {titles}.",
    "Recommended because you <liked|enjoyed> {titles}.",
    "You might like this because you <liked|enjoyed> {titles}.",
    "You <liked|enjoyed> {titles}, so you might like this <too|as well>.",
    "Since you <liked|enjoyed> {titles}, you might like this <too|as well>.",
    "Picked for you because you <liked|enjoyed> {titles}.",
  ),
  "liked_too": (
    "Also because you <liked|enjoyed> {titles}.",
    "It also helps that you <liked|enjoyed> {titles}.",
    "You also <liked|enjoyed> {titles}, which counts in its favor.",
  ),
  "rated": (
    "Your rating of {rating} for {title} counts in its favor.",
    "Recommended in part because you gave {title} a rating of {rating}.",
    "You gave {title} a rating of {rating}, which counts in its favor.",
  ),
  "rated_too": (
    "Your rating of {rating} for {title} counts as well.",
    "It also helps that you gave {title} a rating of {rating}.",
    "You gave {title} a rating of {rating}, which also counts in its favor.",
  ),
  "strongest": (
    "Nothing else in your history <counts|matters> more here than {title}.",
    "Of everything in your history, {title} <counts|matters> most here.",
    "Here, {title} <counts|matters> more than anything else in your history.",
  ),
  "person": (
    "{name} ({role}) also worked on {title}, which you <liked|enjoyed>.",
    "{name} ({role}) worked on both this and {title}, which you <liked|enjoyed>.",
    "You <liked|enjoyed> {title}, and {name} ({role}) worked on this one, too.",
  ),
  "maker": (
    "It is from {name} ({role}), as is {title}, which you <liked|enjoyed>.",
    "Like {title}, which you <liked|enjoyed>, it is from {name} ({role}).",
    "You <liked|enjoyed> {title}, and this one is from {name} ({role}), too.",
  ),
  "tag": (
    "Like {title}, which you <liked|enjoyed>, it is tagged {tag}.",
    "It shares the tag {tag} with {title}, which you <liked|enjoyed>.",
    "Both this and {title}, which you <liked|enjoyed>, are tagged {tag}.",
  ),
  "genre": (
    "Its genres include {name}, as do those of {n} of the {m} titles you liked.",
    "{name} is one of its genres, and {n} of the {m} titles you liked <have|share> it.",
    "Of the {m} titles you liked, {n} are in the {name} genre, and so is this one.",
    "It shares the genre {name} with {n} of the {m} titles you liked.",
    "Like {n} of the {m} titles you liked, it is in the {name} genre.",
  ),
  "both": (
    "{n} people liked both this and {title}.",
    "{n} people who liked {title} also liked this.",
    "<Of|Among> the people who liked {title}, {n} also liked this.",
  ),
  "likes": (
    "Liked by {people}.",
    "It has been liked by {people}.",
    "So far, it has been liked by {people}.",
  ),
  "avoided": (
    "Unlike {n} of the {m} titles you disliked, it is not in the {name} genre.",
    "Of the {m} titles you disliked, {n} are in the {name} genre; this one is not.",
    "It steers clear of the {name} genre, unlike {n} of the {m} titles you disliked.",
  ),
  "moved": (
    "Re-ranking moved it from position {n} to position {m}.",
    "It moved from position {n} to position {m} when the list was re-ranked.",
  ),
  "leaves": (
    "Without {titles} in your history, it would be number {n}, outside your top {m}.",
    "If {titles} were not in your history, it would rank number {n} and miss your top {m}.",
    "Take {titles} out of your history, and it would drop to number {n}, outside your top {m}.",
  ),
  "stays": (
    "No single item in your history keeps it in your top {m}.",
    "Remove any one item from your history, and it would still be in your top {m}.",
    "It would stay in your top {m} whichever item you removed from your history.",
  ),
}

# Words that may connect a sentence with the one before it. They claim nothing.
_ADDING = (
  "And ",
  "Also, ",
  "Besides, ",
  "Moreover, ",
  "In addition, ",
  "Furthermore, ",
  "What is more, ",
  "On top of that, ",
)
_CONNECTING: Mapping[str, Sequence[str]] = {
  "liked": (),
  "rated": (),
  "likes": (),
  "moved": (),
  "strongest": ("In fact, ", "Indeed, "),
  "leaves": ("Still, ", "That said, ", "Then again, "),
  "stays": ("Still, ", "Even so, ", "In any case, "),
}  # other kinds: _ADDING
_ADDS = re.compile(r"\b(?:also|too|as well)\b", re.IGNORECASE)

_EITHER = re.compile(r"<([^>]*)>")


def _wordings(words: str) -> list[str]:
  pieces = [
    piece.split("|") if place % 2 else [piece] for place, piece in enumerate(_EITHER.split(words))
  ]
  return ["".join(chosen) for chosen in itertools.product(*pieces)]


PHRASES: Mapping[str, tuple[Phrase, ...]] = {
  kind: tuple(Phrase(kind, one) for words in own for one in _wordings(words))
  for kind, own in _TABLE.items()
}
"""Every sentence that a reason may contain, by kind; the first of a kind is the plainest."""


def _connecting(phrase: Phrase) -> tuple[str, ...]:
  """The connecting words that sound natural before this phrase."""
  words = _CONNECTING.get(phrase.kind, _ADDING)
  if ", and " in phrase.words or phrase.words.startswith("Here,"):
    words = tuple(one for one in words if one not in ("And ", "In fact, ", "Indeed, "))
  if _ADDS.search(phrase.words):
    words = tuple(one for one in words if one == "And ")
  return tuple(words)


CONNECTING: Mapping[Phrase, tuple[str, ...]] = {
  phrase: _connecting(phrase) for own in PHRASES.values() for phrase in own
}
"""The words, with the comma or space after them, that may stand before a phrase that follows
another sentence. The phrase then goes on in lower case."""

_SLOT = re.compile(r"\{(\w+)\}")
_NO_ONE = "no one"


def shown_title(title: str) -> str:
  """A title as people write it: the article in front, the year at the end."""
  year = YEAR.search(title)
  return plain_title(title) + (f" {year.group().strip()}" if year else "")


def slots_of(phrase: Phrase) -> tuple[str, ...]:
  """The names of the phrase's slots, in the order in which they appear."""
  return tuple(_SLOT.findall(phrase.words))


def write(phrase: Phrase, values: Mapping[str, str | Sequence[str]]) -> str:
  """The sentence with these values in it. Args: values: as in `slot_text`."""
  return complete(phrase, {slot: slot_text(slot, values) for slot in slots_of(phrase)})


def complete(phrase: Phrase, texts: Mapping[str, str], *, connecting: str = "") -> str:
  """The sentence with these texts in its slots.

  Args: texts: by slot. connecting: one of the words of `CONNECTING`, or none.
  """
  words = connecting + phrase.words[0].lower() + phrase.words[1:] if connecting else phrase.words
  return _SLOT.sub(lambda slot: texts[slot.group(1)], words)


def slot_text(slot: str, values: Mapping[str, str | Sequence[str]]) -> str:
  """The text for one slot.

  Args:
    slot: `title`, `titles` (a list), `name`, `tag` (a name in quotation marks), `role`, `n`, `m`,
      `rating` or `people` (how many people).
    values: whichever of `titles`, `title`, `name`, `role`, `n`, `m` and `rating` the slot needs;
      they may contain any characters.
  """
  if slot == "tag":
    return f"“{values['name']}”"
  if slot == "people":
    count = values["n"]
    return _NO_ONE if count == "0" else f"{count} {'person' if count == '1' else 'people'}"
  value = values[slot]
  return value if isinstance(value, str) else listed(value)


def listed(titles: Sequence[str]) -> str:
  """Titles as a list in a sentence: "A", "A and B", "A, B and C"."""
  return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def read(sentence: str, titles: Sequence[str]) -> tuple[Claim, ...] | None:
  """The claims of a sentence, or None if no phrase matches it.

  Connecting words before it are passed over.

  Args:
    titles: those that the sentence may name, as `shown_title` gives them. A list of titles is
      split where these end; text that is none of them becomes the subject of a claim as it is.
  """
  for phrase, pattern in _PATTERNS:
    if found := pattern.fullmatch(sentence):
      values = {
        slot: _split_titles(text, titles) if slot == "titles" else text
        for slot, text in found.groupdict().items()
      }
      if people := values.get("people"):
        values["n"] = "0" if people == _NO_ONE else people.split(" ")[0]
      return claims_of(phrase.kind, values)
  return None


def claims_of(kind: str, values: Mapping[str, str | Sequence[str]]) -> tuple[Claim, ...]:
  """The claims that a phrase of this kind makes with these values in its slots."""
  one = {slot: value for slot, value in values.items() if isinstance(value, str)}
  titles = tuple(values.get("titles", ()))
  title, name, n, m = (one.get(slot, "") for slot in ("title", "name", "n", "m"))
  if kind in ("liked", "liked_too"):
    return tuple(Claim(k, (t,)) for t in titles for k in ("liked", "rests_on"))
  if kind in ("rated", "rated_too"):
    return Claim("rated", (title, one["rating"])), Claim("rests_on", (title,))
  if kind == "strongest":
    return Claim("most", (title,)), Claim("rests_on", (title,))
  if kind in ("person", "maker", "tag"):
    sort = "tag" if kind == "tag" else one["role"]
    shared = ("tag" if kind == "tag" else "person", name, title)
    return Claim("liked", (title,)), Claim("has", (sort, name)), Claim("shares", shared)
  if kind == "genre":
    return Claim("has", ("genre", name)), Claim("liked_with", ("genre", name, n, m))
  if kind == "avoided":
    return Claim("free_of", (name,)), Claim("disliked_with", (name, n, m))
  if kind == "leaves":
    return (Claim("leaves", (n, m, *titles)),)
  return (Claim(kind, {"both": (title, n), "likes": (n,), "moved": (n, m), "stays": (m,)}[kind]),)


def _split_titles(text: str, titles: Sequence[str]) -> tuple[str, ...]:
  """The titles of a list as `listed` writes it."""
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
  pieces = _SLOT.split(phrase.words)  # words and names of slots alternate
  kinds = {
    "n": r"(?P<n>\d+)",
    "m": r"(?P<m>\d+)",
    "people": rf"(?P<people>\d+ (?:person|people)|{_NO_ONE})",
    "rating": r"(?P<rating>[\d.]+)",
    "role": r"(?P<role>[\w ]+)",
    "tag": "“(?P<name>.+)”",
  }
  parts = [
    re.escape(piece) if place % 2 == 0 else kinds.get(piece, f"(?P<{piece}>.+)")
    for place, piece in enumerate(pieces)
  ]
  if connecting := "|".join(map(re.escape, CONNECTING[phrase])):
    first = pieces[0][:1]  # "" where a slot begins the phrase
    parts[0] = f"(?:{first}|(?:{connecting}){first.lower()}){re.escape(pieces[0][1:])}"
    if not first:
      parts[0] = f"(?:{connecting})?"
  return re.compile("".join(parts))


_PATTERNS = tuple((phrase, _pattern(phrase)) for own in PHRASES.values() for phrase in own)
