"""Truncates histories so that prompts fit into the model's context, the oldest lines first."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.tokens.chat import has_template
from gatrec_jax.rerank.prompting.prompts import (
  BEST_TITLE,
  PROFILE,
  Context,
  data_spans,
  own_token,
  prompt_ids,
)

Prompts = Callable[[Context], list[str]]
"""From a user's context to the texts of their prompts."""


class PromptEncoder:
  """From prompts to token ids, as `prompts.prompt_ids` gives them, but faster.

  A tokenizer splits a text at its added tokens before anything else. If the ends of lines with a
  title are added tokens, they are looked up, and the text between them is encoded once.
  """

  def __init__(self, model: LanguageModel, *, chat: bool = True) -> None:
    """Args: chat: whether prompts are messages of a chat, if the model has a template for that."""
    self.model, self._chat = model, chat
    self._plain = not (chat and has_template(model.tokenizer))
    self._added = model.added_tokens
    self._known: dict[str, list[int]] = {}
    self._lines: dict[str, list[int]] = {}  # lines that end in an added token
    ends = {
      text: token
      for text, token in model.added_tokens.items()
      if text.endswith("\n") and text.strip()
    }
    self._ends = ends if self._plain else {}

  def __call__(self, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the prompts about one user."""
    if self._ends:
      return [self._by_lines(text) for text in texts]
    return self._with_shared_head(texts)

  def _by_lines(self, text: str) -> list[int]:
    tail = BEST_TITLE if text.endswith(BEST_TITLE) and BEST_TITLE in self._added else ""
    ids, rest, previous = list(self._first), "", ""
    for line in text.removesuffix(tail).splitlines(keepends=True):
      after, previous = previous, line
      if line in self._lines and not rest and after != PROFILE:
        ids += self._lines[line]
        continue
      own = own_token(line, self._ends, after=after)
      if not own:
        rest += line
        continue
      found = [*self._encode(rest + line.removesuffix(own)), self._ends[own]]
      if not rest:
        self._lines[line] = found
      ids += found
      rest = ""
    return ids + self._encode(rest) + ([self._added[tail]] if tail else [])

  @functools.cached_property
  def _first(self) -> list[int]:
    """The special tokens that the tokenizer puts before a text."""
    return self.model.tokenizer.backend_tokenizer.encode("").ids

  def _encode(self, text: str) -> list[int]:
    if text not in self._known:
      self._known[text] = self.model.encode.part(text).ids if text else []
    return self._known[text]

  def _with_shared_head(self, texts: Sequence[str]) -> list[list[int]]:
    """Encodes the common beginning of the texts once, up to the end of a line.

    Falls back to encoding each text if the pieces do not give the ids of the first text.
    """

    def whole() -> list[list[int]]:
      return [self._whole(text) for text in texts]

    if not self._plain or len(texts) <= 2:
      return whole()
    head = os.path.commonprefix(list(texts))
    head = head[: head.rfind("\n") + 1]
    # The alternative encodes the first text, the head and all tails.
    if len(head) * len(texts) <= 2 * len(texts[0]):
      return whole()
    first = self._whole(texts[0])
    begin = self._whole(head)
    rest = [self._tail(text[len(head) :]) for text in texts]
    if begin + rest[0] != first:
      return whole()
    return [begin + ids for ids in rest]

  def _whole(self, text: str) -> list[int]:
    return prompt_ids(self.model, text, chat=self._chat)

  def _tail(self, text: str) -> list[int]:
    """Token ids of the lines that follow a common beginning."""
    return self.model.encode.text(
      text, data=data_spans(text, self.model.added_tokens), special_tokens=False
    )


def fit_prompts(
  encode: PromptEncoder,
  contexts: Sequence[Context],
  prompts: Sequence[Prompts],
  reserved: Sequence[int],
) -> tuple[list[list[list[int]]], list[Context]]:
  """Prompts as token ids, with as much of each user's history as the model's context allows.

  All prompts of a user get the same history, so that they share a prefix. The oldest lines are
  dropped first, and the profile if no line is left.

  Args:
    encode: of the model that is queried.
    contexts: of N users.
    prompts: for each user the texts of the prompts, as a function of the context.
    reserved: tokens to leave free after each user's prompts.
  Returns: for each user the ids of the prompts, and the context, shortened or unchanged.
  Raises: InputError if the candidates alone do not fit.
  """
  encoded = [encode(make(context)) for make, context in zip(prompts, contexts, strict=True)]
  kept = list(contexts)
  for row, (one, free) in enumerate(zip(encoded, reserved, strict=True)):
    most = encode.model.config.context - free
    if max(map(len, one), default=0) > most:
      encoded[row], kept[row] = _shortened(encode, contexts[row], prompts[row], most)
  return encoded, kept


def _shortened(
  encode: PromptEncoder, context: Context, prompts: Prompts, most: int
) -> tuple[list[list[int]], Context]:
  """The prompts with the longest history for which all have at most `most` tokens."""
  lines = len(context.history)

  # Step n drops the n oldest lines, and the last step also drops the profile.
  def shorter(step: int) -> Context:
    return (
      dataclasses.replace(context, history=context.history[step:]) if step <= lines else Context()
    )

  low, high, found = 1, lines + 1, None
  while low <= high:
    step = (low + high) // 2
    encoded = encode(prompts(shorter(step)))
    if max(map(len, encoded)) <= most:
      high, found = step - 1, (encoded, shorter(step))
    else:
      low = step + 1
  if found is None:
    raise InputError(
      f"{encode.model.name}: a prompt may have {most} tokens, but the candidates alone need more; "
      "lower `top_candidates`, or use a model with a longer context"
    )
  return found
