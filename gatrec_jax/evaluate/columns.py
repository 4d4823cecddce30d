"""Columns of tables of ids (CSV, TSV, Parquet, JSONL), and cells that spreadsheets leave alone."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
# What a spreadsheet would execute; apostrophes before it count, so that escaping can be undone.
_EXECUTED = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_cell(text: str) -> str:
  """The text with a leading apostrophe where a spreadsheet would execute it; numbers stay.

  >>> escape_cell("=1+1"), escape_cell("-5"), unescape_cell(escape_cell("=1+1"))
  ("'=1+1", '-5', '=1+1')
  """
  return f"'{text}" if _EXECUTED.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_cell(text: str) -> str:
  """The inverse of `escape_cell`."""
  return text[1:] if text.startswith("'") and _EXECUTED.match(text[1:]) else text


def read_columns(path: pathlib.Path, names: Sequence[str], *, what: str) -> dict[str, pa.Array]:
  """Reads columns of a table; its other columns are ignored.

  Args:
    path: .parquet or .jsonl; anything else is read as CSV or, if its header has a tab, as TSV, in
      which cells escaped by `escape_cell` get their text back.
    names: of the columns. what: a row holds, for messages.
  Returns: columns by name, of strings except in Parquet.
  Raises: InputError: a file that cannot be read or has no rows, or lacks a column.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  if not path.is_file():
    raise InputError(f"{path}: no such file; give a CSV, TSV, Parquet or JSONL file of {what}")
  try:
    if path.suffix == ".parquet":
      there = pq.read_schema(path).names
      table = pq.read_table(path, columns=[name for name in names if name in there])
    elif path.suffix == ".jsonl":
      table = _read_json_lines(path, names)
    else:
      table = _read_text(path, names)
  # KeyError: a column twice. RecursionError: JSON that nests deeply.
  except (pa.ArrowException, KeyError, RecursionError, ValueError, OSError) as error:
    reason = str(error).splitlines()[0]
    raise InputError(f"{path}: cannot be read as a table of {what} ({reason})") from error
  missing = [name for name in names if name not in table.column_names]
  if missing:
    raise InputError(
      f"{path}: column {', '.join(missing)} is missing; the columns must be {', '.join(names)}"
    )
  if not table.num_rows:
    raise InputError(f"{path}: no rows; a row for each of the {what} is expected")
  return {name: _plain(table[name].combine_chunks(), name, path) for name in names}


def _plain(column: pa.Array, name: str, path: pathlib.Path) -> pa.Array:
  """The column if its values are numbers or texts; a dictionary of them is decoded."""
  import pyarrow as pa

  if isinstance(column, pa.ChunkedArray):  # what is left where chunks cannot be combined
    column = pa.concat_arrays(column.chunks)
  if pa.types.is_dictionary(column.type):
    column = column.dictionary_decode()
  kinds = ("integer", "floating", "string", "large_string", "string_view", "null")
  if not any(getattr(pa.types, f"is_{kind}")(column.type) for kind in kinds):
    raise InputError(f"{path}: column {name} holds {column.type}; numbers or texts are needed")
  return column


def _read_text(path: pathlib.Path, names: Sequence[str]) -> pa.Table:
  import pyarrow as pa
  import pyarrow.compute as pc
  import pyarrow.csv as csv

  with path.open(encoding="utf-8-sig") as file:
    header = file.readline()
  table = csv.read_csv(
    path,
    parse_options=csv.ParseOptions(
      delimiter="\t" if "\t" in header else ",", newlines_in_values=True
    ),
    # As strings, so that ids such as 007 and 1e3 are kept and bad ranks are found here.
    convert_options=csv.ConvertOptions(
      column_types={name: pa.string() for name in names},
      strings_can_be_null=True,
      quoted_strings_can_be_null=True,
    ),
  )
  escaped = f"^'({_EXECUTED.pattern})"
  return pa.table(
    {
      name: pc.replace_substring_regex(table[name], escaped, r"\1")
      for name in names
      if name in table.column_names
    }
  )


def _read_json_lines(path: pathlib.Path, names: Sequence[str]) -> pa.Table:
  import pyarrow as pa

  with path.open(encoding="utf-8-sig") as file:
    rows = [json.loads(line) for line in file if line.strip()]
  if not all(isinstance(row, dict) for row in rows):
    raise ValueError("a line is no JSON object")
  there = {name for row in rows for name in row} if rows else set(names)
  return pa.table(
    {name: _strings(_text(row.get(name)) for row in rows) for name in names if name in there}
  )


def _text(value: Any) -> str | None:
  is_whole = isinstance(value, float) and value.is_integer()
  return None if value is None else str(int(value) if is_whole else value)


def _strings(values: Any) -> pa.Array:
  import pyarrow as pa

  return pa.array(list(values), pa.string())


def index_column(column: pa.Array, vocabulary: Sequence[str]) -> np.ndarray:
  """[R] int64 positions of a column's ids in the vocabulary, −1 where they are not there."""
  import pyarrow as pa
  import pyarrow.compute as pc

  texts = column
  if pa.types.is_floating(column.type):
    # pandas converts integer ids to floats if one is missing.
    rounded = pc.floor(column)
    texts = pc.if_else(pc.equal(rounded, column), rounded.cast(pa.int64(), safe=False), None)
  if not pa.types.is_large_string(texts.type):
    texts = texts.cast(pa.string())
  found = pc.index_in(texts, value_set=pa.array(vocabulary, texts.type))
  return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
