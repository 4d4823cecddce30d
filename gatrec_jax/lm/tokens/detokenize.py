"""Turns generated tokens into text incrementally and cuts it at stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from gatrec_jax.lm.tokens.token_bytes import Spelling, write

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # decodes from an incomplete character


def answer_text(spelling: Spelling, prompt: Sequence[int], tokens: Sequence[int]) -> str:
  """Returns the text that `tokens` add after `prompt`, without special tokens.

  The text is decoded from the tokens' bytes. A tokenizer's own `decode` joins consecutive byte
  tokens and, if the first or last character is incomplete, replaces all of them.
  """
  text = write(spelling.table, tokens)
  if not text.startswith(" ") or any(spelling.table[token] for token in prompt):
    return text
  # SentencePiece tokenizers put a dummy space before the first word of a text.
  first = next(token for token in tokens if spelling.table[token])
  decoded = spelling.tokenizer.decode([first])
  return text[1:] if decoded == write(spelling.table, [first])[1:] else text


def first_stop(text: str, stop: Sequence[str]) -> int | None:
  """Returns where the earliest stop string begins, or None if the text has none."""
  places = [place for one in stop if (place := text.find(one)) >= 0]
  return min(places, default=None)


def cut_at_stop(
  spelling: Spelling, prompt: Sequence[int], tokens: Sequence[int], stop: Sequence[str]
) -> tuple[list[int], str, bool]:
  """Returns the tokens and text before the first stop string, and whether there was one.

  A token is kept only if all of its text comes before the stop string.
  """
  tokens = list(tokens)
  text = answer_text(spelling, prompt, tokens)
  place = first_stop(text, stop)
  if place is None:
    return tokens, text, False
  while tokens and len(answer_text(spelling, prompt, tokens)) > place:
    tokens.pop()
  return tokens, text[:place], True


class TextTail:
  """Streams the text of a growing answer, holding back whatever may still change.

  Incomplete characters and beginnings of stop strings are held back.
  """

  def __init__(self, spelling: Spelling, prompt: Sequence[int], stop: Sequence[str]) -> None:
    self._spelling, self._prompt, self._stop = spelling, list(prompt), stop
    self._given = 0

  def feed(self, tokens: Sequence[int]) -> tuple[str, bool]:
    """Returns the new final text, and whether a stop string came. tokens: the answer so far."""
    text = answer_text(self._spelling, self._prompt, tokens)
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
    """Returns the part of the final text that has not been returned yet."""
    fresh = text[self._given :]
    self._given = max(self._given, len(text))
    return fresh


def _overlap(text: str, stop: str) -> int:
  """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
  longest = min(len(text), len(stop) - 1)
  return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
