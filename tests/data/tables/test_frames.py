"""Frames of other libraries, through either form of the Arrow interchange protocol."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.frames import interactions_from_frame
from gatrec_jax.errors import InputError

TABLE = pa.table(
  {
    "user_id": ["b", "a", "b", "a"],
    "item_id": [30, 7, 7, 7],
    "rating": [4.0, 2.5, 5.0, 3.0],
    "timestamp": [10, 20, 30, 40],
  }
)


class Stream:
  """A frame with the Arrow C stream alone, as polars, duckdb and pandas from 2.2 on."""

  def __init__(self, table):
    self.table = table

  def __arrow_c_stream__(self, requested_schema=None):
    return self.table.__arrow_c_stream__(requested_schema)


class Exchange:
  """A frame with the older DataFrame interchange protocol alone."""

  def __init__(self, table):
    self.table = table

  def __dataframe__(self, nan_as_null=False, allow_copy=True):
    return self.table.__dataframe__(nan_as_null, allow_copy)


@pytest.mark.parametrize("wrap", [lambda table: table, Stream, Exchange])
def test_every_protocol_gives_the_same(wrap):
  rows = interactions_from_frame(wrap(TABLE)).interactions
  assert rows.user_ids == ("a", "b") and rows.item_ids == ("7", "30")
  assert rows.user.tolist() == [1, 1, 0] and rows.item.tolist() == [1, 0, 0]
  assert rows.rating.tolist() == [4.0, 5.0, 3.0]  # of the pair that is there twice the latest
  assert rows.timestamp.tolist() == [10, 30, 40]
  assert rows.rating.dtype == np.float32 and rows.timestamp.dtype == np.int64


def test_ratings_and_times_may_be_missing_and_columns_have_any_name():
  frame = TABLE.select(["user_id", "item_id"]).rename_columns(["who", "what"])
  rows = interactions_from_frame(frame, columns=Columns(user="who", item="what")).interactions
  # The second pair is there twice.
  assert rows.rating.tolist() == [1.0, 1.0, 2.0] and rows.timestamp.tolist() == [0] * 3


def test_dates_categories_views_and_decimals():
  when = datetime.datetime(2020, 1, 2, 0, 0, 0, 500_000, tzinfo=datetime.UTC)
  frame = pa.table(
    {
      "user_id": pa.array(["x", "y"]).dictionary_encode(),
      "item_id": pa.array(["p", "q"], pa.string_view()),
      "rating": pa.array([decimal.Decimal("4.0"), decimal.Decimal("3.0")]),
      "timestamp": pa.array([when, when]),
    }
  )
  rows = interactions_from_frame(frame).interactions
  assert rows.user_ids == ("x", "y") and rows.item_ids == ("p", "q")
  assert rows.rating.tolist() == [4.0, 3.0]
  assert rows.timestamp.tolist() == [int(when.timestamp())] * 2


def with_column(name, values):
  return TABLE.set_column(TABLE.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
  ("frame", "message"),
  [
    ([[1, 2]], "frame=list: must support the Arrow"),
    (TABLE.drop(["item_id"]), "has no column 'item_id' .`item_column`.; it has user_id"),
    (with_column("user_id", ["a", None, "b", "c"]), "user id: missing in row 1"),
    (with_column("item_id", [1.5, 2, 3, 4]), "item id: not all are whole numbers"),
    (with_column("rating", [1, None, 2, 3]), "rating: nan in row 1"),
    (with_column("rating", list("1234")), "rating: type"),
    (with_column("timestamp", [0, 1, 2, 10**13]), "not milliseconds"),
    (with_column("timestamp", [None, *[datetime.date(2020, 1, 1)] * 3]), "time: missing in row 0"),
    (TABLE.slice(0, 0), "no interactions"),
  ],
)
def test_bad_frames_are_refused_in_a_line(frame, message):
  with pytest.raises(InputError, match=message) as caught:
    interactions_from_frame(frame)
  assert "\n" not in str(caught.value)


def test_a_frame_that_cannot_be_read_says_why():
  class Broken:
    def __arrow_c_stream__(self, requested_schema=None):
      raise ValueError("no memory left")

  with pytest.raises(InputError, match="cannot be read .*no memory left"):
    interactions_from_frame(Broken())
