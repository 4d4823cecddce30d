"""Prompts for writing profiles, with texts shortened to fit into the context."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gatrec_jax.data.nouns import plural
from gatrec_jax.errors import InputError
from gatrec_jax.profiles import builder
from gatrec_jax.profiles.schema import Profile
from gatrec_jax.profiles.writer.checks import without_title
from gatrec_jax.profiles.writer.domains import Example

# Incremented with every change of the texts below or of the forms of answers, so that two versions
# are never mixed.
PROMPT_VERSION = 2

_SYSTEM = "Describe each {noun} as JSON: {fields}."
_ITEM_HINTS = {
  "genres": "what it is",
  "tags": "what matters in its text",
  "moods": "how it is",
  "description": "one sentence in its own words",
  "dislikes": "which of the others it is not",
}
_USER_HINTS = {
  "overview": "the taste in short",
  "genres": "preferred ones",
  "tags": "keywords of themes and moods",
  "description": "what is sought, in sentences",
  "dislikes": "keywords of what is avoided",
  "summary": "what is sought and avoided, in one paragraph",
}
_FIRST = "A user {verb} these {nouns}. Describe the user's taste as JSON: {fields}. {rule}"
_NEXT = (
  "A user with this profile also {verb} these {nouns}. Refine the profile as JSON, keeping what "
  "still holds: {fields}. {rule}"
)
_RULE = "Use only words of {of_nouns} profiles, no titles, no names of people."
_MIN_TOKENS = 4  # per text
# Longer prompts of items take time and say no more; what begins a text tells what it is about.
_ITEM_TOKENS = 224
_LABEL = re.compile(r"\w+:|\d+\.\s")  # how lines begin that a prompt about a user writes itself


@dataclasses.dataclass(frozen=True)
class Budget:
  """The token budget of a prompt.

  Attributes:
    tokens: maximum for the whole prompt.
    count: prompt -> its number of tokens, including the chat template around it.
    length: text -> its number of tokens within a prompt.
    truncate: (text, tokens) -> the beginning of the text with at most so many tokens.
  """

  tokens: int
  count: Callable[[str], int]
  length: Callable[[str], int]
  truncate: Callable[[str, int], str]


@dataclasses.dataclass(frozen=True)
class Query:
  """A question to a model.

  Attributes:
    prompt: what is asked last. form: JSON schema of the answer.
    system: what is asked of every prompt; "" if the prompt says it.
    examples: pairs of a prompt and its answer.
  """

  prompt: str
  form: Mapping[str, Any]
  system: str = ""
  examples: tuple[tuple[str, str], ...] = ()


def item_query(
  budget: Budget,
  fields: Mapping[str, Any],
  *,
  noun: str,
  others: Sequence[str],
  form: Mapping[str, Any],
  examples: Sequence[Example],
) -> Query:
  """Asks for the profile of an item, with its texts shortened to fit.

  Args:
    budget: of the whole query. fields: of the item, as in `Dataset.item_fields`.
    noun: what an item is called. others: genres that it does not have, to choose dislikes from.
    form: of the answer.
    examples: of which as many are shown as fit into half of the budget.
  """
  asked = form["properties"]
  system = _SYSTEM.format(noun=noun, fields=_described(asked, _ITEM_HINTS))
  left = budget.tokens - budget.count(system)
  shown: list[tuple[str, str]] = []
  for example in examples:
    lines = _item_lines(example.fields, example.others, noun=noun)
    answer = {field: example.answer[field] for field in asked if field in example.answer}
    pair = _joined(lines), json.dumps(answer, ensure_ascii=False).replace("{noun}", noun)
    cost = sum(map(budget.count, pair))
    if cost > left - budget.tokens / 2:
      break
    shown.append(pair)
    left -= cost
  lines = _item_lines(fields, others, noun=noun)
  prompt = fit_prompt(
    dataclasses.replace(budget, tokens=min(left, _ITEM_TOKENS)),
    lambda texts: _joined(zip((label for label, _ in lines), texts, strict=True)),
    [text for _, text in lines],
  )
  return Query(prompt, form, system, tuple(shown))


def _item_lines(
  fields: Mapping[str, Any], others: Sequence[str], *, noun: str
) -> list[tuple[str, str]]:
  """What a prompt says of an item: labels and texts."""
  tags = [tag for name in builder.TAG_FIELDS for tag in builder.terms_of(fields.get(name))]
  lines = [
    (noun.capitalize(), builder.one_line(fields.get("title"))),
    ("Genres", ", ".join(builder.genres_of(fields))),
    ("Tags", ", ".join(tags)),
    ("Text", builder.first_text(fields, builder.OVERVIEW_FIELDS)),
    ("Tagline", builder.one_line(fields.get("tagline"))),
    ("Others", ", ".join(others)),
  ]
  return [(label, text) for label, text in lines if text]


def _joined(lines: Iterable[tuple[str, str]]) -> str:
  return "\n".join(f"{label}: {text}" for label, text in lines)


def user_query(
  budget: Budget,
  items: Sequence[str],
  *,
  noun: str,
  liked: bool,
  present: str,
  form: Mapping[str, Any],
) -> Query:
  """Asks for a user's profile, or for a refinement of the present one.

  Args:
    budget: of the prompt.
    items: profiles of items, from `item_line`; shortened to fit.
    noun: what an item is called.
    liked: whether the user liked these items.
    present: the profile so far, from `profile_text`; "" for the first batch. It may take as many
      tokens as all items together.
    form: of the answer.
  """
  template, nouns = _NEXT if present else _FIRST, plural(noun)
  instruction = template.format(
    verb="liked" if liked else "disliked",
    nouns=nouns,
    fields=_described(form["properties"], _USER_HINTS),
    rule=_RULE.format(of_nouns=f"the {nouns}'" if nouns.endswith("s") else f"the {nouns}'s"),
  )

  def render(texts: Sequence[str]) -> str:
    listed = [f"{number}. {text}" for number, text in enumerate(texts[: len(items)], 1)]
    before = ["Profile:", texts[-1], ""] if present else []
    return "\n".join([instruction, "", *before, f"{nouns.capitalize()}:", *listed])

  texts = [*items, present] if present else list(items)
  weights = [1] * len(items) + [len(items)] * bool(present)
  return Query(fit_prompt(budget, render, texts, weights=weights), form)


def item_line(profile: Profile, title: str, *, noun: str) -> str:
  """An item's profile in one line for prompts about users, without its title, keywords first."""
  return without_title(
    " ".join([*_keywords(profile, lacks="Not in it"), *_prose(profile)]), title, noun=noun
  )


def profile_text(profile: Profile) -> str:
  """A user's profile for the prompt that refines it.

  Prose that begins like a line of the prompt is put in quotation marks.
  """
  prose = (f"“{text}”" if _LABEL.match(text) else text for text in _prose(profile))
  return "\n".join([*_keywords(profile, lacks="Avoids"), *prose])


def _keywords(profile: Profile, *, lacks: str) -> list[str]:
  parts = [
    profile.genres and f"Genres: {', '.join(profile.genres)}.",
    profile.tags and f"Tags: {', '.join(profile.tags)}.",
    profile.dislikes and f"{lacks}: {', '.join(profile.dislikes)}.",
  ]
  return [" ".join(part.splitlines()) for part in parts if part]


def _prose(profile: Profile) -> list[str]:
  texts = (" ".join(text.split()) for text in (profile.overview, profile.description))
  return [text for text in texts if text]


def _described(answer: Iterable[str], hints: Mapping[str, str]) -> str:
  return ", ".join(f"{field} ({hints[field]})" for field in answer)


def fit_prompt(
  budget: Budget,
  render: Callable[[Sequence[str]], str],
  texts: Sequence[str],
  *,
  weights: Sequence[int] | None = None,
) -> str:
  """Truncates texts until their prompt fits; short texts leave their share to the others.

  Args:
    budget: of the prompt. render: texts -> prompt. texts: to truncate.
    weights: relative shares of the texts; equal by default.
  Raises: InputError if the instructions alone exceed the budget.
  """
  weights = list(weights or [1] * len(texts))
  available = budget.tokens - budget.count(render([""] * len(texts)))
  if available < _MIN_TOKENS * sum(weights):
    raise InputError(
      f"its context leaves {budget.tokens} tokens for a prompt, but the instructions take "
      f"{budget.tokens - available}; use a model with a longer context",
      field="llm",
    )
  lengths = [budget.length(text) for text in texts]
  while True:  # the number of tokens of a text may differ slightly within the prompt
    shares = allocate(lengths, weights, max(0, available))
    truncated = [budget.truncate(text, share) for text, share in zip(texts, shares, strict=True)]
    prompt = render(truncated)
    over = budget.count(prompt) - budget.tokens
    if over <= 0:
      return prompt
    available -= over


def allocate(lengths: Sequence[int], weights: Sequence[int], available: int) -> list[int]:
  """Divides `available` tokens: each text gets min(its length, level · its weight) for the largest
  level that fits."""
  low, high = 0, max(lengths, default=0)
  while low < high:
    level = (low + high + 1) // 2
    taken = sum(min(n, level * w) for n, w in zip(lengths, weights, strict=True))
    low, high = (level, high) if taken <= available else (low, level - 1)
  return [min(n, low * w) for n, w in zip(lengths, weights, strict=True)]
