"""Loads the user's own interactions and item metadata from CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data import row_reader as rows
from gatrec_jax.data.interactions import FIRST_SECOND, LAST_SECOND, Interactions, build_interactions
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Columns:
  """Names of a table's columns.

  `rating` and `time` may be "", or absent from the table if they keep their default names. Without
  ratings, feedback is implicit (1.0 everywhere); without times, all are 0.
  """

  user: str = "user_id"
  item: str = "item_id"
  rating: str = "rating"
  time: str = "timestamp"


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


def load_item_metadata(
  path: str | Path, *, max_bad_share: float = 0.01
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
  """Loads item metadata: a column `item_id` and any others.

  Fields are converted to text: numbers are formatted, lists joined by commas, empty fields omitted.
  "genres" becomes a list of text; it may be a list, or text separated by "|".

  Args:
    path: a file ending in .csv, .tsv, .parquet or .jsonl.
    max_bad_share: share of rows that may be unreadable; they are skipped with a warning.

  Returns:
    Fields by raw item id, and notes: counts of unreadable rows and of repeated items (the last row
    counts), if there are any.

  Raises:
    InputError: no such file or column, no rows, ids of mixed types, too many unreadable rows.
  """
  path = Path(path).expanduser()
  rows.check_file(path, max_bad_share)
  names = rows.column_names(path)
  if "item_id" not in names:
    raise InputError(f"{path}: has no column 'item_id'; it has {', '.join(names)}")
  bad, ids = rows.BadRows(path, max_bad_share), rows.IdParser(path, "item_id")
  metadata: dict[str, dict[str, Any]] = {}
  repeated = 0
  for line, row in rows.read_rows(path, bad):
    try:
      item_id = ids.parse(line, row)
      fields = {name: _field(name, value) for name, value in row.items() if name != "item_id"}
    except ValueError as error:
      bad.add(line, str(error))
      continue
    repeated += item_id in metadata
    metadata[item_id] = {name: value for name, value in fields.items() if value}
  notes = bad.settle(len(metadata) + repeated)
  if not metadata:
    raise InputError(f"{path}: there are no items; at least one row is needed")
  return metadata, {**notes, **({"metadata rows replaced": repeated} if repeated else {})}


def _field(name: str, value: Any) -> str | list[str]:
  """A field of metadata as text, or a list for genres; ValueError for an object."""
  if isinstance(value, str) and name == "genres":
    return [part.strip() for part in value.split("|") if part.strip()]
  if isinstance(value, (list, tuple)):
    parts = [part for part in (_field("", part) for part in value) if part]
    return parts if name == "genres" else ", ".join(parts)
  if value is None or value != value:  # NaN stands for a missing number
    return ""
  if isinstance(value, (dict, bytes)):
    raise ValueError(f"field {name!r} is neither text, number nor list")
  is_whole = isinstance(value, float) and value.is_integer()
  text = str(int(value) if is_whole else value).strip()
  return [text] if name == "genres" and text else text


def present_columns(source: str | Path, columns: Columns, names: Sequence[str]) -> Columns:
  """`columns` with "" for absent optional ones. Raises InputError for other absent columns."""
  kept = {}
  for field in dataclasses.fields(Columns):
    name = getattr(columns, field.name)
    optional = field.name in ("rating", "time") and name in (field.default, "")
    if name not in names and not optional:
      raise InputError(
        f"{source}: has no column {name!r} (`{field.name}_column`); it has {', '.join(names)}"
      )
    kept[field.name] = name if name in names else ""
  return Columns(**kept)


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
