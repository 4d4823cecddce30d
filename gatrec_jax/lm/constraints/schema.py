"""The part of JSON Schema that answers can be constrained to, and how a schema is read.

`json_schema.py` says what is supported, and makes automata of the shapes here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.errors import InputError

MAX_ITEMS = 64
MAX_LENGTH = 10_000
MAX_INTEGER = 2**63
ENUMERATED = 1_000  # Integer ranges up to this size are enumerated.
MAX_SUBSETS = 2_048  # Limit for `uniqueItems`, which needs a state per set of items written so far.
MAX_WORDS = 64  # of a sentence
ANNOTATIONS = {"title", "description", "$schema", "$id", "$comment", "default", "examples"}
SENTENCE = ("words", "links", "starts", "minWords", "maxWords")
KEYWORDS = {
  "object": {"type", "properties", "required", "additionalProperties"},
  "string": {"type", "enum", "const", "minLength", "maxLength", *SENTENCE},
  "integer": {"type", "minimum", "maximum"},
  "boolean": {"type"},
  "array": {"type", "items", "minItems", "maxItems", "uniqueItems", "inOrder"},
}


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
class Sentence:
  """A string of known words: one of `starts`, `minimum` to `maximum` words, and a full stop.

  The words are of `words` and `links`, in any order and number; a comma may follow one of `words`,
  and only one of `words` ends the sentence. Links are words such as "of" and "with", after which a
  sentence is not over.
  """

  words: tuple[str, ...]
  links: tuple[str, ...]
  starts: tuple[str, ...]
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
  """An array with `minimum` to `maximum` items.

  Items that occur at most once (`unique`), in their order if `ordered`, must be `Texts`.
  """

  item: Shape
  minimum: int
  maximum: int
  unique: bool
  ordered: bool = False


Shape = Texts | FreeText | Sentence | Digits | Record | Items


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
  if "words" in schema:
    return _read_sentence(schema, path)
  if alone := sorted(set(SENTENCE) & schema.keys()):
    raise InputError(f"{path}: {alone[0]} needs words")
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
    return Texts(tuple(dumps(value) for value in values))
  maximum = _count(schema.get("maxLength", max_string), "maxLength", path, MAX_LENGTH)
  minimum = _count(schema.get("minLength", 1), "minLength", path, MAX_LENGTH)
  if minimum > maximum:
    raise InputError(f"{path}: minLength {minimum} is more than maxLength {maximum}")
  return FreeText(minimum, maximum)


def _read_sentence(schema: Mapping[str, Any], path: str) -> Shape:
  if others := sorted(schema.keys() & {"enum", "const", "minLength", "maxLength"}):
    raise InputError(f"{path}: words cannot be combined with {others[0]}")
  lists = {}
  for name in ("words", "links", "starts"):
    values = schema.get(name, [])
    if not isinstance(values, Sequence) or isinstance(values, str):
      raise InputError(f"{path}: {name} must be a list of words, not {values!r:.40}")
    for value in values:
      if not isinstance(value, str) or not value or dumps(value) != f'"{value}"':
        raise InputError(f"{path}: {name} must be words without quotes, not {value!r:.40}")
      if name != "starts" and (value.split() != [value] or set(value) & set(",.")):
        raise InputError(f"{path}: {name} must be single words, not {value!r:.40}")
    lists[name] = tuple(dict.fromkeys(values))
  for name in ("words", "starts"):
    if not lists[name]:
      raise InputError(f"{path}: {name} must have at least one entry")
  maximum = _count(schema.get("maxWords"), "maxWords", path, MAX_WORDS)
  minimum = _count(schema.get("minWords", 1), "minWords", path, MAX_WORDS)
  if not 1 <= minimum <= maximum:
    raise InputError(f"{path}: minWords {minimum} must be in 1..{maximum} (maxWords)")
  links = tuple(link for link in lists["links"] if link not in lists["words"])
  return Sentence(lists["words"], links, lists["starts"], minimum, maximum)


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
  unique, ordered = schema.get("uniqueItems", False), schema.get("inOrder", False)
  for name, value in (("uniqueItems", unique), ("inOrder", ordered)):
    if not isinstance(value, bool):
      raise InputError(f"{path}: {name} must be true or false, not {value!r}")
  if minimum > maximum:
    raise InputError(f"{path}: minItems {minimum} is more than maxItems {maximum}")
  if unique or ordered:
    if not isinstance(item, Texts):
      name = "uniqueItems" if unique else "inOrder"
      raise InputError(f"{path}: {name} is supported only for items with enum")
    count = len(item.texts)
    if count < minimum:
      raise InputError(
        f"{path}: minItems {minimum} unique items, but there are only {count} values"
      )
    maximum = min(maximum, count)
  if unique and not ordered:
    subsets = sum(math.comb(count, size) for size in range(maximum))
    if subsets > MAX_SUBSETS:
      raise InputError(
        f"{path}: uniqueItems over {count} values with maxItems {maximum} needs {subsets} states, "
        f"more than {MAX_SUBSETS}; give fewer values or a lower maxItems"
      )
  return Items(item, minimum, maximum, unique or ordered, ordered)


def _count(value: Any, name: str, path: str, largest: int) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
    place = f"{path}: " if path else ""
    raise InputError(f"{place}{name} must be a whole number in 0..{largest}, not {value!r}")
  return value


def dumps(text: str) -> str:
  return json.dumps(text, ensure_ascii=False)
