"""Files of recommendation lists (user_id, item_id, rank), written by this or any other tool."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.columns import index_column, read_columns
from gatrec_jax.runs.paths import user_path

if TYPE_CHECKING:
  import pyarrow as pa

_COLUMNS = ("user_id", "item_id", "rank")
_LARGEST_RANK = 2**53  # from there on, floats do not tell whole numbers apart
_RUN = b"gatrec_run"  # in a Parquet file's schema: the folder of the run that made the lists


def read_recommendations(
  path: str | os.PathLike[str], *, user_ids: Sequence[str], item_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a CSV, TSV, Parquet or JSONL file with the columns user_id, item_id, rank.

  A user's items are ordered by ascending rank; ranks may start anywhere and have gaps. Other
  columns are ignored.

  Args: user_ids: [U] and item_ids: [I] raw ids, whose positions are the indices.
  Returns: users [m] int32 ascending; items [m, L] int32, L the longest list, −1 after shorter ones.

  Raises:
    DamagedFile: a run's own file that is not what was written.
    InputError: a file that cannot be read or has no rows or lacks a column; an unknown id; a rank
      that is missing or no whole number; a rank or an item twice for one user. Rows are counted
      from 1 without the header.

  >>> import tempfile
  >>> path = f"{tempfile.mkdtemp()}/lists.parquet"
  >>> ids = {"user_ids": ["ann", "bob"], "item_ids": ["7", "9"]}
  >>> users, items, scores = np.array([1]), np.array([[1, 0]]), np.array([[0.5, 0.25]])
  >>> write_recommendations(path, users=users, items=items, scores=scores, **ids)
  >>> users, items = read_recommendations(path, **ids)
  >>> users.tolist(), items.tolist()
  ([1], [[1, 0]])
  """
  path = user_path(path)
  runs.require_written(path)
  table = read_columns(path, _COLUMNS, what="recommendations")
  users = _indices(table["user_id"], user_ids, path, "user_id", "users")
  items = _indices(table["item_id"], item_ids, path, "item_id", "items")
  ranks = _whole_ranks(table["rank"], path)
  _refuse_repeats(users, items, path, user_ids, lambda item: f"item_id {item_ids[item]}")
  _refuse_repeats(users, ranks, path, user_ids, lambda rank: f"rank {rank}")

  order = np.lexsort((ranks, users))
  users, items = users[order], items[order]
  names, starts, counts = np.unique(users, return_index=True, return_counts=True)
  lists = np.full((len(names), counts.max()), -1, np.int32)
  lists[
    np.repeat(np.arange(len(names)), counts), np.arange(len(users)) - np.repeat(starts, counts)
  ] = items
  return names.astype(np.int32), lists


def metadata_of_run(workdir: pathlib.Path) -> dict[bytes, bytes]:
  """The metadata by which `run_of_lists` finds a run, for the schema of a Parquet file."""
  return {_RUN: os.fsencode(workdir.absolute())}


def run_of_lists(path: str | os.PathLike[str]) -> pathlib.Path | None:
  """The folder of the run that made a file of lists, or None if the file does not say.

  It is the folder that contains the file, or the one that its Parquet schema names.

  Raises: InputError: the Parquet schema names a folder that is not there.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  path = user_path(path)
  for folder in path.absolute().parents:
    if (folder / "config.json").is_file() and (folder / "data").is_dir():
      return folder
  if path.suffix != ".parquet" or not path.is_file():
    return None
  try:
    named = (pq.read_schema(path).metadata or {}).get(_RUN)
  except (pa.ArrowInvalid, OSError, UnicodeDecodeError):
    return None  # reading its rows says what is wrong
  if named is None:
    return None
  folder = pathlib.Path(os.fsdecode(named))
  if not (folder / "config.json").is_file():
    raise InputError(f"{path}: made by the run {folder}, which is not there; give its `workdir`")
  return folder


def write_recommendations(
  path: str | os.PathLike[str],
  *,
  users: np.ndarray,
  items: np.ndarray,
  scores: np.ndarray,
  user_ids: Sequence[str],
  item_ids: Sequence[str],
  more: Mapping[str, np.ndarray] | None = None,
) -> None:
  """Writes lists as Parquet: user_id, item_id, rank (from 1), score; whole or not at all.

  Ids are written as integers where every id of the vocabulary is one, else as strings.

  Args: users: [m] int32. items: [m, L] int32, −1 = none. scores: [m, L] float32.
    more: further columns by name, [m, L] float.

  >>> import tempfile
  >>> path = f"{tempfile.mkdtemp()}/lists.parquet"
  >>> ids = {"user_ids": ["ann", "bob"], "item_ids": ["7", "9"]}
  >>> users, items, scores = np.array([1]), np.array([[1, 0]]), np.array([[0.5, 0.25]])
  >>> write_recommendations(path, users=users, items=items, scores=scores, **ids)
  >>> users, items = read_recommendations(path, **ids)
  >>> users.tolist(), items.tolist()
  ([1], [[1, 0]])
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  row, column = np.nonzero(np.asarray(items) >= 0)
  table = pa.table(
    {
      "user_id": _raw_ids(user_ids)[np.asarray(users)[row]],
      "item_id": _raw_ids(item_ids)[np.asarray(items)[row, column]],
      "rank": (column + 1).astype(np.int32),
      "score": np.asarray(scores, np.float32)[row, column],
      **{
        name: np.asarray(values, np.float32)[row, column] for name, values in (more or {}).items()
      },
    }
  )
  path = user_path(path)
  try:
    with runs.atomic_path(path) as temporary:
      pq.write_table(table, temporary, write_page_checksum=True)
  except OSError as error:
    raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _indices(
  column: pa.Array, vocabulary: Sequence[str], path: pathlib.Path, name: str, what: str
) -> np.ndarray:
  found = index_column(column, vocabulary)
  unknown = found < 0
  if unknown.any():
    row = int(np.flatnonzero(unknown)[0])
    value = column[row].as_py()
    given = f"{name} is empty" if value in (None, "") else f"{name} {value} is unknown"
    raise InputError(
      f"{path}: row {row + 1}: {given} ({unknown.sum()} such rows); "
      f"the dataset has {len(vocabulary)} {what}"
    )
  return found


def _whole_ranks(column: pa.Array, path: pathlib.Path) -> np.ndarray:
  import pyarrow as pa

  try:
    ranks = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
  except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
    ranks = np.array([_number_or_nan(value) for value in column.to_pylist()])
  bad = ~(np.abs(ranks) < _LARGEST_RANK) | (ranks != np.floor(ranks))
  if bad.any():
    row = int(np.flatnonzero(bad)[0])
    raise InputError(
      f"{path}: row {row + 1}: rank {column[row].as_py()!r} is not a whole number (1, 2, …)"
    )
  return ranks.astype(np.int64)


def _number_or_nan(value: object) -> float:
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    return np.nan


def _refuse_repeats(
  users: np.ndarray,
  values: np.ndarray,
  path: pathlib.Path,
  user_ids: Sequence[str],
  name: Callable[[int], str],
) -> None:
  order = np.lexsort((values, users))
  repeated = (np.diff(users[order]) == 0) & (np.diff(values[order]) == 0)
  if repeated.any():
    row = order[1:][repeated].min()
    raise InputError(
      f"{path}: row {row + 1}: {name(values[row])} appears twice for user {user_ids[users[row]]}"
    )


def _raw_ids(ids: Sequence[str]) -> np.ndarray:
  if all(len(text) < 19 and text.isdecimal() and str(int(text)) == text for text in ids):
    return np.array([int(text) for text in ids], np.int64)
  return np.array(ids, object)
