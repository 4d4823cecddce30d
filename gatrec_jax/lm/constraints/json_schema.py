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
- array with `items`, `maxItems` (at most 64) and `minItems` (default 0); `uniqueItems` only for a
  small number of strings.

The layout is that of `json.dumps(value, ensure_ascii=False)`: `{"a": 1, "b": ["x", "y"]}`. Fixed
text is split before spaces, where most tokenizers split too, and otherwise tokenized together with
the values next to it, so that the model sees the segmentation it knows from training.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import ACCEPTED, FAR, SINK, Automaton, Builder
from gatrec_jax.lm.tokens.token_bytes import Spelling, make_spelling, spell, string_moves

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

MAX_ITEMS = 64
MAX_LENGTH = 10_000
MAX_INTEGER = 2**63
ENUMERATED = 1_000  # Integer ranges up to this size are enumerated.
MAX_SUBSETS = 2_048  # Limit for `uniqueItems`, which needs a state per set of items written so far.
ANNOTATIONS = {"title", "description", "$schema", "$id", "$comment", "default", "examples"}
KEYWORDS = {
  "object": {"type", "properties", "required", "additionalProperties"},
  "string": {"type", "enum", "const", "minLength", "maxLength"},
  "integer": {"type", "minimum", "maximum"},
  "boolean": {"type"},
  "array": {"type", "items", "minItems", "maxItems", "uniqueItems"},
}
# Bytes that need an escape in a JSON string.
NOT_IN_STRINGS = (*range(0x20), ord('"'), ord("\\"))


@dataclasses.dataclass(frozen=True)
class Texts:
  """One of several JSON texts."""

  texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FreeText:
  """A string with at least `minimum` and at most `maximum` characters."""

  minimum: int
  maximum: int


@dataclasses.dataclass(frozen=True)
class Digits:
  """An integer from a wide range, both ends inclusive."""

  minimum: int
  maximum: int


@dataclasses.dataclass(frozen=True)
class Record:
  """An object: (key, shape of its value) pairs in order."""

  fields: tuple[tuple[str, Shape], ...]


@dataclasses.dataclass(frozen=True)
class Items:
  """An array with `minimum` to `maximum` items; unique items must be `Texts`."""

  item: Shape
  minimum: int
  maximum: int
  unique: bool


Shape = Texts | FreeText | Digits | Record | Items
Ends = Sequence[
  tuple[str, int]
]  # Fixed texts that may follow a value, each with the state after it.


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
  spelling = make_spelling(tokenizer, vocabulary=vocabulary, eos=eos)
  moves = functools.partial(string_moves, spelling.table, forbidden=NOT_IN_STRINGS)
  builder = Builder(vocabulary=vocabulary, eos=eos, string_rows=moves)
  start = _Writer(builder, spelling).value(shape, "", [("", ACCEPTED)])
  if builder.distance[start] >= FAR:
    raise InputError("schema: the tokenizer's vocabulary cannot write any text that fits it")
  return builder.build(start)


def read_schema(schema: Mapping[str, Any], *, max_string: int = 200) -> Shape:
  """Parses a schema. Raises: InputError as in `json_schema`."""
  return _read(schema, "schema", _count(max_string, "max_string", "", MAX_LENGTH))


def _read(schema: Any, path: str, max_string: int) -> Shape:
  if not isinstance(schema, Mapping):
    raise InputError(f"{path}: a schema must be an object, not {schema!r}")
  kind = schema.get("type", "string" if {"enum", "const"} & schema.keys() else None)
  if not isinstance(kind, str) or kind not in KEYWORDS:
    raise InputError(f"{path}: type {kind!r} is not one of {', '.join(KEYWORDS)}")
  unknown = sorted(schema.keys() - KEYWORDS[kind] - ANNOTATIONS)
  if unknown:
    raise InputError(
      f"{path}: {unknown[0]} is not supported for {kind}; supported are "
      f"{', '.join(sorted(KEYWORDS[kind] - {'type'})) or 'no keywords'}"
    )
  if kind == "boolean":
    return Texts(("true", "false"))
  if kind == "string":
    return _read_string(schema, path, max_string)
  if kind == "integer":
    return _read_integer(schema, path)
  return (_read_object if kind == "object" else _read_array)(schema, path, max_string)


def _read_object(schema: Mapping[str, Any], path: str, max_string: int) -> Shape:
  properties = schema.get("properties")
  if not isinstance(properties, Mapping):
    raise InputError(f"{path}: object needs properties")
  if schema.get("additionalProperties", False) is not False:
    raise InputError(f"{path}: additionalProperties can only be false")
  required = schema.get("required", [])
  if not isinstance(required, Sequence) or isinstance(required, str):
    raise InputError(f"{path}: required must be a list of property names, not {required!r}")
  for name in required:
    if not isinstance(name, str) or name not in properties:
      raise InputError(f"{path}: required lists {name!r}, which is not among the properties")
  fields = tuple(
    (name, _read(value, f"{path}.properties.{name}", max_string))
    for name, value in properties.items()
  )
  return Record(fields) if fields else Texts(("{}",))


def _read_string(schema: Mapping[str, Any], path: str, max_string: int) -> Shape:
  if "enum" in schema or "const" in schema:
    if len({"enum", "const", "minLength", "maxLength"} & schema.keys()) > 1:
      raise InputError(
        f"{path}: enum and const cannot be combined with each other or with a length"
      )
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
      raise InputError(f"{path}: enum must be a list of at least one string, not {values!r}")
    for value in values:
      if not isinstance(value, str):
        raise InputError(f"{path}: enum and const must be strings, not {value!r}")
    if len(set(values)) < len(values):
      twice = next(value for value in values if list(values).count(value) > 1)
      raise InputError(f"{path}: enum contains {twice!r} twice")
    return Texts(tuple(_dumps(value) for value in values))
  maximum = _count(schema.get("maxLength", max_string), "maxLength", path, MAX_LENGTH)
  minimum = _count(schema.get("minLength", 1), "minLength", path, MAX_LENGTH)
  if minimum > maximum:
    raise InputError(f"{path}: minLength {minimum} is more than maxLength {maximum}")
  return FreeText(minimum, maximum)


def _read_integer(schema: Mapping[str, Any], path: str) -> Shape:
  if "minimum" not in schema or "maximum" not in schema:
    raise InputError(f"{path}: integer needs minimum and maximum")
  for name in ("minimum", "maximum"):
    value = schema[name]
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_INTEGER:
      raise InputError(f"{path}: {name} must be an integer of at most 64 bits, not {value!r}")
  minimum, maximum = schema["minimum"], schema["maximum"]
  if minimum > maximum:
    raise InputError(f"{path}: minimum {minimum} is more than maximum {maximum}")
  if maximum - minimum < ENUMERATED:
    return Texts(tuple(str(value) for value in range(minimum, maximum + 1)))
  return Digits(minimum, maximum)


def _read_array(schema: Mapping[str, Any], path: str, max_string: int) -> Shape:
  if "items" not in schema or "maxItems" not in schema:
    raise InputError(f"{path}: array needs items and maxItems")
  item = _read(schema["items"], f"{path}.items", max_string)
  maximum = _count(schema["maxItems"], "maxItems", path, MAX_ITEMS)
  minimum = _count(schema.get("minItems", 0), "minItems", path, MAX_ITEMS)
  unique = schema.get("uniqueItems", False)
  if not isinstance(unique, bool):
    raise InputError(f"{path}: uniqueItems must be true or false, not {unique!r}")
  if minimum > maximum:
    raise InputError(f"{path}: minItems {minimum} is more than maxItems {maximum}")
  if unique:
    if not isinstance(item, Texts):
      raise InputError(f"{path}: uniqueItems is supported only for items with enum")
    count = len(item.texts)
    if count < minimum:
      raise InputError(
        f"{path}: minItems {minimum} unique items, but there are only {count} values"
      )
    maximum = min(maximum, count)
    subsets = sum(math.comb(count, size) for size in range(maximum))
    if subsets > MAX_SUBSETS:
      raise InputError(
        f"{path}: uniqueItems over {count} values with maxItems {maximum} needs {subsets} states, "
        f"more than {MAX_SUBSETS}; give fewer values or a lower maxItems"
      )
  return Items(item, minimum, maximum, unique)


def _count(value: Any, name: str, path: str, largest: int) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
    place = f"{path}: " if path else ""
    raise InputError(f"{place}{name} must be a whole number in 0..{largest}, not {value!r}")
  return value


class _Writer:
  """Builds the states of shapes, from the end of the text to its start."""

  def __init__(self, builder: Builder, spelling: Spelling) -> None:
    self._builder = builder
    self._spell = functools.cache(functools.partial(spell, spelling))
    self._number_tokens = [
      (token, data)
      for token, data in enumerate(spelling.table)
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
      case Digits(minimum, maximum):
        # The space may be in one token with the first digits.
        lead = " " if before.endswith(" ") else ""
        number = self._digits(lead, minimum, maximum, self._texts(ends))
        return self._texts([(before.removesuffix(lead), number)])
      case Record(fields):
        return self._record(fields, before, ends)
      case Items(unique=True):
        return self._unique(shape, before, ends)
      case Items():
        return self._items(shape, before, ends)

  def _texts(self, texts: Ends) -> int:
    return self._builder.trie([(self._spell(text), state) for text, state in texts])

  def _record(self, fields: Sequence[tuple[str, Shape]], before: str, ends: Ends) -> int:
    ends = [("}" + after, state) for after, state in ends]
    for name, shape in fields[:0:-1]:
      ends = [(f", {_dumps(name)}:", self.value(shape, " ", ends))]
    name, shape = fields[0]
    return self.value(shape, f"{before}{{{_dumps(name)}: ", ends)

  def _items(self, shape: Items, before: str, ends: Ends) -> int:
    closing = [("]" + after, state) for after, state in ends]
    start = SINK
    for count in range(shape.maximum, 0, -1):
      follow = [(",", start)] if count < shape.maximum else []
      follow += closing if count >= shape.minimum else []
      start = self.value(shape.item, " " if count > 1 else before + "[", follow)
    return self._or_empty(shape, start, before, ends)

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


def _dumps(text: str) -> str:
  return json.dumps(text, ensure_ascii=False)
