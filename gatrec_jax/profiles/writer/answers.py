"""The form of written profiles: how long they may be, their JSON schema, answers to profiles."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.profiles.schema import Profile

FORMS = ("unified", "summary")
PROSE = ("overview", "description", "summary")
# Enumerated where there are no more: a longer list would hardly bind a model.
_GENRES_ENUMERATED = 64
_MOST_TOKENS, _CONTEXT_SHARE = 1024, 0.3
# Names of fields and marks of JSON; and between many short keywords, marks take more than in prose.
_FRAME_CHARACTERS = 130
_TEXT_SHARE = 0.8
_MOST_CHARACTERS_PER_TOKEN = 4.5
_MOST_KEYWORDS = 64  # what a schema's maxItems may be
# Where the tokens run out, an answer is closed as soon as may be; not before something is said.
_LEAST_PROSE, _LEAST_KEYWORD = 20, 3
_NOT_IN_KEYWORDS = re.compile(r"[,;()\[\]{}*#•|]+")
_MARKUP = re.compile(r"^[\s#>*•–-]+")
_ENDS = ".!?…"


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long an answer may be.

  Attributes:
    tokens: of the whole answer, which ends well-formed whatever happens.
    prose: field -> characters. keywords: field -> (entries, characters of an entry).
  """

  tokens: int
  prose: Mapping[str, int]
  keywords: Mapping[str, tuple[int, int]]


def answer_tokens(context: int) -> int:
  """What of a context is the answer's."""
  return min(_MOST_TOKENS, int(context * _CONTEXT_SHARE))


def user_limits(tokens: int, characters_per_token: float) -> Limits:
  """For a user; with 1024 tokens of English nearly all published profiles would fit.

  Args: tokens: for the answer. characters_per_token: what the tokenizer makes of English.
  """
  size = _characters(tokens, characters_per_token)
  keyword = _scaled(size / 60, 16)
  return Limits(
    tokens,
    {
      "overview": _scaled(0.24 * size, 24),
      "description": _scaled(0.31 * size, 24),
      "summary": _scaled(0.31 * size, 24),
    },
    {
      "genres": (_count(size / 200), keyword),
      "tags": (_count(size / 55), keyword),
      "dislikes": (_count(size / 120), 2 * keyword),
    },
  )


def item_limits(tokens: int, characters_per_token: float) -> Limits:
  """For an item, whose keywords are fewer."""
  size = _characters(tokens, characters_per_token)
  keyword = _scaled(size / 80, 16)
  return Limits(
    tokens,
    {"overview": _scaled(0.24 * size, 24), "description": _scaled(0.24 * size, 24)},
    {
      "genres": (_count(size / 600), keyword),
      "tags": (_count(size / 300), keyword),
      "dislikes": (_count(size / 360), keyword),
    },
  )


def answer_form(
  fields: Sequence[str], limits: Limits, *, genres: Sequence[str] = ()
) -> dict[str, Any]:
  """The JSON schema of an answer with these fields.

  Args: genres: the genres that there are; free words where there are none, or too many to list.
  """
  known = sorted(set(genres))
  properties: dict[str, Any] = {}
  for field in fields:
    if field in PROSE:
      properties[field] = _string(_LEAST_PROSE, limits.prose[field])
      continue
    most, length = limits.keywords[field]
    entry = _string(_LEAST_KEYWORD, length)
    if field == "genres" and 0 < len(known) <= _GENRES_ENUMERATED:
      entry = {"enum": known}
    properties[field] = {"type": "array", "items": entry, "minItems": 1, "maxItems": most}
  return {"type": "object", "properties": properties}


def read_answer(
  answer: Mapping[str, Any], *, name: str | None = None, genres: Sequence[str] = ()
) -> Profile:
  """The profile that an answer tells; `parse_profile` reads its rendering back as it is.

  Prose becomes one line without marks of Markdown at its front; keywords lose commas, brackets and
  repetitions. A summary is an overview alone.

  Args: answer: of an `answer_form`. name, genres: what is known without the model.
  """
  return Profile(
    name=name,
    overview=_prose(answer.get("overview", answer.get("summary", ""))),
    genres=tuple(genres) or _keywords(answer.get("genres", ())),
    tags=_keywords(answer.get("tags", ())),
    description=_prose(answer.get("description", "")),
    dislikes=_keywords(answer.get("dislikes", ())),
  )


def _string(least: int, most: int) -> dict[str, Any]:
  return {"type": "string", "minLength": least, "maxLength": most}


def _characters(tokens: int, characters_per_token: float) -> float:
  written = tokens * min(characters_per_token, _MOST_CHARACTERS_PER_TOKEN)
  return max(0.0, written - _FRAME_CHARACTERS) * _TEXT_SHARE


def _scaled(value: float, least: int) -> int:
  return max(least, round(value))


def _count(value: float) -> int:
  return min(_MOST_KEYWORDS, max(2, round(value)))


def _prose(text: str) -> str:
  """One line; a sentence that the length cut off goes where most of the text stands before it."""
  text = _MARKUP.sub("", " ".join(text.split()))
  if text and text[-1] not in _ENDS:
    end = max(text.rfind(mark + " ") for mark in _ENDS)
    if end + 1 >= len(text) / 2:
      text = text[: end + 1]
  return text


def _keywords(entries: Sequence[str]) -> tuple[str, ...]:
  cleaned = (
    " ".join(_NOT_IN_KEYWORDS.sub(" ", entry).split()).strip("-–> .:!") for entry in entries
  )
  kept: dict[str, str] = {}
  for entry in cleaned:
    if entry:
      kept.setdefault(entry.casefold(), entry)
  return tuple(kept.values())
