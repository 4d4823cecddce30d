"""Reads the columns of a table of interactions by pyarrow, where nothing in it is irregular."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax.data.interactions import FIRST_SECOND, LAST_SECOND
from gatrec_jax.data.tables import row_reader as rows
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.raw_columns import RawColumns
from gatrec_jax.data.tables.shards import read_shards
from gatrec_jax.data.tables.source import Source
from gatrec_jax.data.tables.times import TimeStyle, style_of_numbers, witnesses
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


class Unclean(Exception):
  """A value that only the slow reader can handle."""


def read_table(
  source: Source, columns: Columns | None, *, part: tuple[int, int] = (0, 1)
) -> pa.Table | None:
  """The table, or the wanted columns of it; None where the slow reader has to read it.

  Args:
    columns: with "" for absent ones; None = all (JSON lines, whose names come with the rows).
    part: (k, n) for the k-th of n parts of the rows of Parquet, of about the same size.
  """
  import pyarrow as pa

  if not source.is_plain or source.format == "lists":
    return None
  try:
    if source.format == "parquet":
      ids = [name for name in (columns.user, columns.item, columns.event) if name]
      others = [name for name in (columns.rating, columns.time) if name]
      return read_shards(source.path, source.files, ids=ids, others=others, part=part)
    if source.format == "jsonl":
      import pyarrow.json as arrow_json

      with source.open() as stream:
        return arrow_json.read_json(stream)
    return _csv(source, columns)
  except pa.ArrowException:
    return None
  except OSError as error:
    raise InputError(f"{source.path}: cannot be read ({error})") from error


def read_columns(
  table: pa.Table, columns: Columns, *, style: TimeStyle | None = None
) -> RawColumns:
  """The columns of a table in memory.

  Args: style: of times that are numbers; None = found out.
  Raises: Unclean where a value is irregular.
  """
  import pyarrow as pa

  value, is_true_or_false, remarks = None, False, ()
  if columns.rating:
    column = table[columns.rating]
    is_true_or_false = pa.types.is_boolean(column.type)
    value = _values(column.cast(pa.int8()) if is_true_or_false else column)
  time = None
  if columns.time:
    time, remark = _times(table[columns.time], style)
    remarks = (remark,) if remark else ()
  try:
    event = clean_ids(table[columns.event]) if columns.event else None
    user, item = clean_ids(table[columns.user]), clean_ids(table[columns.item])
  except pa.ArrowException:
    raise Unclean from None
  return RawColumns(
    user, item, value, event, time, columns.rating, columns.event, is_true_or_false, remarks
  )


def numeric_columns(table: pa.Table) -> dict[str, str]:
  """The columns of numbers, each with its range."""
  import pyarrow as pa
  import pyarrow.compute as pc

  found = {}
  for name in table.column_names:
    kind = table[name].type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
      least, most = (pc.min_max(table[name])[key].as_py() for key in ("min", "max"))
      if least is not None:
        found[name] = f"{least:g} to {most:g}"
  return found


def _wanted(columns: Columns) -> list[str]:
  names = (columns.user, columns.item, columns.rating, columns.time, columns.event)
  return list(dict.fromkeys(name for name in names if name))


def _csv(source: Source, columns: Columns) -> pa.Table | None:
  import pyarrow as pa
  import pyarrow.csv as arrow_csv

  # Ids stay text: "007" is not 7.
  text = pa.dictionary(pa.int32(), pa.string())
  types = {columns.rating: pa.float64(), columns.user: text, columns.item: text}
  types |= {columns.event: text} if columns.event else {}
  with source.open() as stream:
    table = arrow_csv.read_csv(
      stream,
      read_options=arrow_csv.ReadOptions(
        column_names=source.names, skip_rows=int(source.has_header)
      ),
      parse_options=arrow_csv.ParseOptions(
        delimiter=source.separator, quote_char='"' if source.quoted else False
      ),
      convert_options=arrow_csv.ConvertOptions(
        column_types=types, include_columns=_wanted(columns), null_values=[]
      ),
    )
  # A quotation mark that does not close may have taken lines into a field.
  if source.has_quotes and source.quoted and len(table) != source.lines - source.has_header:
    return None
  return table


def clean_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
  """[R] dictionary of text or whole numbers, none missing or empty, without blanks around them."""
  import pyarrow as pa

  if column.null_count:
    raise Unclean
  if pa.types.is_string_view(column.type):
    column = column.cast(pa.large_string())
  if pa.types.is_floating(column.type):
    # Other tools convert whole numbers to floats if a row has none.
    try:
      column = column.cast(pa.int64())
    except pa.ArrowInvalid:
      raise Unclean from None
  encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
  encoded = encoded.unify_dictionaries()
  kind = encoded.type.value_type
  if pa.types.is_integer(kind):
    return encoded
  if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
    raise Unclean
  distinct = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
  if not all(map(rows.is_clean_id, distinct)):
    raise Unclean
  trimmed = [text.strip() for text in distinct]
  if trimmed == distinct:
    return encoded
  return pa.chunked_array(
    [
      pa.DictionaryArray.from_arrays(chunk.indices, pa.array(trimmed, pa.string()))
      for chunk in encoded.chunks
    ]
  )


def _values(column: pa.ChunkedArray) -> np.ndarray:
  """[R] float64 that float32 can hold."""
  import pyarrow as pa

  if pa.types.is_decimal(column.type):
    column = column.cast(pa.float64())
  if column.null_count or not (
    pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
  ):
    raise Unclean
  value = column.to_numpy().astype(np.float64)
  if not (np.isfinite(value).all() and np.abs(value).max(initial=0) <= 3e38):
    raise Unclean
  return value


def witnesses_of_times(table: pa.Table | None, columns: Columns) -> np.ndarray:
  """`times.witnesses` of the column of times; none where it is missing or no column of numbers."""
  import pyarrow as pa

  if table is None or not columns.time:
    return np.zeros(0)
  kind = table[columns.time].type
  if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
    return np.zeros(0)
  return witnesses(table[columns.time].drop_null().to_numpy())


def _times(column: pa.ChunkedArray, style: TimeStyle | None) -> tuple[np.ndarray, str]:
  """[R] int64, seconds since 1970, and what was assumed."""
  import pyarrow as pa

  if column.null_count:
    raise Unclean
  if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
    time = seconds_of_dates(column)
    if not ((time >= FIRST_SECOND) & (time <= LAST_SECOND)).all():
      raise Unclean
    return time, ""
  if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
    raise Unclean
  numbers = column.to_numpy()
  style = style_of_numbers(numbers) if style is None else style
  try:
    return style.seconds_of(numbers), style.remark
  except ValueError:
    raise Unclean from None


def seconds_of_dates(column: pa.ChunkedArray) -> np.ndarray:
  """[R] int64 seconds since 1970 of timestamps or dates, rounded down."""
  import pyarrow as pa

  # Microseconds and a floor, because a cast to seconds would refuse fractions.
  return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() // 1_000_000
