"""Lists and vectors of a run as files for other tools."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.serve.recommendations import Recommendations
from gatrec_jax.serve.run import Run


def export_embeddings(run: Run, path: str | os.PathLike[str]) -> None:
  """Writes `users.npy`, `items.npy` ([n, D] float32) and their ids (`users.txt`, `items.txt`, one
  a line, same order) to a folder; a dot product scores, so an inner-product ANN index serves.

  Raises: InputError where the model scores without vectors.
  """
  interactions = run.prepared.interactions
  parts = (
    ("users", run.user_vectors, interactions.user_ids),
    ("items", run.item_vectors, interactions.item_ids),
  )
  folder = runs.open_workdir(path)
  for name, vectors, ids in parts:
    with runs.atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as out:
      np.save(out, np.asarray(vectors, np.float32), allow_pickle=False)
    with runs.atomic_path(folder / f"{name}.txt") as temporary:
      temporary.write_text("\n".join(ids) + "\n", "utf-8")


def write_lists(path: pathlib.Path, lists: Recommendations) -> None:
  """Writes lists as .parquet, .csv or .jsonl with user_id, item_id, rank, title, score a row.

  Raises:
    InputError: another file type.
  """
  import pyarrow as pa
  import pyarrow.csv
  import pyarrow.parquet

  if path.suffix not in (".parquet", ".csv", ".jsonl"):
    raise InputError("must end in .parquet, .csv or .jsonl", field="out", value=path)
  rows = [
    {"user_id": user, "item_id": item, "rank": rank, "title": title, "score": score}
    for user, items, titles, scores in zip(
      lists.users, lists.items, lists.titles, lists.scores, strict=True
    )
    for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1)
  ]
  with runs.atomic_path(path) as temporary:
    if path.suffix == ".jsonl":
      lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
      temporary.write_text("".join(lines), "utf-8")
    elif path.suffix == ".csv":
      pyarrow.csv.write_csv(pa.Table.from_pylist(rows), temporary)
    else:
      pyarrow.parquet.write_table(pa.Table.from_pylist(rows), temporary)
