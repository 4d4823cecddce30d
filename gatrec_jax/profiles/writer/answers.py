"""Answers of a language model that writes profiles: length limits, JSON schema, parsing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.profiles.schema import Profile

FORMS = ("unified", "summary")
PROSE = ("overview", "description", "summary")
# Genres are enumerated in the schema up to this number.
_GENRES_ENUMERATED = 64
_MAX_TOKENS, _CONTEXT_SHARE = 1024, 0.3
# Characters for names of fields and JSON syntax; and the share of text, because the syntax between
# many short keywords takes more than in prose.
_FRAME_CHARACTERS = 130
_TEXT_SHARE = 0.8
_MAX_CHARACTERS_PER_TOKEN = 4.5
_MAX_KEYWORDS = 64  # limit of maxItems in a schema
# An answer that runs out of tokens is closed as early as possible; these are minimum lengths.
_MIN_PROSE, _MIN_KEYWORD = 20, 3
_NOT_IN_KEYWORDS = re.compile(r"[,;()\[\]{}*#•|]+")
_MARKUP = re.compile(r"^[\s#>*•–-]+")
_ENDS = ".!?…"


@dataclasses.dataclass(frozen=True)
class Limits:
  """Maximum lengths of an answer.

  Attributes:
    tokens: of the whole answer, which is always well-formed.
    prose: field -> characters. keywords: field -> (entries, characters per entry).
  """

  tokens: int
  prose: Mapping[str, int]
  keywords: Mapping[str, tuple[int, int]]


def answer_tokens(context: int) -> int:
  """Tokens of a context that are reserved for the answer."""
  return min(_MAX_TOKENS, int(context * _CONTEXT_SHARE))


def user_limits(tokens: int, characters_per_token: float) -> Limits:
  """Limits for a user profile; nearly all published profiles fit into 1024 tokens.

  Args: tokens: for the answer. characters_per_token: of the tokenizer, on English text.
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
  """Limits for an item profile, which has fewer keywords. Args: as in `user_limits`."""
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

  Args:
    fields: to write. limits: of their lengths.
    genres: of the catalog; genres are free text if there are none or too many to enumerate.
  """
  known = sorted(set(genres))
  properties: dict[str, Any] = {}
  for field in fields:
    if field in PROSE:
      properties[field] = _string(_MIN_PROSE, limits.prose[field])
      continue
    most, length = limits.keywords[field]
    entry = _string(_MIN_KEYWORD, length)
    if field == "genres" and 0 < len(known) <= _GENRES_ENUMERATED:
      entry = {"enum": known}
    properties[field] = {"type": "array", "items": entry, "minItems": 1, "maxItems": most}
  return {"type": "object", "properties": properties}


def read_answer(
  answer: Mapping[str, Any], *, name: str | None = None, genres: Sequence[str] = ()
) -> Profile:
  """Converts an answer to a profile that `parse_profile` recovers exactly from its rendering.

  Prose becomes one line without leading Markdown. Keywords lose commas, brackets and duplicates. A
  summary becomes the overview.

  Args: answer: in the form of `answer_form`. name, genres: known without the model.
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
  written = tokens * min(characters_per_token, _MAX_CHARACTERS_PER_TOKEN)
  return max(0.0, written - _FRAME_CHARACTERS) * _TEXT_SHARE


def _scaled(value: float, least: int) -> int:
  return max(least, round(value))


def _count(value: float) -> int:
  return min(_MAX_KEYWORDS, max(2, round(value)))


def _prose(text: str) -> str:
  """Prose in one line; a truncated last sentence is dropped if it is less than half the text."""
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
