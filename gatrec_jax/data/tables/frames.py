"""Interactions from a DataFrame of any library that supports the Arrow interchange protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data.interactions import Interactions, build_interactions
from gatrec_jax.data.tables.columns import Columns, present_columns
from gatrec_jax.data.tables.interaction_tables import seconds_of_dates
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


def interactions_from_frame(
  frame: Any,
  *,
  columns: Columns = Columns(),  # noqa: B008 - frozen
) -> Interactions:
  """Interactions from a DataFrame; of several rows with the same pair, the latest is kept.

  Args:
    frame: an object with `__arrow_c_stream__` or `__dataframe__`, such as a DataFrame of pandas or
      polars, or a pyarrow table; one row for each interaction.
    columns: their names; rating and time may be missing, as in `load_interactions`.
  Returns:
    The interactions; times are seconds since 1970, also where the column holds dates.
  Raises:
    InputError: another kind of object, a missing column, or as `build_interactions`.

  >>> import pyarrow as pa
  >>> frame = pa.table({"user_id": ["a", "b"], "item_id": [7, 9], "rating": [4.0, 2.5]})
  >>> rows = interactions_from_frame(frame)
  >>> rows.user_ids, rows.item.tolist(), rows.rating.tolist()
  (('a', 'b'), [0, 1], [4.0, 2.5])
  """
  table = _as_table(frame)
  columns = present_columns("the frame", columns, table.column_names)
  return build_interactions(
    _ids(table[columns.user]),
    _ids(table[columns.item]),
    _numbers(table[columns.rating]) if columns.rating else np.ones(len(table), np.float32),
    _seconds(table[columns.time]) if columns.time else np.zeros(len(table), np.int64),
    source="the frame",
  )[0]


def _as_table(frame: Any) -> pa.Table:
  import pyarrow as pa

  try:
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


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
  """[R] seconds since 1970; dates and timestamps are rounded down."""
  import pyarrow as pa

  if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
    return _numbers(column)
  if column.null_count:
    row = int(np.flatnonzero(column.is_null().to_numpy())[0])
    raise InputError(f"the frame: time: missing in row {row} (from 0)")
  return seconds_of_dates(column)
