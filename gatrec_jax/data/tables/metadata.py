"""Loads the user's own table of items: titles, genres and other fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatrec_jax.data.tables import row_reader as rows
from gatrec_jax.data.tables.source import open_source
from gatrec_jax.errors import InputError


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
  source = open_source(Path(path).expanduser())
  path = source.path
  names = rows.column_names(source)
  if "item_id" not in names:
    raise InputError(f"{path}: has no column 'item_id'; it has {', '.join(names)}")
  bad, ids = rows.BadRows(path, max_bad_share), rows.IdParser(path, "item_id")
  metadata: dict[str, dict[str, Any]] = {}
  repeated = 0
  for line, row in rows.read_rows(source, bad):
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
