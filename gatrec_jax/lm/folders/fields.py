"""Reads the fields of a model folder's JSON files: of the right type, and within sane bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gatrec_jax.errors import InputError

LARGEST_SIZE = 2**31 - 1  # of any axis: token ids and positions are int32


def require_object(value: Any, where: str) -> Mapping[str, Any]:
  """The value itself. Raises: InputError unless it is a JSON object. Args: where: the file."""
  if not isinstance(value, dict):
    raise InputError(f"{where}: holds {shown(value)}; a JSON object is needed")
  return value


def whole(
  fields: Mapping[str, Any], name: str, where: str, *, low: int = 1, high: int = LARGEST_SIZE
) -> int:
  """A whole number, which may be written as a float (2.0).

  Args: fields: has `name`. where: the file, for messages. low, high: its range, both inclusive.
  Raises: InputError that names the file and the field; KeyError where there is no such field.
  """
  value = fields[name]
  number = int(value) if isinstance(value, float) and value.is_integer() else value
  if isinstance(number, bool) or not isinstance(number, int):
    raise InputError(f"{where}: {name} is {shown(value)}; it must be a whole number")
  if not low <= number <= high:
    bound = f"{low} or more" if number < low else f"{high} or less"
    raise InputError(f"{where}: {name} is {shown(value)}; it must be {bound}")
  return number


def real(
  fields: Mapping[str, Any],
  name: str,
  where: str,
  *,
  low: float = -math.inf,
  positive: bool = False,
) -> float:
  """A finite number. Args: low: its least value. positive: whether 0 is refused. As `whole`."""
  value = fields[name]
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise InputError(f"{where}: {name} is {shown(value)}; it must be a number")
  if not abs(value) <= 1e300:  # also NaN, and integers beyond the range of floats
    raise InputError(f"{where}: {name} is {shown(value)}; it must be finite")
  if value < low or (positive and value <= 0):
    raise InputError(
      f"{where}: {name} is {shown(value)}; it must be {'above 0' if positive else f'{low} or more'}"
    )
  return float(value)


def flag(fields: Mapping[str, Any], name: str, where: str, *, default: bool = False) -> bool:
  """True or false; `default` where the field is missing or null. As `whole`."""
  value = fields.get(name)
  if value is None:
    return default
  if not isinstance(value, bool):
    raise InputError(f"{where}: {name} is {shown(value)}; it must be true or false")
  return value


def token_ids(fields: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
  """The token ids of a field that holds one, a list of them, or none. As `whole`."""
  value = fields.get(name)
  several = value if isinstance(value, list) else [] if value is None else [value]
  if len(several) > 1000:
    raise InputError(f"{where}: {name} lists {len(several)} ids; at most 1000 are read")
  return tuple(whole({name: one}, name, where, low=0) for one in several)


def token_id(fields: Mapping[str, Any], name: str, where: str) -> int | None:
  """A token id; None where the field is missing or null. As `whole`."""
  return None if fields.get(name) is None else whole(fields, name, where, low=0)


def shown(value: Any) -> str:
  """The value as a message shows it, at most some 60 characters long."""
  if isinstance(value, dict | list):
    kind = "an object" if isinstance(value, dict) else "a list"
    return f"{kind} of {len(value)}"
  if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**40:
    return f"a number of about {int(math.log10(abs(value)))} digits"
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}…"
