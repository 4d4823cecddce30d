"""Which items a request may recommend: conditions on item fields, lists of ids, lists per user."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.tables.item_columns import canonical_field
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.evaluate.columns import SUFFIXES, index_column, read_columns
from gatrec_jax.profiles.attributes import YEAR_FIELDS, year_of
from gatrec_jax.profiles.builder import terms_of
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.paths import user_path
from gatrec_jax.serve.run import Run, indices_of

Condition = str | Sequence[str | int]
"""`field=value`, `field=low..high`, the path of a file of item ids, or a list of item ids."""

_FIELD = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")
_DATE = re.compile(r"\s*(\d{4})-\d\d(?:-\d\d)?(?:[T ].*)?")
_DERIVED = ("year", "age")


def item_mask(
  run: Run, *, only: Sequence[Condition], exclude: Sequence[Condition], log: Log
) -> np.ndarray | None:
  """[I] bool, the items for which every condition of `only` and none of `exclude` holds.

  Conditions on fields:
    genres=Comedy: a value of the field, or one entry where it is a list; case is ignored.
    genres=Comedy|Drama: any of these.
    year=1990..1999, price=..20: numbers in a range, both ends included; dates such as 2019-03-15
      count by their years.
  `year` is read from a year or date field or after the title. `age` is the number of years between
  an item's year and the newest one in the catalog, unless the items have a field of that name. An
  item without a value is in no range.

  Files hold an id a line, or a column item_id (CSV, TSV, Parquet, JSONL); ids that are not in the
  catalog are counted and left out.

  Returns: None without any condition.
  Raises: InputError: a condition that is none of these, a field or value that no item has, a range
    without items, or a file without a known item.
  """
  for name, conditions in (("only", only), ("exclude", exclude)):
    require_list(conditions, field=name)
  if not only and not exclude:
    return None
  mask = np.ones(run.recommender.num_items, bool)
  for condition in only:
    mask &= _matching(run, condition, field="only", log=log)
  for condition in exclude:
    mask &= ~_matching(run, condition, field="exclude", log=log)
  return mask


def _matching(run: Run, condition: Condition, *, field: str, log: Log) -> np.ndarray:
  """[I] bool, the items for which one condition holds. Args: field: the argument it is from."""
  mask = np.zeros(run.recommender.num_items, bool)
  if not isinstance(condition, str):
    mask[indices_of(require_list(condition, field=field), run.item_index, "item")] = True
    return mask
  path = user_path(condition)
  if os.path.isfile(path):  # unlike pathlib's, also for names that no system takes
    mask[_known_items(run, path, log=log)] = True
    return mask
  parts = _FIELD.fullmatch(condition)
  if parts is None:
    raise InputError(
      "is no file, and no condition such as genres=Comedy or year=1990..1999",
      field=field,
      value=condition,
    )
  name, wanted = parts.groups()
  _require_field(run, name, field=field, condition=condition)
  if bounds := _RANGE.fullmatch(wanted):
    return _in_range(run, name, *bounds.groups(), field=field, condition=condition)
  return _with_value(run, name, wanted, field=field)


def _known_items(run: Run, path: pathlib.Path, *, log: Log) -> np.ndarray:
  """[n] int64 indices of the items in a file."""
  ids = run.prepared.interactions.item_ids
  if path.suffix in SUFFIXES:
    column = read_columns(path, ("item_id",), what="items")["item_id"]
    found = index_column(column, ids)
  else:
    try:
      lines = path.read_text("utf-8-sig").split("\n")
    except (UnicodeDecodeError, OSError) as error:
      raise InputError(f"{path}: cannot be read as item ids, one a line ({error})") from None
    found = np.array([run.item_index.get(one.strip(), -1) for one in lines if one.strip()], int)
  return _without_unknown(found, path, f"the catalog's {len(ids)} items", log=log)


def _without_unknown(found: np.ndarray, path: pathlib.Path, where: str, *, log: Log) -> np.ndarray:
  """The entries that are not −1. Says how many are, and raises InputError where all are."""
  unknown = int((found < 0).sum())
  if unknown == len(found):
    raise InputError(f"{path}: none of its {unknown} ids is among {where}")
  if unknown:
    log.info(f"warning: {path}: {unknown} of {len(found)} ids are not among {where}; left out")
  return found[found >= 0]


def _require_field(run: Run, name: str, *, field: str, condition: str) -> None:
  fields = run.prepared.item_fields
  names = {key for own in fields for key in own}
  if any(year_of(own) is not None for own in fields):
    names |= set(_DERIVED)
  if name not in names:
    has = f"they have {', '.join(sorted(names))}" if names else "they have none"
    hint = _name_hint(name, names)
    raise InputError(f"no item has a field {name}{hint}; {has}", field=field, value=condition)


def _name_hint(name: str, names: Iterable[str]) -> str:
  """What a field that no item has may be called, in parentheses; "" if nothing is like it."""
  renamed = canonical_field(name)
  if renamed in names:
    return f" (columns of that name are read as {renamed})"
  near = difflib.get_close_matches(name.casefold(), names, n=1)
  return f" (did you mean {near[0]}?)" if near else ""


def _values(run: Run, name: str) -> list[list[str]]:
  """[I] values of a field in small letters; of a text with separators the whole and its parts."""
  fields = run.prepared.item_fields
  if name == "year" or (name == "age" and not any(name in own for own in fields)):
    return [[] if np.isnan(one) else [f"{one:g}"] for one in _numbers(run, name)]
  return [[one.casefold() for one in _texts(own.get(name))] for own in fields]


def _texts(value: Any) -> list[str]:
  if value is None:
    return []
  whole = [] if isinstance(value, (list, tuple)) else [str(value).strip()]
  return list(dict.fromkeys(whole + terms_of(value)))


def _with_value(run: Run, name: str, wanted: str, *, field: str) -> np.ndarray:
  values = _values(run, name)
  mask = np.zeros(len(values), bool)
  for one in wanted.split("|"):
    has = np.array([one.strip().casefold() in own for own in values])
    if not has.any():
      raise InputError(
        f"no item has this value{', and a range has numbers at its ends' * ('..' in one)}; "
        f"{_nearby(one, values)}",
        field=field,
        value=f"{name}={one}",
      )
    mask |= has
  return mask


def _nearby(value: str, values: Iterable[Iterable[str]]) -> str:
  counts = Counter(one for own in values for one in own)
  near = difflib.get_close_matches(value.strip().casefold(), counts, n=3)
  if near:
    return f"near it are {', '.join(near)}"
  return f"the most common ones are {', '.join(one for one, _ in counts.most_common(5))}"


def _in_range(
  run: Run, name: str, low: str | None, high: str | None, *, field: str, condition: str
) -> np.ndarray:
  if low is None and high is None:
    raise InputError("give at least one end of the range", field=field, value=condition)
  lowest, highest = float(low or "-inf"), float(high or "inf")
  if lowest > highest:
    raise InputError("the first end must not be above the second", field=field, value=condition)
  numbers = _numbers(run, name)
  if np.isnan(numbers).all():
    raise InputError(f"no item has a number in {name}", field=field, value=condition)
  mask = (numbers >= lowest) & (numbers <= highest)
  if not mask.any():
    reach = f"{np.nanmin(numbers):g} to {np.nanmax(numbers):g}"
    raise InputError(
      f"no item lies in this range; they go from {reach}", field=field, value=condition
    )
  return mask


def _numbers(run: Run, name: str) -> np.ndarray:
  """[I] float64 values of a field; NaN where an item has none."""
  fields = run.prepared.item_fields
  own = any(name in one for one in fields)
  if name == "age" and not own:
    years = _numbers(run, "year")
    return np.nanmax(years) - years
  if name in YEAR_FIELDS:
    years = [year_of(one if name == "year" else {name: one.get(name)}) for one in fields]
    return np.array([np.nan if year is None else year for year in years], np.float64)
  return np.array([_number(one.get(name)) for one in fields], np.float64)


def _number(value: Any) -> float:
  """The value as a number, of a date the year; NaN if it is neither."""
  if isinstance(value, str) and (date := _DATE.fullmatch(value)):
    return float(date[1])
  try:
    return float(value)
  except (TypeError, ValueError):
    return np.nan


def pairs_of(run: Run, candidates: Mapping[str | int, Iterable[str | int]]) -> Interactions:
  """Lists of items per user as interactions without ratings.

  Raises: InputError: a user or item that is not in the catalog.
  """
  users = indices_of(list(candidates), run.user_index, "user")
  items = [
    indices_of(require_list(own, field="candidates"), run.item_index, "item")
    for own in candidates.values()
  ]
  return unrated(
    run, np.repeat(users, [len(own) for own in items]), np.concatenate([np.zeros(0, int), *items])
  )


def unrated(run: Run, user: np.ndarray, item: np.ndarray) -> Interactions:
  """Pairs [n] of indices as interactions whose ratings and times say nothing."""
  return dataclasses.replace(
    run.prepared.interactions,
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=np.ones(len(user), np.float32),
    timestamp=np.zeros(len(user), np.int64),
  )


def read_candidates(run: Run, path: str, *, log: Log) -> dict[str, list[str]]:
  """Item ids by user id from a table with the columns user_id and item_id.

  Rows of unknown users or items are counted and left out.

  Raises: InputError: a file that cannot be read, or without a row that is known.
  """
  file = user_path(path)
  columns = read_columns(file, ("user_id", "item_id"), what="candidates")
  ids = run.prepared.interactions
  users = index_column(columns["user_id"], ids.user_ids)
  items = index_column(columns["item_id"], ids.item_ids)
  rows = np.where((users < 0) | (items < 0), -1, np.arange(len(users)))
  found: dict[str, list[str]] = {}
  for row in _without_unknown(rows, file, "the run's users and items", log=log):
    found.setdefault(ids.user_ids[users[row]], []).append(ids.item_ids[items[row]])
  return found
