"""What a language model is told when it writes profiles, with texts that are made to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.profiles import builder
from gatrec_jax.profiles.schema import Profile
from gatrec_jax.profiles.writer.checks import without_title

# Raised with every change of the texts below, so that profiles of two versions are never mixed.
PROMPT_VERSION = 1

_ITEM_HINTS = {
  "overview": "what it is about",
  "genres": "its genres",
  "tags": "keywords of theme, mood, setting",
  "description": "style and appeal, in sentences",
  "dislikes": "genres and themes it lacks",
}
_USER_HINTS = {
  "overview": "the taste in short",
  "genres": "preferred ones",
  "tags": "keywords of themes and moods",
  "description": "what is sought, in sentences",
  "dislikes": "keywords of what is avoided",
  "summary": "what is sought and avoided, in one paragraph",
}
_ITEM = "Describe this film as JSON: {fields}. Name no people."
_FIRST = "A user {verb} these films. Describe the user's taste as JSON: {fields}. {rule}"
_NEXT = (
  "A user with this profile also {verb} these films. Refine the profile as JSON, keeping what "
  "still holds: {fields}. {rule}"
)
_RULE = "Use only words of the films' profiles, no titles, no names of people."
_SHORTEST = 4  # tokens of a film; fewer say nothing


@dataclasses.dataclass(frozen=True)
class Room:
  """What a prompt may take.

  Attributes:
    tokens: of the whole prompt.
    count: tokens that a prompt takes, with all that is put around it.
    length: tokens of a text within it.
    cut: the beginning of a text, of at most so many tokens.
  """

  tokens: int
  count: Callable[[str], int]
  length: Callable[[str], int]
  cut: Callable[[str, int], str]


def item_prompt(room: Room, fields: Mapping[str, Any], *, answer: Sequence[str]) -> str:
  """Asks for the profile of an item. Its texts are shortened where they do not fit.

  Args: fields: what is known of it, as in `Dataset.item_fields`. answer: the fields to write.
  """
  instruction = _ITEM.format(fields=_described(answer, _ITEM_HINTS))
  lines = [
    ("Title", builder.one_line(fields.get("title"))),
    ("Genres", ", ".join(builder.genres_of(fields))),
    ("Overview", builder.first_text(fields, builder.OVERVIEW_FIELDS)),
    ("Tagline", builder.one_line(fields.get("tagline"))),
    (
      "Tags",
      ", ".join(tag for name in builder.TAG_FIELDS for tag in builder.terms_of(fields.get(name))),
    ),
  ]
  lines = [(label, text) for label, text in lines if text]

  def render(texts: Sequence[str]) -> str:
    told = [f"{label}: {text}" for (label, _), text in zip(lines, texts, strict=True)]
    return "\n".join([instruction, "", *told])

  return fitted(room, render, [text for _, text in lines])


def user_prompt(
  room: Room, films: Sequence[str], *, liked: bool, present: str, answer: Sequence[str]
) -> str:
  """Asks for a user's profile, or for the refinement of the present one.

  Args:
    films: profiles of items, from `film_text`; shortened where they do not fit.
    liked: whether the user liked these films.
    present: the profile so far, from `profile_text`; "" on the first turn. It gets as much room as
      all films together.
    answer: the fields to write.
  """
  template = _NEXT if present else _FIRST
  instruction = template.format(
    verb="liked" if liked else "disliked", fields=_described(answer, _USER_HINTS), rule=_RULE
  )

  def render(texts: Sequence[str]) -> str:
    told = [f"{number}. {text}" for number, text in enumerate(texts[: len(films)], 1)]
    before = ["Profile:", texts[-1], ""] if present else []
    return "\n".join([instruction, "", *before, "Films:", *told])

  texts = [*films, present] if present else list(films)
  weights = [1] * len(films) + [len(films)] * bool(present)
  return fitted(room, render, texts, weights=weights)


def film_text(profile: Profile, title: str) -> str:
  """What users' prompts tell of an item, in one line: without its name, keywords first."""
  return without_title(" ".join(_parts(profile, lacks="Not in it")), title)


def profile_text(profile: Profile) -> str:
  """What a prompt tells of the profile so far."""
  return "\n".join(_parts(profile, lacks="Avoids"))


def _parts(profile: Profile, *, lacks: str) -> list[str]:
  parts = [
    profile.genres and f"Genres: {', '.join(profile.genres)}.",
    profile.tags and f"Tags: {', '.join(profile.tags)}.",
    profile.dislikes and f"{lacks}: {', '.join(profile.dislikes)}.",
    " ".join(profile.overview.split()),
    " ".join(profile.description.split()),
  ]
  return [part for part in parts if part]


def _described(answer: Sequence[str], hints: Mapping[str, str]) -> str:
  return ", ".join(f"{field} ({hints[field]})" for field in answer)


def fitted(
  room: Room,
  render: Callable[[Sequence[str]], str],
  texts: Sequence[str],
  *,
  weights: Sequence[int] | None = None,
) -> str:
  """The prompt with its texts cut until it fits; what is short leaves its share to the others.

  Args: render: texts to the prompt. weights: of the texts' shares; all alike by default.
  Raises: InputError where not even the instructions leave room.
  """
  weights = list(weights or [1] * len(texts))
  available = room.tokens - room.count(render([""] * len(texts)))
  if available < _SHORTEST * sum(weights):
    raise InputError(
      f"its context leaves {room.tokens} tokens for a prompt, but the instructions of "
      f"profiles take {room.tokens - available}; take a model with a longer context",
      field="llm",
    )
  lengths = [room.length(text) for text in texts]
  while True:  # A text alone has a few tokens more or less than it has within the prompt.
    shares = allotted(lengths, weights, max(0, available))
    parts = [room.cut(text, share) for text, share in zip(texts, shares, strict=True)]
    prompt = render(parts)
    over = room.count(prompt) - room.tokens
    if over <= 0:
      return prompt
    available -= over


def allotted(lengths: Sequence[int], weights: Sequence[int], available: int) -> list[int]:
  """How much each gets: at most its length, and no more than the same multiple of its weight."""
  low, high = 0, max(lengths, default=0)
  while low < high:
    level = (low + high + 1) // 2
    taken = sum(min(n, level * w) for n, w in zip(lengths, weights, strict=True))
    low, high = (level, high) if taken <= available else (low, level - 1)
  return [min(n, low * w) for n, w in zip(lengths, weights, strict=True)]
