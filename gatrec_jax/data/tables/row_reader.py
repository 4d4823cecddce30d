"""Reads the user's tables row by row, with line numbers: slower than pyarrow, but finds errors."""

from __future__ import annotations

import csv
import datetime
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatrec_jax.data.interactions import FIRST_SECOND, LAST_SECOND
from gatrec_jax.errors import InputError

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
_SHOWN = 5


class BadRows:
  """Counts rows that cannot be read, and decides whether there are too many."""

  def __init__(self, path: Path, max_share: float) -> None:
    self._path = path
    self._max_share = max_share
    self._first: list[str] = []
    self._count = 0

  def add(self, row: int, reason: str, *, lines: int = 1) -> None:
    """Counts the row at line `row` (of a Parquet file: row `row`, both from 1).

    `lines` is the number of lines it spans: an unclosed quotation mark may span many good ones.
    """
    if len(self._first) < _SHOWN:
      self._first.append(f"{row} ({reason})")
    self._count += lines

  def settle(self, good: int) -> dict[str, int]:
    """Warns about the skipped rows, and returns their number as a note.

    Raises:
      InputError: their share is above the limit, or no good row is left.
    """
    if not self._count:
      return {}
    unit = "row" if self._path.suffix == ".parquet" else "line"
    where = f"{unit} {', '.join(self._first)}" + (" …" if self._count > len(self._first) else "")
    total = self._count + good
    text = f"{self._path}: {self._count} of {total} rows cannot be read: {where}"
    if not good:
      raise InputError(f"{text}; no row is left")
    if self._count > self._max_share * total:
      raise InputError(f"{text}; `max_bad_share={self._max_share}` allows fewer")
    logger.warning("%s; they are skipped", text)
    return {"unreadable rows skipped": self._count}


def check_file(path: Path, max_bad_share: float) -> None:
  """Raises InputError for a missing file, an unknown suffix, or a share outside [0, 1]."""
  if not 0 <= max_bad_share <= 1:
    raise InputError("must be from 0 to 1", field="max_bad_share", value=max_bad_share)
  if path.suffix not in SUFFIXES:
    raise InputError(f"{path}: format unknown; the name must end in {', '.join(SUFFIXES)}")
  if not path.is_file():
    raise InputError(f"{path}: there is no such file")


def column_names(path: Path) -> list[str]:
  """The column names of a file; for JSON lines, the keys of any row.

  Raises:
    InputError: there are none, one appears twice, or the file cannot be read.
  """
  bad = BadRows(path, 1.0)
  with readable(path):
    if path.suffix == ".parquet":
      import pyarrow.parquet as parquet

      names = list(parquet.read_schema(path).names)
    elif path.suffix == ".jsonl":
      names = list(dict.fromkeys(name for _, row in _json_rows(path, bad) for name in row))
    else:
      with open(path, encoding="utf-8-sig", errors="replace", newline="") as stream:
        names = next(_csv_reader(path, stream), [])
  if not names:
    bad.settle(0)
    raise InputError(f"{path}: is empty; names of columns and rows are needed")
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise InputError(f"{path}: column {repeated[0]!r} is there twice")
  return names


@contextmanager
def readable(path: Path) -> Iterator[None]:
  """Converts errors of the disk and of pyarrow to an InputError that names `path`."""
  import pyarrow as pa

  try:
    yield
  except (OSError, pa.ArrowException, csv.Error) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(f"{path}: cannot be read ({reason})") from error


def read_rows(path: Path, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """Yields (line number from 1, fields) of each well-formed row.

  The others go to `bad`. Values are text in CSV and TSV, and typed in other formats.
  """
  with readable(path):
    if path.suffix == ".parquet":
      yield from _parquet_rows(path)
    elif path.suffix == ".jsonl":
      yield from _json_rows(path, bad)
    else:
      yield from _csv_rows(path, bad)


def _csv_reader(path: Path, stream: Any) -> Any:
  return csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")


def _csv_rows(path: Path, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  names = column_names(path)
  with open(path, encoding="utf-8-sig", errors="replace", newline="") as stream:
    reader = _csv_reader(path, stream)
    next(reader)
    while True:
      line = reader.line_num + 1
      try:
        row = next(reader)
      except StopIteration:
        return
      except csv.Error as error:
        bad.add(line, str(error), lines=reader.line_num - line + 1)
        continue
      if len(row) == len(names):
        yield line, dict(zip(names, row, strict=True))
      elif row:
        reason = f"{len(row)} fields, not {len(names)}"
        bad.add(line, reason, lines=reader.line_num - line + 1)


def _json_rows(path: Path, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
  with open(path, encoding="utf-8-sig", errors="replace") as stream:
    for line, text in enumerate(stream, start=1):
      if not text.strip():
        continue
      try:
        row = json.loads(text)
      except ValueError as error:
        bad.add(line, f"no JSON: {error}")
        continue
      if isinstance(row, dict):
        yield line, row
      else:
        bad.add(line, "no JSON object")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
  import pyarrow.parquet as parquet

  start = 1
  with parquet.ParquetFile(path) as file:
    for batch in file.iter_batches():
      yield from enumerate(batch.to_pylist(), start=start)
      start += batch.num_rows


def is_clean_id(text: str) -> bool:
  """Whether `text` has a visible character, and none that stands for undecodable bytes."""
  return bool(text.strip()) and "\ufffd" not in text


class IdParser:
  """Reads ids of one type: the ids 1 and "1" would otherwise silently become one."""

  def __init__(self, path: Path, name: str) -> None:
    self._path = path
    self._name = name
    self._first: tuple[int, Any] | None = None

  def parse(self, line: int, row: Mapping[str, Any]) -> str:
    """The id in `row`.

    Raises:
      ValueError: there is none, or it is neither text nor a whole number.
      InputError: its type differs from that of the first id in the file.
    """
    value = row.get(self._name)
    if isinstance(value, float) and value.is_integer():
      value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
      raise ValueError(f"{self._name} {value!r} is no id")
    if isinstance(value, str) and not is_clean_id(value):
      raise ValueError(f"{self._name} {value!r} is empty or not UTF-8 text")
    if self._first is None:
      self._first = (line, value)
    first_line, first = self._first
    if isinstance(value, str) != isinstance(first, str):
      raise InputError(
        f"{self._path}: {self._name} is of mixed types, {first!r} in line {first_line} and"
        f" {value!r} in line {line}; write all ids the same way"
      )
    return str(value)


def parse_rating(value: Any) -> float:
  """A finite number, or ValueError."""
  try:
    rating = float(value)
  except (TypeError, ValueError):
    raise ValueError(f"rating {value!r} is no number") from None
  # The columns are float32.
  if not math.isfinite(rating) or abs(rating) > 3e38:
    raise ValueError(f"rating {value!r} is not finite")
  return rating


def parse_time(value: Any) -> int:
  """Seconds since 1970 from a number, a date or ISO-8601 text (UTC if no zone is given).

  Raises:
    ValueError: another kind of value, or outside the years 1 to 9999.
  """
  seconds = _seconds(value)
  if not FIRST_SECOND <= seconds <= LAST_SECOND:
    raise ValueError(f"time {value!r} is outside the years 1 to 9999; seconds are needed")
  return math.floor(seconds)


def _seconds(value: Any) -> float:
  moment = value
  if isinstance(value, str):
    try:
      return float(value)
    except ValueError:
      pass
    try:
      moment = datetime.datetime.fromisoformat(value.strip())
    except ValueError:
      raise ValueError(f"time {value!r} is neither seconds nor ISO-8601") from None
  if isinstance(moment, datetime.datetime):
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return zoned.timestamp()
  if isinstance(moment, datetime.date):
    return (moment - datetime.date(1970, 1, 1)).days * 86_400
  if isinstance(moment, bool) or not isinstance(moment, (int, float)):
    raise ValueError(f"time {value!r} is neither seconds nor ISO-8601")
  return moment
