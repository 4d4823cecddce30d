"""The prompts of re-ranking, one per strategy.

All of them start with the same description of the user, so that its keys and values are computed
once for many queries. Lines end with a title, so that a small model may encode the end of each line
as one token.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Container, Sequence

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.tokens.chat import has_template
from gatrec_jax.lm.tokens.plain_text import Span
from gatrec_jax.profiles.schema import Profile, parse_profile

# Incremented with every change of the texts below, which models are trained on and whose scores are
# cached.
PROMPT_VERSION = 1
LABELS = string.ascii_uppercase + string.ascii_lowercase
YES_NO = ("yes", "no")
UNKNOWN = "N/A"  # every text of a content-free prompt

PROFILE = "Profile\n"
HISTORY = "History, oldest first\n"
LIKED, DISLIKED = "liked", "disliked"
CANDIDATES = "Candidates\n"
CANDIDATE = "candidate"
BEST = "Which candidate fits this user best? Answer with its letter.\n"
# For models that encode the end of a line with a title as one token: the prompt starts the line.
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
# Whatever somebody takes for the end of a line, and how lines begin that a prompt writes itself.
_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_STRUCTURE = re.compile(
  rf"(?:{LIKED}|{DISLIKED}|{CANDIDATE}|best|\w{{1,2}})\s*:|Profile$|History, |Candidates$|"
  r"Which candidate|Does this candidate|Rank |How well does each",
  re.IGNORECASE,
)
_PROFILE_TERMS = 5
_PROFILE_CHARACTERS = 600


@dataclasses.dataclass(frozen=True)
class Context:
  """What a prompt says about a user, from training data alone.

  Attributes:
    profile: one paragraph; "" if there is none.
    history: (title, whether liked) of rated items, the most recent last.
  """

  profile: str = ""
  history: tuple[tuple[str, bool], ...] = ()


# A content-free prompt, which shows a model's bias toward certain answers (Zhao et al. 2021,
# "Calibrate Before Use", §4). It is the same for all users, so it is evaluated once.
CONTENT_FREE = Context(profile=UNKNOWN, history=((UNKNOWN, True),))


def describe(context: Context) -> str:
  """The description of a user that every prompt starts with."""
  lines = [PROFILE, f"{_BREAK.sub(' ', context.profile)}\n"] if context.profile else []
  if context.history:
    lines.append(HISTORY)
  lines += [title_line(LIKED if liked else DISLIKED, title) for title, liked in context.history]
  return "".join(lines)


def title_line(mark: str, title: str) -> str:
  """A line such as "liked: Heat (1995)"."""
  return f"{mark}{line_end(title)}"


def line_end(title: str) -> str:
  """The end of every line with a title, which a small model may encode as one token.

  A title is one line, whatever is in it.
  """
  return f": {_BREAK.sub(' ', title)}\n"


def candidate_block(titles: Sequence[str]) -> str:
  """The candidates with letters, in the given order. Raises: InputError for too many."""
  require_labels(len(titles))
  lines = [title_line(label, title) for label, title in zip(LABELS, titles, strict=False)]
  return CANDIDATES + "".join(lines)


def require_labels(count: int, available: int = len(LABELS)) -> None:
  """Raises InputError if there are more candidates than letters."""
  if count > available:
    raise InputError(
      f"only {available} letters are single tokens; lower it, or use `strategy=pointwise`, which "
      "has no limit",
      field="top_candidates",
      value=count,
    )


def choice_prompt(context: Context, titles: Sequence[str], *, by_title: bool = False) -> str:
  """Prompt for the best candidate, used by `label` and, with two candidates, by `pairwise`.

  Args: by_title: whether the answer is the `line_end` of a title instead of a letter, for models
    whose labels are titles.
  """
  return describe(context) + candidate_block(titles) + (BEST_TITLE if by_title else BEST)


def next_prompt(context: Context) -> str:
  """Prompt that starts the next line of the history; the answer is a liked title's `line_end`."""
  return describe(context) + ("" if context.history else HISTORY) + LIKED


def title_tokens(model: LanguageModel, titles: Sequence[str]) -> np.ndarray | None:
  """The tokens of the titles' `line_end`, [k] int32; None if one of them takes several tokens.

  The built-in model has such tokens (`learning/builtin.py`); its titles serve as labels.
  """
  found = [model.added_tokens.get(line_end(title)) for title in titles]
  return None if None in found or not found else np.array(found, np.int32)


def pointwise_prompt(context: Context, title: str) -> str:
  """Prompt for whether one candidate fits."""
  return describe(context) + title_line(CANDIDATE, title) + FITS


def listwise_prompt(context: Context, titles: Sequence[str]) -> str:
  """Prompt for an ordered list of titles (Ebrat et al. 2025, prompt-level re-ranking)."""
  return describe(context) + candidate_block(titles) + RANK_TITLES


def batchwise_prompt(context: Context, titles: Sequence[str]) -> str:
  """Prompt for the letters of a few candidates in order (Ebrat et al. 2025, batchwise)."""
  return describe(context) + candidate_block(titles) + RANK_LABELS


def relevancy_prompt(context: Context, titles: Sequence[str]) -> str:
  """Prompt for scores from 0 to 100 (Ebrat et al. 2025, relevancy)."""
  return describe(context) + candidate_block(titles) + RATE


def prompt_ids(model: LanguageModel, text: str, *, chat: bool = True) -> list[int]:
  """Token ids of a prompt, as a user message if the model has a chat template and `chat` is set.

  Added tokens are recognized where the prompt means them: in the template, and in the built-in
  model's lines.
  """
  if chat and has_template(model.tokenizer):
    return model.encode([{"role": "user", "content": text}])
  return model.encode.text(text, data=data_spans(text, model.added_tokens))


def data_spans(text: str, tokens: Container[str]) -> list[Span]:
  """The parts of a prompt outside of the tokens that the built-in model has for its lines.

  Args: text: of a prompt, or of a prompt with its answer. tokens: added tokens of the model.
  """
  spans, place, previous = [], 0, ""
  for line in text.splitlines(keepends=True):
    start, end = place, place + len(line)
    own = own_token(line, tokens, after=previous)
    spans.append((start, end - len(own)))
    place, previous = end, line
  if text.endswith(BEST_TITLE) and BEST_TITLE in tokens:
    first = len(text) - len(BEST_TITLE)
    spans = [(start, min(end, first)) for start, end in spans if start < first]
  return [(start, end) for start, end in spans if start < end]


def own_token(line: str, tokens: Container[str], *, after: str) -> str:
  """The token that a line of a prompt ends with, or that it is; "" if there is none.

  Args: tokens: added tokens of the model. after: the line before; a profile has no token.
  """
  if after == PROFILE:
    return ""
  if line in tokens:
    return line
  end = "".join(line.partition(": ")[1:])
  return end if end in tokens else ""


def profile_line(text: str) -> str:
  """A user's profile in one line: keywords of the schema, or the beginning of any other text.

  A text that begins like a line of the prompt is put in quotation marks.
  """
  line = _BREAK.sub(" ", _profile_words(text))
  return f"“{line}”" if _STRUCTURE.match(line) else line


def _profile_words(text: str) -> str:
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
