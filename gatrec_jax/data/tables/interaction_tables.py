"""Loads the user's own interactions from CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data.interactions import FIRST_SECOND, LAST_SECOND, Interactions, build_interactions
from gatrec_jax.data.tables import row_reader as rows
from gatrec_jax.data.tables.columns import Columns, present_columns
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


def load_interactions(
  path: str | Path,
  *,
  columns: Columns = Columns(),  # noqa: B008 - frozen
  item_ids: Iterable[int | str] | None = None,
  max_bad_share: float = 0.01,
) -> tuple[Interactions, dict[str, int]]:
  """Loads a table of interactions, one per row.

  CSV and TSV have a header; they are UTF-8, with or without a byte-order mark. Times are
  seconds since 1970 or ISO-8601 dates (UTC unless they name a zone).

  Args:
    path: a file ending in .csv, .tsv, .parquet or .jsonl.
    columns: their names.
    item_ids: raw ids that belong to the catalog even without rows.
    max_bad_share: share of rows that may be unreadable; they are skipped with a warning.

  Returns:
    The interactions, and notes: counts of duplicates and of unreadable rows, if there are any.

  Raises:
    InputError: no such file or column, no rows, ids of mixed types, too many unreadable rows.
  """
  path = Path(path).expanduser()
  rows.check_file(path, max_bad_share)
  raw, notes = _read_fast(path, columns), {}
  if raw is None:
    raw, notes = _read_slowly(path, columns, max_bad_share)
  interactions, more_notes = build_interactions(*raw, item_ids=item_ids, source=str(path))
  return interactions, {**notes, **more_notes}


class _Unclean(Exception):
  """A value that only the slow reader can handle."""


def _read_fast(path: Path, columns: Columns) -> tuple[Any, Any, np.ndarray, np.ndarray] | None:
  """The four columns, read by pyarrow; None if anything is irregular."""
  import pyarrow as pa

  # JSON lines name their columns in every row, so they must be read first.
  if path.suffix != ".jsonl":
    columns = present_columns(path, columns, rows.column_names(path))
  try:
    table = _arrow_table(path, columns)
    if path.suffix == ".jsonl":
      columns = present_columns(path, columns, table.column_names)
    ids = [_clean_ids(table[name]) for name in (columns.user, columns.item)]
    rating = np.ones(len(table), dtype=np.float32)
    if columns.rating:
      rating = _clean_ratings(table[columns.rating])
    time = np.zeros(len(table), dtype=np.int64)
    if columns.time:
      time = _clean_times(table[columns.time])
  # The slow reader reads or locates what pyarrow cannot read or would misread.
  except (pa.ArrowException, _Unclean):
    return None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error})") from error
  return ids[0], ids[1], rating, time


def _arrow_table(path: Path, columns: Columns) -> pa.Table:
  import pyarrow as pa

  wanted = list(dict.fromkeys(name for name in dataclasses.astuple(columns) if name))
  if path.suffix == ".parquet":
    import pyarrow.parquet as parquet

    return parquet.read_table(path, columns=wanted)
  if path.suffix == ".jsonl":
    import pyarrow.json as arrow_json

    return arrow_json.read_json(path)
  import pyarrow.csv as arrow_csv

  # Ids stay text: "007" is not 7.
  text = pa.dictionary(pa.int32(), pa.string())
  types = {columns.rating: pa.float64(), columns.user: text, columns.item: text}
  return arrow_csv.read_csv(
    path,
    parse_options=arrow_csv.ParseOptions(
      delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True
    ),
    convert_options=arrow_csv.ConvertOptions(
      column_types=types, include_columns=wanted, null_values=[]
    ),
  )


def _clean_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
  """[R] dictionary of text or whole numbers, without missing or empty ones."""
  import pyarrow as pa

  if column.null_count:
    raise _Unclean
  encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
  encoded = encoded.unify_dictionaries()
  kind = encoded.type.value_type
  if pa.types.is_integer(kind):
    return encoded
  if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
    raise _Unclean
  distinct = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
  if not all(map(rows.is_clean_id, distinct)):
    raise _Unclean
  return encoded


def _clean_ratings(column: pa.ChunkedArray) -> np.ndarray:
  """[R] float32, finite."""
  import pyarrow as pa

  if column.null_count or not (
    pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
  ):
    raise _Unclean
  with np.errstate(over="ignore"):
    rating = column.to_numpy().astype(np.float32)
  if not np.isfinite(rating).all():
    raise _Unclean
  return rating


def _clean_times(column: pa.ChunkedArray) -> np.ndarray:
  """[R] int64, seconds since 1970."""
  import pyarrow as pa

  if column.null_count:
    raise _Unclean
  if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
    time = seconds_of_dates(column)
  elif pa.types.is_floating(column.type):
    time = np.floor(column.to_numpy())
  elif pa.types.is_integer(column.type):
    time = column.to_numpy()
  else:
    raise _Unclean
  if not ((time >= FIRST_SECOND) & (time <= LAST_SECOND)).all():
    raise _Unclean
  return time


def seconds_of_dates(column: pa.ChunkedArray) -> np.ndarray:
  """[R] int64 seconds since 1970 of timestamps or dates, rounded down."""
  import pyarrow as pa

  # Microseconds and a floor, because a cast to seconds would refuse fractions.
  return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() // 1_000_000


def _read_slowly(
  path: Path, columns: Columns, max_bad_share: float
) -> tuple[tuple[Any, Any, np.ndarray, np.ndarray], dict[str, int]]:
  """The four columns, read row by row without unreadable rows, and the number of these."""
  columns = present_columns(path, columns, rows.column_names(path))
  bad = rows.BadRows(path, max_bad_share)
  parsers = rows.IdParser(path, columns.user), rows.IdParser(path, columns.item)
  # Codes and machine numbers instead of Python objects, so that a large table fits in memory.
  known: tuple[dict[str, int], dict[str, int]] = ({}, {})
  codes = array("i"), array("i")
  ratings, times = array("d"), array("q")
  for line, row in rows.read_rows(path, bad):
    try:
      pair = [parser.parse(line, row) for parser in parsers]
      rating = rows.parse_rating(row.get(columns.rating)) if columns.rating else 1.0
      time = rows.parse_time(row.get(columns.time)) if columns.time else 0
    except ValueError as error:
      bad.add(line, str(error))
      continue
    ratings.append(rating)
    times.append(time)
    for raw_id, ids, column in zip(pair, known, codes, strict=True):
      column.append(ids.setdefault(raw_id, len(ids)))
  notes = bad.settle(len(times))
  user, item = (_dictionary(column, ids) for column, ids in zip(codes, known, strict=True))
  return (user, item, np.array(ratings), np.array(times)), notes


def _dictionary(codes: array, ids: dict[str, int]) -> pa.DictionaryArray:
  import pyarrow as pa

  return pa.DictionaryArray.from_arrays(
    pa.array(np.array(codes, dtype=np.int32)), pa.array(list(ids), type=pa.string())
  )
