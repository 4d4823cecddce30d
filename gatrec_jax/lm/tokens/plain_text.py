"""Encodes texts with data in them so that no added token can arise from the data.

A tokenizer turns every occurrence of an added token (`<|im_end|>`, `<think>`, `[SEP]`) into that
token, whoever wrote it. Here a text comes with the places of its data. Where no added token touches
them, the ids are those of the tokenizer. Otherwise the text is cut at the added tokens outside of
the data, and what lies between is encoded by the same normalizer, pre-tokenizer and model, which
know no added tokens. Added tokens of white space alone are ordinary text.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  from tokenizers import AddedToken, Encoding, Token, Tokenizer

Span = tuple[int, int]
"""First character, and the one after the last."""
_WORD, _OTHER = re.compile(r"\w"), re.compile(r"[^\w\s]")
# What stands for a letter and for another character of data while added tokens are searched.
_LETTERS, _SIGNS = "qzxjkvwybpgfhmdulcrsntoiaeQZXJKVWYБЖЦЩЫЭЮЯбжцщыэюя一丁七", ".-~^`+=;·§¶¤†‡"


class Marked(NamedTuple):
  """A text and the spans of its data, in order and without overlap."""

  text: str
  data: Sequence[Span]


class _Match(NamedTuple):
  """An added token in a text: from `start` to `end`, white space that it swallows included."""

  start: int
  end: int
  token: int


class PlainText:
  """Encodes texts with one tokenizer; the data in them stay plain text."""

  def __init__(self, backend: Tokenizer) -> None:
    """Args: backend: of the `tokenizers` library."""
    self._backend = backend

  @functools.cached_property
  def control(self) -> dict[str, int]:
    """The added tokens, special or not, that are not white space alone, with their ids."""
    return {entry.content: token for token, entry in self._added.items() if entry.content.strip()}

  def __call__(self, text: str, data: Sequence[Span], *, special_tokens: bool) -> Encoding:
    """Encodes a text. Offsets of the result count where the whole text is data.

    Args:
      text: valid Unicode.
      data: spans in which no added token is recognized.
      special_tokens: whether the tokenizer adds its own, such as BOS.
    """
    found = self._backend.encode(text, add_special_tokens=special_tokens)
    matches = self._matches(found, text)
    if all(self._is_outside(match, text, data) for match in matches):
      return found
    return self._exact(text, data, special_tokens=special_tokens)

  def ids(self, text: str, *, special_tokens: bool) -> list[int]:
    """The ids of a text that is data as a whole."""
    return self(text, [(0, len(text))], special_tokens=special_tokens).ids

  def batch(self, texts: Sequence[str]) -> list[Encoding]:
    """Encodes texts that are data as a whole, with the tokenizer's own special tokens."""
    return [
      self(text, [(0, len(text))], special_tokens=True) if self._has_control(encoding) else encoding
      for text, encoding in zip(texts, self._backend.encode_batch_fast(list(texts)), strict=True)
    ]

  @functools.cached_property
  def _added(self) -> dict[int, AddedToken]:
    return dict(self._backend.get_added_tokens_decoder())

  @functools.cached_property
  def _control_ids(self) -> frozenset[int]:
    return frozenset(self.control.values())

  @functools.cached_property
  def _fillers(self) -> tuple[str, str]:
    """A letter and a sign that no added token contains."""
    used = set("".join(self.control)) | set(self._normalized("".join(self.control)))
    letter = next((one for one in _LETTERS if one not in used), "q")
    return letter, next((one for one in _SIGNS if one not in used), ".")

  def _normalized(self, text: str) -> str:
    normalizer = self._backend.normalizer
    return text if normalizer is None else normalizer.normalize_str(text)

  def _has_control(self, encoding: Encoding) -> bool:
    if self._control_ids.isdisjoint(encoding.ids):
      return False
    pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    return any(not added and token in self._control_ids for token, added in pairs)

  def _matches(self, encoding: Encoding, text: str, *, spaces: bool = False) -> list[_Match]:
    """The added tokens of an encoding that the text spells.

    A token for unknown characters is an added token too, without being spelled.
    Args: spaces: whether to return tokens of white space as well.
    """
    ids, found = encoding.ids, []
    wanted = self._added.keys() if spaces else self._control_ids
    for place in [place for place, token in enumerate(ids) if token in wanted]:
      if encoding.token_to_sequence(place) is None:  # the tokenizer's own, such as BOS
        continue
      match = _Match(*encoding.token_to_chars(place), ids[place])
      if self._content(match, text) is not None:
        found.append(match)
    return found

  def _content(self, match: _Match, text: str) -> Span | None:
    """Where the token itself is within the match; None where the text does not spell it."""
    entry, own = self._added[match.token], text[match.start : match.end]
    place = own.find(entry.content)
    if place >= 0:
      return match.start + place, match.start + place + len(entry.content)
    if self._normalized(entry.content).strip() in self._normalized(own):
      return match.start, match.end
    return None

  def _is_outside(self, match: _Match, text: str, data: Sequence[Span]) -> bool:
    start, end = self._content(match, text)
    # Of the spans that begin before the token ends, the last one reaches furthest.
    place = bisect.bisect_left(data, (end, 0)) - 1
    return place < 0 or data[place][1] <= start

  def _exact(self, text: str, data: Sequence[Span], *, special_tokens: bool) -> Encoding:
    from tokenizers import Encoding

    pieces, place = [], 0
    for match in self._control_outside(text, data):
      pieces += self._piece(text, place, match.start)
      content = self._added[match.token].content
      pieces.append(self._backend.encode(content, add_special_tokens=False))
      place = match.end
    pieces += self._piece(text, place, len(text))
    whole = Encoding.merge(pieces) if len(pieces) != 1 else pieces[0]
    return self._backend.post_process(whole, None, special_tokens)

  def _control_outside(self, text: str, data: Sequence[Span]) -> list[_Match]:
    """The added tokens of the text outside of its data, and those of white space everywhere."""
    if not self._added:
      return []
    masked = self._masked(text, data, spaces=False)
    matches = self._matches(self._whole(masked), masked, spaces=True)
    blank = self._added.keys() - self._control_ids
    if all(match.token in blank or self._is_outside(match, masked, data) for match in matches):
      return matches
    # An added token that needs white space of the data, such as "Answer: ".
    masked = self._masked(text, data, spaces=True)
    matches = self._matches(self._whole(masked), masked)
    return [match for match in matches if self._is_outside(match, masked, data)]

  def _whole(self, text: str) -> Encoding:
    """The encoding of a text without special tokens, truncated nowhere."""
    truncation = self._backend.truncation
    if truncation is None:
      return self._backend.encode(text, add_special_tokens=False)
    self._backend.no_truncation()
    try:
      return self._backend.encode(text, add_special_tokens=False)
    finally:
      self._backend.enable_truncation(**truncation)

  def _masked(self, text: str, data: Sequence[Span], *, spaces: bool) -> str:
    letter, sign = self._fillers
    parts, place = [], 0
    for start, end in data:
      own = _OTHER.sub(sign, _WORD.sub(letter, text[start:end]))
      parts += [text[place:start], re.sub(r"\s", sign, own) if spaces else own]
      place = end
    return "".join([*parts, text[place:]])

  def _piece(self, text: str, start: int, end: int) -> Iterator[Encoding]:
    """The encoding of a part of the text, to which no added token is known."""
    from tokenizers import PreTokenizedString

    if start == end:
      return
    backend = self._backend
    # Some tokenizers put a space before the very first word: other parts get a character in front,
    # which is cut off again.
    piece = PreTokenizedString(text[start:end] if start == 0 else f"a{text[start:end]}")
    if start:
      piece.split(lambda _, whole: [whole[1:]])
    if backend.normalizer is not None:
      piece.normalize(lambda part: backend.normalizer.normalize(part))
    if backend.pre_tokenizer is not None:
      backend.pre_tokenizer.pre_tokenize(piece)
    piece.tokenize(self._tokens)
    yield piece.to_encoding(0, None)

  def _tokens(self, word: str) -> list[Token]:
    """The model's tokens of a word.

    Unigram models have `<s>` among the pieces that texts are made of: it is spelled by character.
    """
    model = self._backend.model
    tokens = model.tokenize(word)
    if not any(token.id in self._control_ids for token in tokens):
      return tokens
    data, found = word.encode(), []
    for token in tokens:
      start, end = token.offsets
      own = data[start:end].decode(errors="replace")
      if self.control.get(own) != token.id or len(own) == 1:
        found.append(token)
        continue
      for character in own:
        for part in model.tokenize(character):
          first, last = (start + offset for offset in part.offsets)
          found.append(type(part)(part.id, part.value, (first, last)))
        start += len(character.encode())
    return found
