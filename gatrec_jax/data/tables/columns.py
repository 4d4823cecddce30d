"""Names of the columns of a table of interactions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gatrec_jax.errors import InputError


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
