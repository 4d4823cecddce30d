"""Prompts that fit: a user's history loses its oldest lines until a question has room."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.tokens.chat import has_template
from gatrec_jax.rerank.prompting.prompts import Context, prompt_ids

# From what is said of a user to the texts of some questions.
Texts = Callable[[Context], list[str]]


class Reader:
  """From questions to token ids, as `prompts.prompt_ids` gives them, but faster.

  A tokenizer cuts a text at its added tokens before it does anything else. Where the ends of lines
  with a title are such tokens, they are looked up, and what stands between them is read once.
  """

  def __init__(self, model: LanguageModel) -> None:
    self.model = model
    self._plain = not has_template(model.tokenizer)
    self._known: dict[str, list[int]] = {}
    self._lines: dict[str, list[int]] = {}  # that end in a token of their own
    ends = {text: token for text, token in model.added_tokens.items() if text.endswith("\n")}
    self._ends = ends if self._plain else {}

  def __call__(self, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of questions about one user."""
    if self._ends:
      return [self._by_lines(text) for text in texts]
    return self._behind_head(texts)

  def _by_lines(self, text: str) -> list[int]:
    ids, rest = list(self._read("", special_tokens=True)), ""
    for line in text.splitlines(keepends=True):
      if line in self._lines and not rest:
        ids += self._lines[line]
        continue
      mark, colon, end = ("", "", line) if line in self._ends else line.partition(": ")
      token = self._ends.get(colon + end)
      if token is None:
        rest += line
        continue
      found = [*self._read(rest + mark), token]
      if not rest:
        self._lines[line] = found
      ids += found
      rest = ""
    return ids + self._read(rest) if rest else ids

  def _read(self, text: str, *, special_tokens: bool = False) -> list[int]:
    if text not in self._known:
      self._known[text] = list(
        self.model.tokenizer(text, add_special_tokens=special_tokens, verbose=False)["input_ids"]
      )
    return self._known[text]

  def _behind_head(self, texts: Sequence[str]) -> list[list[int]]:
    """What many texts begin with is read once, up to the end of a line, where this gives the first
    text its ids: what follows there begins alike in all of them."""

    def whole():
      return [prompt_ids(self.model, text) for text in texts]

    if not self._plain or len(texts) <= 2:
      return whole()
    head = os.path.commonprefix(list(texts))
    head = head[: head.rfind("\n") + 1]
    # In pieces, the first text, the head and all tails are read.
    if len(head) * len(texts) <= 2 * len(texts[0]):
      return whole()
    first = prompt_ids(self.model, texts[0])
    begun = prompt_ids(self.model, head)
    rest = self.model.tokenizer(
      [text[len(head) :] for text in texts], add_special_tokens=False, verbose=False
    )["input_ids"]
    if begun + rest[0] != first:
      return whole()
    return [begun + ids for ids in rest]


def fitted(
  read: Reader, contexts: Sequence[Context], texts: Sequence[Texts], rooms: Sequence[int]
) -> tuple[list[list[list[int]]], list[Context]]:
  """Questions as token ids, with as much of each user's history as the model's context takes.

  All questions of a user are about the same history, or they would not share what they begin with.
  The oldest lines go first, when none is left the profile goes.

  Args:
    read: of the model that is asked.
    contexts: of N users. texts: for each the texts of its questions, as a function of the context.
    rooms: tokens that must be free behind each user's questions.
  Returns: for each user the ids of its questions; and its context, shortened or as it was.
  Raises: InputError where the candidates alone do not fit.
  """
  questions = [read(make(context)) for make, context in zip(texts, contexts, strict=True)]
  kept = list(contexts)
  for row, (one, room) in enumerate(zip(questions, rooms, strict=True)):
    most = read.model.config.context - room
    if max(map(len, one), default=0) > most:
      questions[row], kept[row] = _shortened(read, contexts[row], texts[row], most)
  return questions, kept


def _shortened(
  read: Reader, context: Context, texts: Texts, most: int
) -> tuple[list[list[int]], Context]:
  """The longest history with which all questions have at most `most` tokens."""
  lines = len(context.history)

  # Step n leaves out the n oldest lines, the last step the profile as well.
  def shorter(step):
    return (
      dataclasses.replace(context, history=context.history[step:]) if step <= lines else Context()
    )

  low, high, found = 1, lines + 1, None
  while low <= high:
    step = (low + high) // 2
    questions = read(texts(shorter(step)))
    if max(map(len, questions)) <= most:
      high, found = step - 1, (questions, shorter(step))
    else:
      low = step + 1
  if found is None:
    raise InputError(
      f"{read.model.name}: has room for {most} tokens of a question, and the candidates alone take "
      "more; lower `top_candidates`, or take a model with a longer context"
    )
  return found
