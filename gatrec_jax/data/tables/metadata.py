"""Loads the user's own table of items, whatever its columns are called."""

from __future__ import annotations

import ast
import collections
import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gatrec_jax.data.tables import item_columns
from gatrec_jax.data.tables import row_reader as rows
from gatrec_jax.data.tables.item_columns import ItemColumn, columns_of, is_related, plain_name
from gatrec_jax.data.tables.source import Source, TableOptions, open_source
from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path

_LINK = re.compile(r"(?:https?://|//|www\.|data:)\S+", re.I)
_MISSING = frozenset(("nan", "null", "none", "n/a", "<na>"))
_LONGEST_LIST = 100_000  # characters of a list written as text
_SHOWN_COLUMNS = 12
_EXACT = 2**53  # whole numbers beyond it are not exact as floats


@dataclasses.dataclass(frozen=True)
class ItemMetadata:
  """A table of items.

  Attributes:
    source: its file; None where there is none.
    id_column: the column that holds the ids.
    fields: by raw item id: title (text), genres, tags, keywords, brand, manufacturer and publisher
      (lists of text), and any other field as text; without empty ones.
    notes: counts of unreadable rows and of repeated items (the last row counts), if there are any.
    sentence: which column was taken as what, for the user.
    columns: names of all columns, as `plain_name` gives them.
  """

  source: Source | None = None
  id_column: str = ""
  fields: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  sentence: str = ""
  columns: tuple[str, ...] = ()


def load_item_metadata(
  path: str | Path, *, item_column: str = "item_id", encoding: str = "", max_bad_share: float = 0.01
) -> ItemMetadata:
  """Loads item metadata: a column of ids and any others.

  Columns are recognized by their names in any case, with hyphens or spaces
  (`tables/item_columns.py`). A list may be one or be written as text, with bars, semicolons or
  commas. Objects, bytes, links and ids of other items are left out.

  Args:
    path: a file of any format that `open_source` reads.
    item_column: the item column of the interactions, which holds the ids if it is there; otherwise
      another column whose name or values say that it does.
    encoding: of text that is not UTF-8.
    max_bad_share: share of rows that may be unreadable; they are skipped with a warning.

  Raises:
    InputError: no such file, no rows, no or several possible columns of ids, ids of mixed types, or
      too many unreadable rows.
  """
  source = open_source(user_path(path), TableOptions(encoding=encoding))
  names = rows.column_names(source)
  id_column = _id_column(source, names, item_column)
  columns = columns_of(names, id_column=id_column)
  uses = {column.name: _Use(column) for column in columns}
  bad = rows.BadRows(source.path, max_bad_share)
  ids = rows.IdParser(source.path, id_column)
  raw: dict[str, dict[str, Any]] = {}
  repeated = 0
  for line, row in rows.read_rows(source, bad):
    try:
      item_id = ids.parse(line, row)
    except ValueError as error:
      bad.add(line, str(error))
      continue
    repeated += item_id in raw
    values = {column.name: uses[column.name].read(row.get(column.name)) for column in columns}
    raw[item_id] = {name: value for name, value in values.items() if value}
  notes = bad.settle(len(raw) + repeated)
  if not raw:
    raise InputError(f"{source.path}: there are no items; at least one row is needed")
  return ItemMetadata(
    source=source,
    id_column=id_column,
    fields=_fields(raw, columns),
    notes={**notes, **({"metadata rows replaced": repeated} if repeated else {})},
    sentence=_sentence(id_column, list(uses.values()), item_column),
    columns=tuple(map(plain_name, names)),
  )


def matches_by_column(metadata: ItemMetadata, ids: Collection[str]) -> dict[str, int]:
  """How many of `ids` each column of the file holds; columns without any are left out."""
  found: dict[str, set[str]] = collections.defaultdict(set)
  for row in _every_row(metadata.source):
    for name, value in row.items():
      if isinstance(value, str | int | float) and (text := _text_of(value)) in ids:
        found[name].add(text)
  return {name: len(values) for name, values in found.items()}


def _every_row(source: Source) -> Iterator[Mapping[str, Any]]:
  """The rows of a file that was read before; unreadable ones are left out."""
  return (row for _, row in rows.read_rows(source, rows.BadRows(source.path, 1.0)))


def _id_column(source: Source, names: Sequence[str], item_column: str) -> str:
  """The column of ids, by its name, else by its values. Raises InputError if it is unclear."""
  if named := item_columns.named_id_column(names, item_column=item_column):
    return named
  values: dict[str, list[Any]] = {name: [] for name in names if item_columns.may_be_ids(name)}
  for row in _every_row(source):
    for name, own in values.items():
      own.append(row.get(name))
  possible = [name for name, own in values.items() if own and _are_ids(own)]
  if len(possible) == 1:
    return possible[0]
  raise InputError(
    f"{source.path}: which column holds the item ids? Name it {item_column!r}; it has "
    f"{', '.join(names)}",
    field="item_metadata",
  )


def _are_ids(values: Iterable[Any]) -> bool:
  """Whether these are different words or whole numbers, as ids are."""
  texts = [_text_of(value) if isinstance(value, str | int) else "" for value in values]
  return all(re.fullmatch(r"\S+", text) for text in texts) and len(set(texts)) == len(texts)


class _Unusable(Exception):
  """A value that no field can hold; the message says what it is."""


class _Use:
  """Reads a column's values, and counts which of them can be used."""

  def __init__(self, column: ItemColumn) -> None:
    self.column = column
    self.used = 0
    self.unusable: collections.Counter[str] = collections.Counter()

  def read(self, value: Any) -> list[str]:
    """The texts of a value, [] for none; a list written as text counts as a list."""
    column = self.column
    try:
      if is_related(column):
        raise _Unusable("ids of other items")
      if isinstance(value, str) and column.form != "title":
        value = _as_list(value)
      texts = _texts_of(value)
      if texts and all(_LINK.fullmatch(text) for text in texts):
        raise _Unusable("a link")
    except _Unusable as reason:
      self.unusable[str(reason)] += 1
      return []
    if column.form == "year" and texts in (["0"], ["0000"]):
      texts = []
    if column.form != "title":
      texts = [text for text in texts if text.casefold() not in _MISSING]
    self.used += bool(texts)
    return texts


def _texts_of(value: Any) -> list[str]:
  """The texts of a value, of lists at any depth. Raises _Unusable where there are only others."""
  found, unusable = [], ""
  left, in_list = [value], isinstance(value, list | tuple)
  while left:
    one = left.pop()
    if isinstance(one, list | tuple):
      left += reversed(one)
    elif isinstance(one, dict):
      unusable = "a list of objects" if in_list else "an object"
    elif isinstance(one, bytes):
      unusable = "bytes"
    elif text := _text_of(one):
      found.append(text)
  if unusable and not found:
    raise _Unusable(unusable)
  return found


def _text_of(value: Any) -> str:
  """A number or another plain value as text; "" for a missing one."""
  if value is None or value != value:  # NaN stands for a missing number
    return ""
  if isinstance(value, float):
    if not math.isfinite(value):
      return ""
    value = int(value) if value.is_integer() and abs(value) <= _EXACT else value
  try:
    return str(value).strip()
  except ValueError:  # a whole number of more digits than Python writes
    return ""


def _as_list(text: str) -> Any:
  """The list that a text such as "['Drama', 'War']" writes; other texts as they are."""
  stripped = text.strip()
  if not (stripped.startswith("[") and stripped.endswith("]")) or len(text) > _LONGEST_LIST:
    return text
  try:
    return ast.literal_eval(stripped)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


def _fields(
  raw: Mapping[str, Mapping[str, list[str]]], columns: Sequence[ItemColumn]
) -> dict[str, dict[str, Any]]:
  """Fields by item id from the texts of each column."""
  separators = {
    column.name: _separator(column, (own.get(column.name, ()) for own in raw.values()))
    for column in columns
    if column.form == "terms"
  }
  fields: dict[str, dict[str, Any]] = {}
  for item_id, own in raw.items():
    fields[item_id] = known = {}
    for column in columns:
      texts = own.get(column.name)
      if not texts:
        continue
      if column.form == "terms":
        separator = separators[column.name]
        parts = [
          part for text in texts for part in (separator.split(text) if separator else [text])
        ]
        terms = dict.fromkeys([*known.get(column.field, ()), *map(str.strip, parts)])
        known[column.field] = [term for term in terms if term]
      elif column.form == "name":
        known[column.field] = texts
      else:
        known[column.field] = (" " if column.form in ("title", "prose") else ", ").join(texts)
  return {item_id: {k: v for k, v in own.items() if v} for item_id, own in fields.items()}


def _separator(column: ItemColumn, values: Iterable[Sequence[str]]) -> re.Pattern[str] | None:
  """What separates the terms in a column's texts; None if each is one term."""
  values = list(values)
  for sign in "|;":
    if any(sign in text for texts in values for text in texts):
      return re.compile(re.escape(sign))
  whole = {texts[0] for texts in values if len(texts) == 1}
  if not any("," in text for text in whole) or any(len(texts) > 1 for texts in values):
    return None
  if column.commas:
    return re.compile(",")
  # "Arts, Crafts & Sewing" is one category. Where commas separate, most parts occur elsewhere too.
  parts = [part.strip() for text in whole for part in text.split(",")]
  often = collections.Counter(parts)
  listed = [part for text in whole if "," in text for part in text.split(",")]
  shared = sum(often[part.strip()] > 1 for part in listed)
  return re.compile(",") if 2 * shared >= len(listed) else None


def _sentence(id_column: str, uses: Sequence[_Use], item_column: str) -> str:
  """Which column was taken as what: "title from 'Book-Title'; not used: 'Image' (a link)"."""
  known, more, unused = [], [], []
  if id_column != item_column:
    known.append(f"ids from {id_column!r}")
  for use in uses:
    column = use.column
    if use.used and column.known:
      same = column.name == column.field
      known.append(column.field if same else f"{column.field} from {column.name!r}")
    elif use.used:
      more.append(repr(column.name))
    if use.unusable:
      kind, count = use.unusable.most_common(1)[0]
      times = f" in {count} of {count + use.used} items" if use.used else ""
      unused.append(f"{column.name!r} ({kind}{times})")
    elif not use.used:
      unused.append(f"{column.name!r} (empty)")
  hint = ""
  if more and not any(use.used and use.column.field == "title" for use in uses):
    hint = "no title: name a column title, and others genres, year, description, …"
  parts = [", ".join(known), _shortened("other fields", more), _shortened("not used", unused), hint]
  return "items: " + "; ".join(filter(None, parts))


def _shortened(label: str, names: Sequence[str]) -> str:
  if not names:
    return ""
  rest = len(names) - _SHOWN_COLUMNS
  return f"{label}: {', '.join(names[:_SHOWN_COLUMNS])}" + (f" and {rest} more" if rest > 0 else "")
