"""The columns of a table of interactions as they were read, before anything is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class RawColumns:
  """R rows of a table of interactions.

  Attributes:
    user, item: [R] dictionary-encoded raw ids, text or whole numbers.
    value: [R] float64, ratings or counts; None without such a column.
    event: [R] dictionary-encoded text, kinds of events; None without such a column.
    time: [R] int64, seconds since 1970; None without times.
    value_name, event_name: the columns that these are from; "" without.
    item_name: the column that the items are from; "" for frames.
    is_true_or_false: the values are truth values, so that 0 is a dislike.
    remarks: what was assumed, for the user.
  """

  user: pa.ChunkedArray
  item: pa.ChunkedArray
  value: np.ndarray | None
  event: pa.ChunkedArray | None
  time: np.ndarray | None
  value_name: str = ""
  event_name: str = ""
  is_true_or_false: bool = False
  remarks: tuple[str, ...] = ()
  item_name: str = ""

  def __len__(self) -> int:
    return len(self.user)

  def take(self, kept: np.ndarray) -> RawColumns:
    """The rows where `kept` [R] bool; dictionaries stay as they are."""
    return dataclasses.replace(
      self,
      user=_filtered(self.user, kept),
      item=_filtered(self.item, kept),
      value=None if self.value is None else self.value[kept],
      event=None if self.event is None else _filtered(self.event, kept),
      time=None if self.time is None else self.time[kept],
    )


def _filtered(column: pa.ChunkedArray, kept: np.ndarray) -> pa.ChunkedArray:
  """In one chunk: where no row is left, `ChunkedArray.filter` would drop the dictionary too."""
  import pyarrow as pa

  whole = column.unify_dictionaries().combine_chunks()
  return pa.chunked_array([whole.filter(pa.array(kept))])


def joined(parts: Sequence[RawColumns]) -> RawColumns:
  """The rows of several files one after the other; a column counts where every file has it."""
  if len(parts) == 1:
    return parts[0]
  first = parts[0]
  return dataclasses.replace(
    first,
    user=_joined_ids([part.user for part in parts]),
    item=_joined_ids([part.item for part in parts]),
    value=_joined_numbers([part.value for part in parts]),
    event=_joined_ids([part.event for part in parts]),
    time=_joined_numbers([part.time for part in parts]),
  )


def _joined_numbers(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
  return None if any(column is None for column in columns) else np.concatenate(columns)


def _joined_ids(columns: Sequence[pa.ChunkedArray | None]) -> pa.ChunkedArray | None:
  import pyarrow as pa

  if any(column is None for column in columns):
    return None
  text = pa.dictionary(pa.int32(), pa.string())
  chunks = [
    chunk.dictionary_decode().cast(pa.string()).dictionary_encode().cast(text)
    if pa.types.is_dictionary(chunk.type)
    else chunk.cast(pa.string()).dictionary_encode().cast(text)
    for column in columns
    for chunk in pa.chunked_array(column).chunks
  ]
  return pa.chunked_array(chunks, type=text).unify_dictionaries()
