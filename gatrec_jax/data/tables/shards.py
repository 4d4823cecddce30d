"""Reads Parquet row group by row group: a file, or a data set of many files in a folder (Spark's
`part-*.parquet`).

What stays in memory are numbers: a code for each id, and the values and times in the type that the
file has. Of the texts of ids only the distinct ones stay, in one Arrow dictionary that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np

from gatrec_jax.data.tables.files import parquet_input, readable, require_memory_for
from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa
  import pyarrow.parquet as parquet

_Found = TypeVar("_Found")
_BATCH = 1 << 20  # rows that are decoded at a time; no row group is held in one piece
_PENDING = 1 << 20  # entries of dictionaries that wait for being merged


def shard_files(folder: Path) -> tuple[Path, ...]:
  """The Parquet files of a data set, in the order of their paths within the folder.

  Folders inside belong to it. Names that begin with `_` or `.` do not: jobs of Spark and Hadoop
  keep their own files under such names.

  Raises: InputError: there are none.
  """
  found = []
  for path in folder.rglob("*"):
    inside = path.relative_to(folder)
    if any(part.startswith(("_", ".")) for part in inside.parts):
      continue
    if path.suffix.lower() == ".parquet" and path.is_file():
      found.append((inside.as_posix(), path))
  if not found:
    raise InputError(
      f"{folder}: is a folder without Parquet files (names ending in .parquet, not beginning with "
      "_ or .)"
    )
  return tuple(path for _, path in sorted(found))


def shard_names(files: Sequence[Path]) -> tuple[str, ...]:
  """The names of the columns, in the order of the first file.

  Raises: InputError: a file cannot be read, or has not the columns of the first one.
  """
  first = _schema(files[0]).names
  for path in files[1:]:
    names = _schema(path).names
    if sorted(names) != sorted(first):
      missing, more = sorted({*first} - {*names}), sorted({*names} - {*first})
      what = f"has no column {missing[0]!r}" if missing else f"has a column {(more or names)[0]!r}"
      raise InputError(
        f"{path}: {what}, unlike {files[0].name}; all files of a data set need the same columns"
      )
  return tuple(first)


def read_shards(
  path: Path,
  files: Sequence[Path],
  *,
  ids: Sequence[str],
  others: Sequence[str],
  part: tuple[int, int],
) -> pa.Table:
  """Some columns of all files, one after the other; or of a part of the rows.

  Args:
    path: of the whole, for messages. files: at least one.
    ids: columns of ids, which are returned dictionary-encoded: whole numbers as int64, text as
      large_string. others: further columns, returned in a type that holds those of all files.
    part: (k, n) for the row groups that begin in the k-th n-th of all rows. The parts follow each
      other.
  Raises:
    InputError: a file cannot be read, or the columns do not fit into memory.
    pyarrow.ArrowException: types that differ between files, or ids that are missing.
  """
  import pyarrow as pa
  import pyarrow.parquet as parquet

  names = list(dict.fromkeys((*ids, *others)))
  metadata = [_of_file(file, parquet.read_metadata) for file in files]
  groups = _groups_of_part(metadata, part)
  num_rows = sum(
    found.row_group(group).num_rows
    for found, own in zip(metadata, groups, strict=True)
    for group in own
  )
  # Equal values take no space in the file, but every row does in memory.
  require_memory_for(path, 8 * num_rows * len(names), what=f"its {num_rows:,} rows")
  schemas = [
    pa.schema([schema.field(name) for name in others if name not in ids])
    for schema in map(_schema, files)
  ]
  target = pa.unify_schemas(schemas, promote_options="permissive")
  encoders = {name: _Encoder(num_rows) for name in ids}
  chunks: dict[str, list[pa.Array]] = {name: [] for name in target.names}
  for file, own in zip(files, groups, strict=True):
    for batch in _batches(file, names, own):
      for name, encoder in encoders.items():
        encoder.add(batch.column(name))
      for name, parts in chunks.items():
        parts.append(batch.column(name).cast(target.field(name).type))
  columns = {name: encoder.column() for name, encoder in encoders.items()}
  for name, parts in chunks.items():
    columns[name] = pa.chunked_array(parts, type=target.field(name).type)
  return pa.table(columns)


class _Encoder:
  """A column of ids as codes, whose dictionary grows from batch to batch.

  Dictionaries of batches wait until they have as many entries as the one that they are merged into,
  so that an entry of it is hashed a few times in all, however many batches there are.
  """

  def __init__(self, num_rows: int) -> None:
    self._codes = np.empty(num_rows, np.int32)
    self._stop = 0
    self._known: pa.Array | None = None
    self._pending: list[tuple[int, pa.DictionaryArray]] = []
    self._entries = 0

  def add(self, column: pa.Array) -> None:
    """Appends a batch. Raises pyarrow.ArrowException where an id is missing or of another type."""
    import pyarrow as pa

    if column.null_count:
      raise pa.ArrowInvalid("an id is missing")
    encoded = _encoded(column)
    known = encoded.type.value_type if self._known is None else self._known.type
    if encoded.type.value_type != known:
      raise pa.ArrowTypeError(f"ids of {encoded.type.value_type} among ids of {known}")
    if self._known is None:
      self._known = encoded.dictionary.slice(0, 0)
    self._pending.append((self._stop, encoded))
    self._stop += len(encoded)
    self._entries += len(encoded.dictionary)
    if self._entries > max(_PENDING, len(self._known)):
      self._merge()

  def column(self) -> pa.ChunkedArray:
    """All of them, in one chunk."""
    import pyarrow as pa

    self._merge()
    known = pa.array([], pa.large_string()) if self._known is None else self._known
    codes = pa.array(self._codes[: self._stop])
    return pa.chunked_array([pa.DictionaryArray.from_arrays(codes, known)])

  def _merge(self) -> None:
    import pyarrow as pa

    if not self._pending:
      return
    # Unified dictionaries begin with the first one, so that earlier codes stay right.
    first = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self._known)
    unified = pa.chunked_array([first, *(encoded for _, encoded in self._pending)])
    unified = unified.unify_dictionaries()
    for (start, encoded), chunk in zip(self._pending, unified.chunks[1:], strict=True):
      self._codes[start : start + len(encoded)] = chunk.indices.to_numpy()
    self._known = unified.chunk(0).dictionary
    self._pending, self._entries = [], 0


def _encoded(column: pa.Array) -> pa.DictionaryArray:
  """Dictionary of int64 or large_string with int32 indices; other types as they are."""
  import pyarrow as pa

  indices = None
  if pa.types.is_dictionary(column.type):
    indices, column = column.indices, column.dictionary
  kind = column.type
  if pa.types.is_integer(kind) or pa.types.is_floating(kind):
    # Other tools convert whole numbers to floats if a row has none.
    column = column.cast(pa.int64())
  elif pa.types.is_string(kind) or pa.types.is_string_view(kind):
    column = column.cast(pa.large_string())
  if indices is None:
    return column.dictionary_encode()
  return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), column)


def _schema(path: Path) -> pa.Schema:
  import pyarrow.parquet as parquet

  return _of_file(path, parquet.read_schema)


def _of_file(path: Path, read: Callable[[Path | IO[bytes]], _Found]) -> _Found:
  with readable(path):
    return read(parquet_input(path))


def _groups_of_part(
  metadata: Sequence[parquet.FileMetaData], part: tuple[int, int]
) -> list[list[int]]:
  """The row groups of each file that belong to a part."""
  index, count = part
  total, before, found = sum(one.num_rows for one in metadata), 0, []
  for one in metadata:
    own = []
    for group in range(one.num_row_groups):
      if before * count // max(total, 1) == index:
        own.append(group)
      before += one.row_group(group).num_rows
    found.append(own)
  return found


def _batches(path: Path, names: Sequence[str], groups: list[int]) -> Iterator[pa.RecordBatch]:
  import pyarrow.parquet as parquet

  if not groups:
    return

  with readable(path), parquet.ParquetFile(parquet_input(path)) as file:
    yield from file.iter_batches(_BATCH, row_groups=groups, columns=list(names))
