"""New tokens to new text, piece by piece, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerBase

# Tokens of the prompt that are decoded together with the answer: how a token reads, with a space in
# front or not, depends on what stands before it.
LEAD = 8
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # a character whose bytes have not all come yet


def answer_text(
  tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> str:
  """The text that `tokens` add behind `prompt`, special tokens left out."""
  lead = list(prompt[-LEAD:])
  before = tokenizer.decode(lead, skip_special_tokens=True)
  return tokenizer.decode([*lead, *tokens], skip_special_tokens=True)[len(before) :]


def first_stop(text: str, stop: Sequence[str]) -> int | None:
  """Where the first of the stop strings begins, None where none is in the text."""
  places = [place for one in stop if (place := text.find(one)) >= 0]
  return min(places, default=None)


def cut_at_stop(
  tokenizer: PreTrainedTokenizerBase,
  prompt: Sequence[int],
  tokens: Sequence[int],
  stop: Sequence[str],
) -> tuple[list[int], str, bool]:
  """The tokens and the text before the first stop string, and whether there was one.

  Tokens are kept as long as their text lies wholly before the stop string.
  """
  tokens = list(tokens)
  text = answer_text(tokenizer, prompt, tokens)
  place = first_stop(text, stop)
  if place is None:
    return tokens, text, False
  while tokens and len(answer_text(tokenizer, prompt, tokens)) > place:
    tokens.pop()
  return tokens, text[:place], True


class TextTail:
  """The text of a growing answer, without what may still turn into something else.

  Held back are characters whose bytes are not all there, and beginnings of stop strings.
  """

  def __init__(
    self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stop: Sequence[str]
  ) -> None:
    self._tokenizer, self._prompt, self._stop = tokenizer, list(prompt[-LEAD:]), stop
    self._given = 0

  def feed(self, tokens: Sequence[int]) -> tuple[str, bool]:
    """Args: tokens: all of the answer so far. Returns: what is new and sure; whether it ended."""
    text = answer_text(self._tokenizer, self._prompt, tokens)
    place = first_stop(text, self._stop)
    if place is None:
      sure = len(text.rstrip(UNFINISHED))
      held = max((_overlap(text[:sure], one) for one in self._stop), default=0)
      sure -= held
    else:
      sure = place
    fresh = text[self._given : sure]
    self._given = max(self._given, sure)
    return fresh, place is not None

  def rest(self, text: str) -> str:
    """What of the final text was not given out yet."""
    fresh = text[self._given :]
    self._given = max(self._given, len(text))
    return fresh


def _overlap(text: str, stop: str) -> int:
  """The longest end of `text` that is a beginning of `stop`."""
  longest = min(len(text), len(stop) - 1)
  return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
