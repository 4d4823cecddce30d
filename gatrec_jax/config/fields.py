"""Settings classes: allowed values, words that choose further settings, access by flat name.

A settings class is a frozen dataclass whose fields are made by `setting` (a value with its range)
or by `one_of` (one of several small settings classes, chosen by a word). Names are flat: under
`loss=softmax` the setting `temperature` is read and replaced by that name alone, although it is a
field of `settings.objective`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from gatrec_jax.errors import InputError


class LogUniform(NamedTuple):
  """A range drawn from so that the logarithm is uniform. `whole` rounds to whole numbers."""

  low: float
  high: float
  whole: bool = False


class Uniform(NamedTuple):
  """A range drawn from uniformly. `whole` draws whole numbers, both ends included."""

  low: float
  high: float
  whole: bool = False


class Choice(NamedTuple):
  """One of several values, all equally likely."""

  values: tuple[Any, ...]


Range = LogUniform | Uniform | Choice


class Option:
  """Settings that exist only while a word chooses them.

  Attributes:
    selector: the setting that holds the word, such as `loss`.
    word: the value of `selector` that chooses this class, such as `softmax`.
  """

  selector: ClassVar[str]
  word: ClassVar[str]


S = TypeVar("S")


def setting(
  default: Any,
  *,
  low: float | None = None,
  high: float | None = None,
  choices: tuple[str, ...] = (),
  search: Range | None = None,
  needs: str = "",
  dynamic: bool | None = None,
) -> Any:
  """A dataclass field with its allowed values.

  Args:
    default: its default.
    low, high: allowed range, both ends included; None = no bound.
    choices: allowed words; () = any.
    search: range that a hyperparameter search draws from; None = not searched.
    needs: the setting without which this one has no effect: `linear_weight` (it must not be 0), or
      `negatives=mixed`, `attention=v1|v2` (it must be one of these words).
    dynamic: whether compiled programs take the value as an argument, so that another value needs no
      compilation (train/hyperparameters.py); None = whether the default is a float.
  """
  return dataclasses.field(
    default=default,
    metadata={
      "range": (low, high),
      "choices": choices,
      "search": search,
      "needs": needs,
      "dynamic": isinstance(default, float) if dynamic is None else dynamic,
    },
  )


def one_of(*options: Option) -> Any:
  """A dataclass field that holds one of several settings classes.

  Args: options: the default first; each is what its word starts from.
  """
  return dataclasses.field(default=options[0], metadata={"options": options})


class Entry(NamedTuple):
  """A setting as `--set name=value` sees it.

  Attributes:
    type: its type annotation.
    metadata: as made by `setting`.
    holder: attribute of the settings class that holds it; "" = the class itself.
    options: the settings that its word chooses between; () for every other setting.
  """

  type: Any
  metadata: Mapping[str, Any]
  holder: str = ""
  options: tuple[Option, ...] = ()


def entries(settings: Any) -> dict[str, Entry]:
  """Every setting of a settings class by name, with those of the options that are chosen."""
  out: dict[str, Entry] = {}
  for name, field_type, metadata in _fields(type(settings)):
    options = metadata.get("options")
    if options is None:
      out[name] = Entry(field_type, metadata)
      continue
    option = getattr(settings, name)
    if len(options) > 1:
      words = {"choices": tuple(one.word for one in options)}
      out[option.selector] = Entry(str, words, name, options)
    out |= {key: entry._replace(holder=name) for key, entry in entries(option).items()}
  return out


def options_of(settings: Any) -> Iterator[tuple[str, Option, tuple[Option, ...]]]:
  """Yields (attribute, chosen option, all options) of every field that was made by `one_of`."""
  for name, _, metadata in _fields(type(settings)):
    if "options" in metadata:
      yield name, getattr(settings, name), metadata["options"]


def value_of(settings: Any, name: str) -> Any:
  """The value of the setting called `name`."""
  entry = entries(settings)[name]
  holder = getattr(settings, entry.holder) if entry.holder else settings
  return holder.word if entry.options else getattr(holder, name)


def values_of(settings: Any) -> dict[str, Any]:
  """The value of every setting by name; the inverse of `replaced`."""
  return {name: value_of(settings, name) for name in entries(settings)}


def replaced(settings: S, values: Mapping[str, Any]) -> S:
  """A copy of `settings` with the named settings replaced, unchecked.

  Another word replaces all settings that the former word had chosen by those that its own option
  starts from.

  >>> from gatrec_jax.config.schema import ModelConfig
  >>> replaced(ModelConfig(), {"loss": "softmax", "temperature": 0.5}).objective.temperature
  0.5
  """
  for name, chosen, options in options_of(settings):
    word = values.get(chosen.selector, chosen.word)
    if len(options) > 1 and word != chosen.word:
      found = [one for one in options if one.word == word]
      if not found:
        words = ", ".join(one.word for one in options)
        raise InputError(f"must be one of {words}", field=chosen.selector, value=word)
      settings = dataclasses.replace(settings, **{name: found[0]})
  known, holders = entries(settings), {}
  for name, value in values.items():
    if not known[name].options:
      holders.setdefault(known[name].holder, {})[name] = value
  own = holders.pop("", {})
  held = {
    holder: dataclasses.replace(getattr(settings, holder), **fields)
    for holder, fields in holders.items()
  }
  return dataclasses.replace(settings, **own, **held)


def unmet_need(settings: Any, name: str) -> str | None:
  """What keeps the setting `name` from having any effect, such as "linear_weight=0"; else None."""
  needs = entries(settings)[name].metadata.get("needs", "")
  if not needs:
    return None
  other, _, words = needs.partition("=")
  value = value_of(settings, other)
  is_met = value in words.split("|") if words else value != 0
  return None if is_met else f"{other}={value}"


def check_values(settings: Any) -> None:
  """Raises InputError for the first setting whose value lies outside its range or its words."""
  for name, entry in entries(settings).items():
    value, words = value_of(settings, name), entry.metadata.get("choices")
    if words and value not in words:
      raise InputError(f"must be one of {', '.join(words)}", field=name, value=value)
    low, high = entry.metadata.get("range", (None, None))
    if value is None:  # "auto", only where the type allows it
      continue
    if (low is not None and value < low) or (high is not None and value > high):
      raise InputError(
        f"must lie in [{'-∞' if low is None else low}, {'∞' if high is None else high}]",
        field=name,
        value=value,
      )


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, Any, Mapping[str, Any]], ...]:
  """(name, type, metadata) of every field of a dataclass."""
  types = typing.get_type_hints(cls)
  return tuple((field.name, types[field.name], field.metadata) for field in dataclasses.fields(cls))
