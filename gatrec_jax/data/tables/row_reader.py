"""Reads the user's tables row by row, with line numbers: slower than pyarrow, but finds errors."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatrec_jax.data.tables.files import parquet_input, readable
from gatrec_jax.data.tables.source import Source, split_line
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa

logger = logging.getLogger(__name__)

_SHOWN = 5
# Three digits after a comma are more likely thousands.
_DECIMAL_COMMA = re.compile(r"\s*-?(?:\d+,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d+)\s*")
_THOUSANDS = re.compile(r"\s*-?\d{1,3}(?:,\d{3})+\.\d+\s*")


class BadRows:
  """Counts rows that cannot be read, and decides whether there are too many."""

  def __init__(self, path: Path, max_share: float) -> None:
    if not 0 <= max_share <= 1:
      raise InputError("must be from 0 to 1", field="max_bad_share", value=max_share)
    self._path = path
    self._max_share = max_share
    self._first: list[str] = []
    self._count = 0

  def add(self, row: int | str, reason: str, *, lines: int = 1) -> None:
    """Counts the row at line `row` (of a Parquet file: row `row`, both from 1; of a
    data set in a folder: "7 of part-2.parquet").

    `lines` is the number of lines it spans: an unclosed quotation mark may span many good ones.
    """
    if len(self._first) < _SHOWN:
      self._first.append(f"{row} ({reason[:120]})")
    self._count += lines

  def settle(self, good: int) -> dict[str, int]:
    """Warns about the skipped rows, and returns their number as a note.

    Raises:
      InputError: their share is above the limit, or no good row is left.
    """
    if not self._count:
      return {}
    unit = "row" if self._path.suffix == ".parquet" or self._path.is_dir() else "line"
    where = f"{unit} {', '.join(self._first)}" + (" …" if self._count > len(self._first) else "")
    total = self._count + good
    text = f"{self._path}: {self._count} of {total} rows cannot be read: {where}"
    if not good:
      raise InputError(f"{text}; no row is left")
    if self._count > self._max_share * total:
      share = math.ceil(1000 * self._count / total) / 1000
      raise InputError(
        f"{text}; `max_bad_share={self._max_share}` allows fewer (`max_bad_share={share:g}` would "
        "skip them)"
      )
    logger.warning("%s; they are skipped", text)
    return {"unreadable rows skipped": self._count}


def column_names(source: Source) -> tuple[str, ...]:
  """The column names of a table; of JSON lines, the keys of all rows.

  Raises:
    InputError: there are none, or the file cannot be read.
  """
  if source.format != "jsonl":
    return source.names
  bad = BadRows(source.path, 1.0)
  names = tuple(dict.fromkeys(name for _, row in read_rows(source, bad) for name in row))
  if not names:
    bad.settle(0)
    raise InputError(f"{source.path}: is empty; names of columns and rows are needed")
  return names


def first_rows(source: Source, most: int) -> list[Mapping[str, Any]]:
  """The first readable rows, at most `most`."""
  bad = BadRows(source.path, 1.0)
  return [row for _, row in islice(read_rows(source, bad), most)]


def read_rows(source: Source, bad: BadRows) -> Iterator[tuple[int | str, Mapping[str, Any]]]:
  """Yields (line number from 1, fields) of each well-formed row; of a row of a data set in a folder
  also its file, as in `BadRows.add`.

  The others go to `bad`. Values are text in tables of text, and typed in other formats; columns in
  `source.lists` hold lists of text.
  """
  read = {
    "parquet": _parquet_rows,
    "jsonl": _json_rows,
    "lists": _list_rows,
    "table": _csv_rows if source.quoted else _plain_rows,
  }[source.format]
  with readable(source.path):
    for line, row in read(source, bad):
      if source.lists:
        row = {k: v.split() if k in source.lists else v for k, v in row.items()}
      yield line, row


def _csv_rows(source: Source, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  with source.text() as stream:
    # Strict: a quotation mark that never closes, or closes within a field, is an error.
    reader = csv.reader(stream, delimiter=source.separator, strict=True)
    if source.has_header:
      while not next(reader, ["end"]):
        pass
    while True:
      line = reader.line_num + 1
      try:
        row = next(reader)
      except StopIteration:
        return
      except csv.Error as error:
        bad.add(line, _of_csv(error), lines=reader.line_num - line + 1)
        continue
      yield from _named(source, bad, line, row, lines=reader.line_num - line + 1)


def _of_csv(error: csv.Error) -> str:
  if "unexpected end" in str(error):
    return "a quotation mark that never closes"
  return str(error)


def _plain_rows(source: Source, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """Rows of a table in which quotation marks are plain text."""
  is_header = source.has_header
  with io.TextIOWrapper(source.open(), encoding="utf-8-sig", newline=None) as stream:
    for line, text in enumerate(stream, start=1):
      text = text.rstrip("\n")
      if not text.strip():
        continue
      if is_header:
        is_header = False
        continue
      yield from _named(source, bad, line, split_line(text, source.separator))


def _named(
  source: Source, bad: BadRows, line: int, row: list[str], *, lines: int = 1
) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """The row as a mapping, if it has as many fields as there are names and is not blank."""
  if len(row) == len(source.names):
    yield line, dict(zip(source.names, row, strict=True))
  elif row and any(row):
    bad.add(line, f"{len(row)} fields, not {len(source.names)}", lines=lines)


def _list_rows(source: Source, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """A row for each item of a line `user item item …`."""
  with source.text() as stream:
    for line, text in enumerate(stream, start=1):
      tokens = text.split()
      for token in tokens:
        if not token.isdecimal():
          bad.add(line, f"{token!r} is not a whole number")
          break
      else:
        for item in tokens[1:]:
          yield line, {"user_id": tokens[0], "item_id": item}


def _json_rows(source: Source, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  # Lines end at \n alone: other characters that Unicode takes for line ends may be in texts.
  with io.TextIOWrapper(source.open(), encoding="utf-8-sig", newline="\n") as stream:
    for line, text in enumerate(stream, start=1):
      if not text.strip():
        continue
      try:
        row = json.loads(text)
      except RecursionError:
        bad.add(line, "nests too deeply")
        continue
      except ValueError as error:
        bad.add(line, f"not JSON: {error}")
        continue
      if "\\ud" in text.casefold() and has_half_pair(row):
        bad.add(line, "half of a surrogate pair, which is no character")
      elif isinstance(row, dict):
        yield line, row
      else:
        bad.add(line, "not a JSON object")


def has_half_pair(value: Any) -> bool:
  """Whether JSON wrote half of a surrogate pair (`\\ud800`), which no file of text can hold."""
  try:
    json.dumps(value, ensure_ascii=False).encode()
  except UnicodeEncodeError:
    return True
  return False


def _parquet_rows(source: Source, bad: BadRows) -> Iterator[tuple[int | str, Mapping[str, Any]]]:
  import pyarrow.parquet as parquet

  for path in source.files:
    where = "" if path == source.path else f" of {path.relative_to(source.path)}"
    start = 1
    with readable(path), parquet.ParquetFile(parquet_input(path)) as file:
      for batch in file.iter_batches():
        columns = [_plain_values(column) for column in batch.columns]
        names = batch.schema.names
        rows = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
        for line, row in enumerate(rows, start=start):
          yield f"{line}{where}" if where else line, row
        start += batch.num_rows


def _plain_values(column: pa.Array) -> list[Any]:
  """The values as Python has them; None for a date or a time that Python cannot hold."""
  try:
    return column.to_pylist()
  except (OverflowError, ValueError):
    return [_plain_value(value) for value in column]


def _plain_value(value: pa.Scalar) -> Any:
  try:
    return value.as_py()
  except (OverflowError, ValueError):
    return None


def is_clean_id(text: str) -> bool:
  """Whether `text` has a visible character, no NUL, and none for bytes that are no text."""
  return bool(text.strip()) and "\ufffd" not in text and "\0" not in text


class IdParser:
  """Reads ids of one type: the ids 1 and "1" would otherwise silently become one."""

  def __init__(self, path: Path, name: str) -> None:
    self._path = path
    self._name = name
    self._first: tuple[int | str, Any] | None = None

  def parse(self, line: int | str, row: Mapping[str, Any]) -> str:
    """The id in `row`, without blanks around it.

    Raises:
      ValueError: there is none, or it is neither text nor a whole number.
      InputError: its type differs from that of the first id in the file.
    """
    value = row.get(self._name)
    if isinstance(value, float) and value.is_integer():
      value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
      raise ValueError(f"{self._name} {value!r} is not an id")
    if isinstance(value, str) and not is_clean_id(value):
      raise ValueError(f"{self._name} {value!r} is empty or not text")
    if self._first is None:
      self._first = (line, value)
    first_line, first = self._first
    if isinstance(value, str) != isinstance(first, str):
      raise InputError(
        f"{self._path}: {self._name} is of mixed types, {first!r} in line {first_line} and"
        f" {value!r} in line {line}; write all ids the same way"
      )
    return str(value).strip()


def parse_rating(value: Any) -> float:
  """A finite number, or ValueError; true and false are 1 and 0, "1.203,5" is "1,203.5"."""
  text = value
  if isinstance(value, str):
    text = {"true": "1", "false": "0"}.get(value.strip().lower(), value)
    if _DECIMAL_COMMA.fullmatch(text):
      text = text.replace(".", "").replace(",", ".")
    elif _THOUSANDS.fullmatch(text):
      text = text.replace(",", "")
  try:
    rating = float(text)
  except (TypeError, ValueError, OverflowError):
    raise ValueError(f"rating {value!r} is not a number") from None
  # The columns are float32.
  if not math.isfinite(rating) or abs(rating) > 3e38:
    raise ValueError(f"rating {value!r} is not finite")
  return rating
