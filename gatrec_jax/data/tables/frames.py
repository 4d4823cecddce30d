"""Interactions from a DataFrame of any library that supports the Arrow interchange protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data.interactions import index_interactions
from gatrec_jax.data.meaning import Reading
from gatrec_jax.data.tables.columns import Columns, find_columns
from gatrec_jax.data.tables.fast_reader import (
  Unclean,
  numeric_columns,
  read_columns,
  seconds_of_dates,
)
from gatrec_jax.data.tables.interaction_tables import InteractionTable, understand
from gatrec_jax.data.tables.raw_columns import RawColumns
from gatrec_jax.data.tables.times import style_of
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


def interactions_from_frame(
  frame: Any,
  *,
  columns: Columns = Columns(),  # noqa: B008 - frozen
  reading: Reading = Reading(),  # noqa: B008
) -> InteractionTable:
  """Interactions from a DataFrame, understood as those of a file.

  Args:
    frame: an object with `__arrow_c_stream__` or `__dataframe__`, such as a DataFrame of pandas or
      polars, or a pyarrow table; or a mapping from names to columns; one row for each interaction.
    columns: their names; rating and time may be missing, as in `load_interactions`.
    reading: what the values mean, where that is to be said.
  Raises:
    InputError: another kind of object, a missing column, or as `load_interactions`.

  >>> import pyarrow as pa
  >>> frame = pa.table({"user_id": ["a", "b"], "item_id": [7, 9], "rating": [4.0, 2.5]})
  >>> table = interactions_from_frame(frame)
  >>> table.interactions.user_ids, table.interactions.rating.tolist()
  (('a', 'b'), [4.0, 2.5])
  >>> table.sentence
  "ratings of column 'rating' (2.5 to 4): 1 likes (≥ 4), 0 dislikes (≤ 2), 1 neutral"
  """
  table = as_table(frame)
  numeric = numeric_columns(table)
  found, remarks = find_columns(
    "the frame", columns, table.column_names, numeric=numeric, kind=reading.kind
  )
  try:
    raw = read_columns(table, found)
  except Unclean:
    raw = _checked(table, found)
  part = np.zeros(len(raw), np.int8)
  understood = understand(raw, part, reading=reading, source="the frame")
  return dataclasses.replace(understood, remarks=(*remarks, *raw.remarks))


def _checked(table: pa.Table, columns: Columns) -> RawColumns:
  """The columns of a frame with something irregular; raises InputError where it is a fault."""
  user, item = _ids(table[columns.user]), _ids(table[columns.item])
  value = _numbers(table[columns.rating]) if columns.rating else None
  time = _seconds(table[columns.time], columns.time) if columns.time else None
  ones, zeros = np.ones(len(table), np.float32), np.zeros(len(table), np.int64)
  index_interactions(
    user,
    item,
    ones if value is None else value,
    zeros if time is None else time,
    source="the frame",
  )
  event = table[columns.event] if columns.event else None
  if event is not None and event.null_count:
    raise InputError(f"the frame: column {columns.event!r} has rows without an event")
  return RawColumns(
    user.dictionary_encode(),
    item.dictionary_encode(),
    value,
    None if event is None else event.dictionary_encode(),
    time,
    columns.rating,
    columns.event,
  )


def as_table(frame: Any) -> pa.Table:
  """The frame, or the mapping of columns, as an Arrow table. Raises InputError."""
  import pyarrow as pa

  try:
    if isinstance(frame, Mapping):
      return pa.table({str(name): pa.array(column) for name, column in frame.items()})
    if hasattr(frame, "__arrow_c_stream__"):
      return pa.table(frame)
    if hasattr(frame, "__dataframe__"):
      from pyarrow.interchange import from_dataframe

      return from_dataframe(frame)
  except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
    raise InputError(f"the frame cannot be read as an Arrow table ({error})") from error
  raise InputError(
    "must support the Arrow interchange protocol (as frames of pandas, polars, pyarrow and others "
    "do); Interactions.from_arrays takes arrays",
    field="frame",
    value=type(frame).__name__,
  )


def _ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
  """Converts string views, which `build_interactions` does not accept, to strings."""
  import pyarrow as pa

  return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
  """[R] numbers; missing ones become NaN, which `build_interactions` refuses with their row."""
  import pyarrow as pa

  if pa.types.is_decimal(column.type):
    column = column.cast(pa.float64())
  return column.to_numpy()


def _seconds(column: pa.ChunkedArray, name: str) -> np.ndarray:
  """[R] seconds since 1970; dates and timestamps are rounded down."""
  import pyarrow as pa

  is_date = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
  is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
  if not (is_date or is_text):
    return _numbers(column)
  if column.null_count:
    row = int(np.flatnonzero(column.is_null().to_numpy())[0])
    raise InputError(f"the frame: time: missing in row {row} (from 0)")
  if is_date:
    return seconds_of_dates(column)
  texts = column.to_pylist()
  style = style_of(texts, column=name)
  try:
    return np.array([style.seconds(text) for text in texts], np.int64)
  except ValueError as error:
    raise InputError(f"the frame: {error}") from None
