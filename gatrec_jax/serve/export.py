"""Lists and vectors of a run as arrays and files for other tools."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.columns import escape_cell
from gatrec_jax.evaluate.files import metadata_of_run
from gatrec_jax.runs.paths import user_path
from gatrec_jax.serve.recommendations import Recommendations
from gatrec_jax.serve.run import Run

SUFFIXES = (".parquet", ".csv", ".jsonl")
_MOST_BYTES = 4 * 2**30
_CHUNK_VALUES = 2**24  # of users' vectors computed at a time: 64 MiB


class Embeddings(NamedTuple):
  """Vectors whose inner products are a run's scores.

  Attributes:
    users: [U, D] float32. items: [I, D] float32.
    user_ids, item_ids: [U] and [I] raw ids, in the same order.
  """

  users: np.ndarray
  items: np.ndarray
  user_ids: tuple[str, ...]
  item_ids: tuple[str, ...]


def export_embeddings(run: Run, path: str | os.PathLike[str] | None = None) -> Embeddings:
  """Vectors of users and items whose inner products are the scores, for an inner-product index.

  Models that score by vectors give their own. Others give longer ones whose inner products are the
  same scores: item–item models a user's history and an item's weights (width I), `best` the columns
  that models/gat/vectors.py lists (width D + I + a few hundred).

  Args:
    path: a folder for `users.npy`, `items.npy` and their ids (`users.txt`, `items.txt`, one a line,
      same order); None writes nothing.
  Raises: InputError: the vectors would take more than 4 GiB.
  """
  require_vectors(run)
  if run.recommender.scores_by == "vectors":
    users, items = (np.asarray(vectors, np.float32) for vectors in run.serving_state)
  else:
    of_users, of_items = _programs(run)
    items = np.asarray(of_items(run.serving_state))
    users = _in_chunks(of_users, run.serving_state, len(run.user_index), width=items.shape[1])
  ids = run.prepared.interactions
  found = Embeddings(users, items, ids.user_ids, ids.item_ids)
  if path is not None:
    _write_embeddings(runs.open_workdir(path), found)
  return found


def require_vectors(run: Run) -> None:
  """Raises InputError where the vectors of a run would be too large to export."""
  if run.recommender.scores_by == "vectors":
    return
  _, of_items = _programs(run)
  num_items, width = jax.eval_shape(of_items, run.serving_state).shape
  num_rows = len(run.user_index) + num_items
  if 4 * num_rows * width > _MOST_BYTES:
    raise InputError(
      f"{run.workdir}: {run.config.model.kind} scores by inner products of {width} numbers; for "
      f"{num_rows} users and items these take {4 * num_rows * width / 2**30:.1f} GiB, more than "
      f"{_MOST_BYTES // 2**30}; write lists of top items instead (`out`)"
    )


Program = Callable[..., jax.Array]


def _programs(run: Run) -> tuple[Program, Program]:
  """Compiled functions (serving state, users) -> [B, W] and (serving state) -> [I, W]."""
  recommender = run.recommender
  return jax.jit(recommender.vectors_of_users), jax.jit(recommender.vectors_of_items)


def _in_chunks(of_users: Program, state: Any, num_users: int, *, width: int) -> np.ndarray:
  """[U, W] vectors of all users, computed in equal chunks."""
  size = min(num_users, max(1, _CHUNK_VALUES // width))
  out = np.zeros((num_users, width), np.float32)
  for first in range(0, num_users, size):
    users = np.minimum(np.arange(first, first + size), num_users - 1).astype(np.int32)
    out[first : first + size] = of_users(state, users)[: num_users - first]
  return out


def _write_embeddings(folder: pathlib.Path, found: Embeddings) -> None:
  for name, vectors, ids in (
    ("users", found.users, found.user_ids),
    ("items", found.items, found.item_ids),
  ):
    with runs.atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as out:
      np.save(out, vectors, allow_pickle=False)
    with runs.atomic_path(folder / f"{name}.txt") as temporary:
      temporary.write_text("\n".join(ids) + "\n", "utf-8")


def write_lists(
  path: str | os.PathLike[str], lists: Recommendations, *, workdir: pathlib.Path | None = None
) -> None:
  """Writes lists as .parquet, .csv or .jsonl with user_id, item_id, rank, title, score a row.

  In CSV, cells that a spreadsheet would execute get an apostrophe (`evaluate.columns.escape_cell`),
  which `evaluate.read_recommendations` takes off.

  Args: workdir: the run that made them, kept in the metadata of a Parquet file, by which
    launch.evaluate finds it.
  Raises:
    InputError: another file type.
  """
  import pyarrow as pa
  import pyarrow.csv
  import pyarrow.parquet

  path = user_path(path)
  if path.suffix not in SUFFIXES:
    raise InputError(f"must end in {', '.join(SUFFIXES)}", field="out", value=path)
  rows = [
    {"user_id": user, "item_id": item, "rank": rank, "title": title, "score": score}
    for user, items, titles, scores in zip(
      lists.users, lists.items, lists.titles, lists.scores, strict=True
    )
    for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1)
  ]
  if path.suffix == ".csv":
    rows = [
      {k: escape_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
    ]
  columns = [(name, pa.string()) for name in ("user_id", "item_id")]
  columns += [("rank", pa.int64()), ("title", pa.string()), ("score", pa.float64())]
  metadata = None if workdir is None else metadata_of_run(workdir)
  table = pa.Table.from_pylist(rows, schema=pa.schema(columns, metadata=metadata))
  with runs.atomic_path(path) as temporary:
    if path.suffix == ".jsonl":
      lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
      temporary.write_text("".join(lines), "utf-8")
    elif path.suffix == ".csv":
      pyarrow.csv.write_csv(table, temporary)
    else:
      pyarrow.parquet.write_table(table, temporary)
