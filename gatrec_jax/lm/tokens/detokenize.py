"""New tokens to new text, piece by piece, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence

from gatrec_jax.lm.tokens.token_bytes import Spelling, write

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # a character whose bytes have not all come yet


def answer_text(spelling: Spelling, prompt: Sequence[int], tokens: Sequence[int]) -> str:
  """The text that `tokens` add behind `prompt`, special tokens left out.

  It is made of the tokens' bytes. A tokenizer's `decode` takes bytes that follow each other for one
  piece, and gives all of its characters up where the last one is cut off, or the first.
  """
  text = write(spelling.table, tokens)
  if not text.startswith(" ") or any(spelling.table[token] for token in prompt):
    return text
  # At the very beginning of a text SentencePiece tokenizers have a space that is not meant.
  first = next(token for token in tokens if spelling.table[token])
  decoded = spelling.tokenizer.decode([first])
  return text[1:] if decoded == write(spelling.table, [first])[1:] else text


def first_stop(text: str, stop: Sequence[str]) -> int | None:
  """Where the first of the stop strings begins, None where none is in the text."""
  places = [place for one in stop if (place := text.find(one)) >= 0]
  return min(places, default=None)


def cut_at_stop(
  spelling: Spelling, prompt: Sequence[int], tokens: Sequence[int], stop: Sequence[str]
) -> tuple[list[int], str, bool]:
  """The tokens and the text before the first stop string, and whether there was one.

  Tokens are kept as long as their text lies wholly before the stop string.
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
  """The text of a growing answer, without what may still turn into something else.

  Held back are characters whose bytes are not all there, and beginnings of stop strings.
  """

  def __init__(self, spelling: Spelling, prompt: Sequence[int], stop: Sequence[str]) -> None:
    self._spelling, self._prompt, self._stop = spelling, list(prompt), stop
    self._given = 0

  def feed(self, tokens: Sequence[int]) -> tuple[str, bool]:
    """Args: tokens: all of the answer so far. Returns: what is new and sure; whether it ended."""
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
    """What of the final text was not given out yet."""
    fresh = text[self._given :]
    self._given = max(self._given, len(text))
    return fresh


def _overlap(text: str, stop: str) -> int:
  """The longest end of `text` that is a beginning of `stop`."""
  longest = min(len(text), len(stop) - 1)
  return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
