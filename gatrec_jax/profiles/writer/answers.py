"""Answers of a language model that writes profiles: the JSON schema of each one, and its reading.

Facts are chosen among candidates, and sentences are written in given words, so that an answer
cannot invent any. Every field is short: a small model has little to say, and says it better at
once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.lm.constraints.schema import MAX_ITEMS
from gatrec_jax.profiles.schema import Profile

FORMS = ("unified", "summary")
SENTENCES = ("overview", "description", "summary")
# Entries of each field: least and most.
COUNTS = {"genres": (1, 3), "tags": (3, 5), "moods": (1, 2), "dislikes": (2, 3)}
USER_COUNTS = COUNTS | {"genres": (2, 5), "tags": (4, 8), "dislikes": (2, 6)}
# Words of each sentence after its first one: least and most.
LENGTHS = {"overview": (4, 16), "description": (4, 14), "summary": (10, 40)}
_MAX_TOKENS, _CONTEXT_SHARE = 320, 0.4
_NOT_IN_KEYWORDS = re.compile(r"[,;()\[\]{}*#•|]+")
_MARKUP = re.compile(r"^[\s#>*•–-]+")
_ENDS = ".!?…"


def answer_tokens(context: int) -> int:
  """Tokens of a context that are reserved for the answer."""
  return min(_MAX_TOKENS, int(context * _CONTEXT_SHARE))


def chosen(terms: Sequence[str], counts: tuple[int, int]) -> dict[str, Any]:
  """Schema of a list of some of these terms, each at most once, in their order.

  Args: terms: distinct. counts: least and most entries; fewer where there are fewer terms.
  """
  least, most = (min(count, len(terms)) for count in counts)
  return {
    "type": "array",
    "items": {"enum": list(terms)},
    "minItems": least,
    "maxItems": min(most, MAX_ITEMS),
    "inOrder": True,
  }


def sentence(
  words: Sequence[str], links: Sequence[str], starts: Sequence[str], lengths: tuple[int, int]
) -> dict[str, Any]:
  """Schema of a sentence in these words. Args: lengths: least and most words after its start."""
  return {
    "type": "string",
    "words": list(words),
    "links": list(links),
    "starts": list(starts),
    "minWords": lengths[0],
    "maxWords": lengths[1],
  }


def answer_form(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """Schema of an answer with these fields, in this order."""
  return {"type": "object", "properties": dict(fields)}


def read_answer(
  answer: Mapping[str, Any], *, name: str | None = None, genres: Sequence[str] = ()
) -> Profile:
  """Converts an answer to a profile that `parse_profile` recovers exactly from its rendering.

  Prose becomes one line without leading Markdown. Keywords lose commas, brackets and duplicates.
  Moods become tags, and a summary becomes the overview.

  Args: answer: in the form of `answer_form`. name, genres: known without the model.
  """
  return Profile(
    name=name,
    overview=_prose(answer.get("overview", answer.get("summary", ""))),
    genres=tuple(genres) or _keywords(answer.get("genres", ())),
    tags=_keywords([*answer.get("tags", ()), *answer.get("moods", ())]),
    description=_prose(answer.get("description", "")),
    dislikes=_keywords(answer.get("dislikes", ())),
  )


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
