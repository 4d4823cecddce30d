"""Constrains answers to a JSON schema: every answer is complete and valid, whatever the weights.

Supported is the following subset; anything else is an `InputError` that names its path:

- object: all of its `properties`, in the given order, and no others.
- string with `enum` or `const`: these strings, as written by `json.dumps`.
- string: `minLength` (1 by default, since an empty answer is seldom wanted) and `maxLength` in
  characters. No escapes are produced, so free text contains no quotes, backslashes or control
  characters (line breaks). It is always valid UTF-8, even if a token is part of a character. Any
  segmentation into tokens is allowed.
- integer with `minimum` and `maximum`, both inclusive. Up to a thousand values are enumerated in
  the tokenizer's own segmentation; wider ranges are read digit by digit in any segmentation.
- boolean.
- array with `items`, `maxItems` (at most 64) and `minItems` (default 0). Strings with `enum` occur
  at most once each with `uniqueItems`, which is for small numbers of them, or with `inOrder`, which
  is for any number of them, in the order of `enum`.
- string with `words`: a sentence of these words, see `schema.Sentence`. This and `inOrder` are no
  keywords of JSON Schema.

The layout is that of `json.dumps(value, ensure_ascii=False)`: `{"a": 1, "b": ["x", "y"]}`. Fixed
text is split before spaces, where most tokenizers split too, and otherwise tokenized together with
the values next to it, so that the model sees the segmentation it knows from training.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import ACCEPTED, FAR, SINK, Automaton, Builder
from gatrec_jax.lm.constraints.schema import (
  Digits,
  FreeText,
  Items,
  Record,
  Sentence,
  Shape,
  Texts,
  dumps,
  read_schema,
)
from gatrec_jax.lm.tokens.token_bytes import Spelling, make_spelling, string_moves

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

# Bytes that need an escape in a JSON string.
NOT_IN_STRINGS = (*range(0x20), ord('"'), ord("\\"))
# Fixed texts that may follow a value, each with the state after it.
Ends = Sequence[tuple[str, int]]


def json_schema(
  tokenizer: PreTrainedTokenizerFast,
  schema: Mapping[str, Any],
  *,
  vocabulary: int,
  eos: Sequence[int],
  max_string: int = 200,
) -> Automaton:
  """Makes the automaton of all JSON texts of a schema.

  Args:
    tokenizer: the model's fast tokenizer.
    schema: as a dict; see the module's docstring for the supported subset.
    vocabulary: V of the model, which may be larger than the tokenizer's.
    eos: EOS tokens; required if the top level is an integer.
    max_string: maxLength of strings without one.
  Raises: InputError that names the path of what is not supported or impossible.
  """
  shape = read_schema(schema, max_string=max_string)
  return shape_automaton(make_spelling(tokenizer, vocabulary=vocabulary, eos=eos), shape, eos=eos)


def shape_automaton(spelling: Spelling, shape: Shape, *, eos: Sequence[int]) -> Automaton:
  """Makes the automaton of all JSON texts of a shape. Raises: InputError as in `json_schema`."""
  moves = functools.partial(string_moves, spelling.table, forbidden=NOT_IN_STRINGS)
  builder = Builder(vocabulary=len(spelling.table), eos=eos, string_rows=moves)
  start = _Writer(builder, spelling).value(shape, "", [("", ACCEPTED)])
  if builder.distance[start] >= FAR:
    raise InputError("schema: the tokenizer's vocabulary cannot write any text that fits it")
  return builder.build(start)


class _Writer:
  """Builds the states of shapes, from the end of the text to its start."""

  def __init__(self, builder: Builder, spelling: Spelling) -> None:
    self._builder = builder
    self._spelling, self._spell = spelling, spelling.spelled

  @functools.cached_property
  def _number_tokens(self) -> list[tuple[int, bytes]]:
    return [
      (token, data)
      for token, data in enumerate(self._spelling.table)
      if data is not None and not data.strip(b" -0123456789")
    ]

  def value(self, shape: Shape, before: str, ends: Ends) -> int:
    """Adds `before`, then a value, then one of `ends`. Returns: the state before `before`."""
    match shape:
      case Texts(texts):
        return self._texts(
          [(before + text + after, state) for text in texts for after, state in ends]
        )
      case FreeText(minimum, maximum):
        closing = self._texts([('"' + after, state) for after, state in ends])
        text = self._builder.string(closing, minimum=minimum, maximum=maximum)
        return self._texts([(before + '"', text)])
      case Sentence():
        return self._sentence(shape, before, ends)
      case Digits(minimum, maximum):
        # The space may be in one token with the first digits.
        lead = " " if before.endswith(" ") else ""
        number = self._digits(lead, minimum, maximum, self._texts(ends))
        return self._texts([(before.removesuffix(lead), number)])
      case Record(fields):
        return self._record(fields, before, ends)
      case Items(ordered=True):
        return self._ordered(shape, before, ends)
      case Items(unique=True):
        return self._unique(shape, before, ends)
      case Items():
        return self._items(shape, before, ends)

  def _texts(self, texts: Ends) -> int:
    return self._builder.trie([(self._spell(text), state) for text, state in texts])

  def _sentence(self, shape: Sentence, before: str, ends: Ends) -> int:
    merge = self._builder.merge
    closing = self._texts([('."' + after, state) for after, state in ends])
    # `word` and `link` are the states after a word of each kind, with so many words written.
    word, link = closing, SINK
    for count in range(shape.maximum - 1, -1, -1):
      following = [(f" {text}", word) for text in shape.words]
      following += [(f" {text}", link) for text in shape.links]
      link = self._texts(following)
      word = merge(link, self._texts([(",", link)]))
      if count >= shape.minimum:
        word = merge(word, closing)
    return self._texts([(f'{before}"{text}', link) for text in shape.starts])

  def _record(self, fields: Sequence[tuple[str, Shape]], before: str, ends: Ends) -> int:
    ends = [("}" + after, state) for after, state in ends]
    for name, shape in fields[:0:-1]:
      ends = [(f", {dumps(name)}:", self.value(shape, " ", ends))]
    name, shape = fields[0]
    return self.value(shape, f"{before}{{{dumps(name)}: ", ends)

  def _items(self, shape: Items, before: str, ends: Ends) -> int:
    closing = [("]" + after, state) for after, state in ends]
    start = SINK
    for count in range(shape.maximum, 0, -1):
      follow = [(",", start)] if count < shape.maximum else []
      follow += closing if count >= shape.minimum else []
      start = self.value(shape.item, " " if count > 1 else before + "[", follow)
    return self._or_empty(shape, start, before, ends)

  def _ordered(self, shape: Items, before: str, ends: Ends) -> int:
    closing = [("]" + after, state) for after, state in ends]
    texts = shape.item.texts

    @functools.cache
    def start(first: int, taken: int) -> int:
      found = []
      for place in range(first, len(texts)):
        follow = list(closing) if taken + 1 >= shape.minimum else []
        if taken + 1 < shape.maximum and place + 1 < len(texts):
          follow.append((",", start(place + 1, taken + 1)))
        lead = " " if taken else before + "["
        found += [(lead + texts[place] + after, state) for after, state in follow]
      return self._texts(found)

    items = start(0, 0) if shape.maximum else SINK
    return self._or_empty(shape, items, before, ends)

  def _unique(self, shape: Items, before: str, ends: Ends) -> int:
    closing = [("]" + after, state) for after, state in ends]

    @functools.cache
    def start(left: tuple[str, ...]) -> int:
      taken = len(shape.item.texts) - len(left)
      texts = []
      for text in left:
        follow = list(closing) if taken + 1 >= shape.minimum else []
        if taken + 1 < shape.maximum:
          follow.append((",", start(tuple(other for other in left if other != text))))
        lead = " " if taken else before + "["
        texts += [(lead + text + after, state) for after, state in follow]
      return self._texts(texts)

    items = start(shape.item.texts) if shape.maximum else SINK
    return self._or_empty(shape, items, before, ends)

  def _or_empty(self, shape: Items, start: int, before: str, ends: Ends) -> int:
    if shape.minimum > 0:
      return start
    empty = self._texts([(f"{before}[]{after}", state) for after, state in ends])
    return self._builder.merge(start, empty)

  def _digits(self, lead: str, minimum: int, maximum: int, after: int) -> int:
    """Adds an integer after `lead`, read byte by byte, then the state `after`."""
    step = functools.cache(functools.partial(_number_step, minimum, maximum))

    @functools.cache
    def node(state: Number) -> int:
      edges = {}
      for token, data in self._number_tokens:
        following = state
        for byte in data:
          following = step(following, byte)
          if following is None:
            break
        if following is not None:
          edges[token] = node(following)
      inner = self._builder.state(edges)
      complete = not isinstance(state, str) and any(missing == 0 for missing, _, _ in state)
      return self._builder.merge(inner, after) if complete else inner

    return node("space" if lead else "number")


# State of an integer's reader: before its space ("space"), before its sign or first digit
# ("number"), or within it: (digits missing, their least value, their largest) for each length.
Number = str | tuple[tuple[int, int, int], ...]


def _number_step(minimum: int, maximum: int, state: Number, byte: int) -> Number | None:
  """Returns the reader's state after one more byte, or None if no integer of the range fits."""
  if state == "space":
    return "number" if byte == ord(" ") else None
  if state == "number":
    if byte == ord("-"):
      return _magnitudes(max(1, -maximum), -minimum) or None
    state = _magnitudes(max(0, minimum), maximum)
  digit = byte - ord("0")
  if not 0 <= digit <= 9:
    return None
  following = []
  for missing, least, largest in state:
    if missing:
      unit = 10 ** (missing - 1)
      least, largest = max(least - digit * unit, 0), min(largest - digit * unit, unit - 1)
      if least <= largest:
        following.append((missing - 1, least, largest))
  return tuple(following) or None


def _magnitudes(least: int, largest: int) -> tuple[tuple[int, int, int], ...]:
  """(digits, least, largest) for each number of digits, without leading zeros."""
  if least > largest:
    return ()
  return tuple(
    (count, max(least, 10 ** (count - 1) if count > 1 else 0), min(largest, 10**count - 1))
    for count in range(len(str(least)), len(str(largest)) + 1)
  )
