"""What a language model reads and is asked when it re-ranks: one text for each strategy.

All of them begin with the same description of the user, so that its keys and values are computed
once for many questions. Lines end with a title, so that a small model may have each line's end as
one token.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.tokens.chat import encode_prompt, has_template, render_chat
from gatrec_jax.profiles.schema import Profile, parse_profile

# Raised with every change of the texts below: models are trained on them, scores kept under it.
PROMPT_VERSION = 1
LABELS = string.ascii_uppercase + string.ascii_lowercase
YES_NO = ("yes", "no")
UNKNOWN = "N/A"  # stands for everything in a prompt without content

PROFILE = "Profile\n"
HISTORY = "History, oldest first\n"
LIKED, DISLIKED = "liked", "disliked"
CANDIDATES = "Candidates\n"
CANDIDATE = "candidate"
BEST = "Which candidate fits this user best? Answer with its letter.\n"
# For models that have the end of a line with a title as one token: the line is begun for them.
BEST_TITLE = "Which candidate fits this user best? Answer with its title.\nbest"
FITS = "Does this candidate fit this user? Answer yes or no.\n"
RANK_TITLES = (
  "Rank all candidates for this user, the best first. Answer with a numbered line for each, such "
  "as 1: title.\n"
)
RANK_LABELS = (
  "Rank the candidates for this user, the best first. Answer with a line for each, only its "
  "letter.\n"
)
RATE = (
  "How well does each candidate fit this user, from 0 to 100? Answer with a JSON object of letters "
  "and numbers.\n"
)
_PROFILE_TERMS = 5
_PROFILE_CHARACTERS = 600


@dataclasses.dataclass(frozen=True)
class Context:
  """What is said of a user, from training data alone.

  Attributes:
    profile: one paragraph; "" where there is none.
    history: (title, whether liked) of rated items, the most recent last.
  """

  profile: str = ""
  history: tuple[tuple[str, bool], ...] = ()


# The form of a prompt with nothing in it, for what a model answers whatever it is asked (Zhao et
# al. 2021, "Calibrate Before Use", §4). The same for all users, so it is evaluated once.
CONTENT_FREE = Context(profile=UNKNOWN, history=((UNKNOWN, True),))


def describe(context: Context) -> str:
  """The beginning of every prompt."""
  lines = [PROFILE, f"{context.profile}\n"] if context.profile else []
  if context.history:
    lines.append(HISTORY)
  lines += [title_line(LIKED if liked else DISLIKED, title) for title, liked in context.history]
  return "".join(lines)


def title_line(mark: str, title: str) -> str:
  """A line such as "liked: Heat (1995)"."""
  return f"{mark}{line_end(title)}"


def line_end(title: str) -> str:
  """How every line with a title ends: what a small model may keep as one token."""
  return f": {title}\n"


def candidate_block(titles: Sequence[str]) -> str:
  """The candidates, lettered in the given order. Raises InputError for more than `LABELS`."""
  require_labels(len(titles))
  lines = [title_line(label, title) for label, title in zip(LABELS, titles, strict=False)]
  return CANDIDATES + "".join(lines)


def require_labels(count: int, available: int = len(LABELS)) -> None:
  """Raises InputError where there are more candidates than letters."""
  if count > available:
    raise InputError(
      f"only {available} candidates can have a letter of one token; "
      "lower it, or take `strategy=pointwise`, which has no limit",
      field="top_candidates",
      value=count,
    )


def choice_prompt(context: Context, titles: Sequence[str], *, by_title: bool = False) -> str:
  """Asks for the best candidate: `label`, and with two candidates `pairwise`.

  Args: by_title: the answer is `line_end` of its title instead of its letter, for models whose
    labels are titles.
  """
  return describe(context) + candidate_block(titles) + (BEST_TITLE if by_title else BEST)


def next_prompt(context: Context) -> str:
  """Begins the next line of the history; the answer is `line_end` of a title that is liked."""
  return describe(context) + ("" if context.history else HISTORY) + LIKED


def title_tokens(model: LanguageModel, titles: Sequence[str]) -> np.ndarray | None:
  """The tokens of the titles' `line_end`, [k] int32; None where one of them is several tokens.

  The built-in model has such tokens (`builtin.py`): titles are their own labels then.
  """
  found = [model.added_tokens.get(line_end(title)) for title in titles]
  return None if None in found or not found else np.array(found, np.int32)


def pointwise_prompt(context: Context, title: str) -> str:
  """Asks whether one candidate fits."""
  return describe(context) + title_line(CANDIDATE, title) + FITS


def listwise_prompt(context: Context, titles: Sequence[str]) -> str:
  """Asks for an ordered list of titles (PAPER.md §1.5, prompt-level)."""
  return describe(context) + candidate_block(titles) + RANK_TITLES


def batchwise_prompt(context: Context, titles: Sequence[str]) -> str:
  """Asks for the letters of a few candidates in order (§1.5, batchwise)."""
  return describe(context) + candidate_block(titles) + RANK_LABELS


def relevancy_prompt(context: Context, titles: Sequence[str]) -> str:
  """Asks for scores from 0 to 100 (§1.5, relevancy)."""
  return describe(context) + candidate_block(titles) + RATE


def prompt_ids(model: LanguageModel, text: str) -> list[int]:
  """Token ids of a question, as a user's message where the model's folder has a chat template."""
  if has_template(model.tokenizer):
    text = render_chat(model.tokenizer, [{"role": "user", "content": text}])
    return encode_prompt(model.tokenizer, text, bos=model.bos, special_tokens=False)
  return encode_prompt(model.tokenizer, text, bos=model.bos)


def profile_line(text: str) -> str:
  """A user's profile in one line: the keywords of the schema, or the beginning of other text."""
  profile = parse_profile(text)
  if profile == Profile():
    words = " ".join(text.split())
    return words if len(words) <= _PROFILE_CHARACTERS else words[:_PROFILE_CHARACTERS] + "…"
  parts = []
  if profile.genres:
    parts.append(f"Genres: {', '.join(profile.genres[:_PROFILE_TERMS])}.")
  if profile.tags:
    parts.append(f"Tags: {', '.join(profile.tags[:_PROFILE_TERMS])}.")
  if profile.dislikes:
    parts.append(f"Dislikes: {', '.join(profile.dislikes[:_PROFILE_TERMS])}.")
  return " ".join(parts) or " ".join(profile.overview.split())[:_PROFILE_CHARACTERS]
