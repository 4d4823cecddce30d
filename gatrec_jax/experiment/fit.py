"""From tables in memory to a trained run, in one call."""

from __future__ import annotations

import atexit
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.tables.frames import as_table
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.grid import train_alike
from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.runs.paths import user_path
from gatrec_jax.serve.run import Run, load_run


def fit(
  interactions: Any,
  *,
  items: Any = None,
  preset: str = "best",
  workdir: str | os.PathLike[str] | None = None,
  refit: bool = False,
  memory_limit: float | None = None,
  log: Log = CONSOLE,
  **settings: Any,
) -> Run:
  """Trains on a table in memory, as `launch.train` does on the same table in a file.

  A copy of the tables is kept in the run folder (`inputs/`), so that it is complete.

  Args:
    interactions: a DataFrame of any library that supports the Arrow interchange protocol, a mapping
      from names to columns, `Interactions`, or the path of a file. Columns are named and understood
      as those of files; `user_column=`, `feedback=`, … say otherwise.
    items: their metadata, likewise, or a sequence of mappings; None for none.
    preset: `best`, `paper`, `tiny` or a baseline such as `ease`.
    refit: after choosing the number of epochs, train again with the validation ratings.
    memory_limit: as in `train_and_evaluate`.
    workdir: the run folder; None = a temporary one, which is deleted when Python ends (see `save`).
    log: where lines for the user go; `SILENT` prints nothing.
    **settings: any setting, such as `seed=1`, `split="leave_last"` or `epochs=100`. A model for use
      learns from all ratings with `split="none"` and `refit`.
  Returns: the run; its test metrics are in `results.json` of its folder.
  Raises: InputError: anything wrong with tables or settings.

  >>> import gatrec_jax as g
  >>> table = {"user_id": list("aabbccdd") * 2, "item_id": [1, 2, 1, 3, 2, 3, 1, 4] + [5] * 8}
  >>> run = g.fit(table, preset="popularity", log=g.SILENT)
  >>> g.recommend(run, ["a"], top_n=2).users
  ['a']
  """
  if workdir is None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gatrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
  else:
    folder = runs.open_workdir(user_path(workdir))
  fields = {"dataset": _kept(interactions, folder, "interactions")}
  if items is not None:
    fields["item_metadata"] = _kept(items, folder, "items")
  config = with_fields(get_preset(preset, split=settings.get("split", "")), {**fields, **settings})
  try:
    if refit:
      train_alike(config, folder, refit=True, memory_limit=memory_limit, log=log)
      return load_run(folder)
    return train_and_evaluate(config, folder, memory_limit=memory_limit, log=log)[0]
  except InputError as error:
    # The user knows the table, not its copy.
    message = error.message
    for path in (folder / "inputs").glob("*.parquet"):
      message = message.replace(str(path), f"the table of {path.stem}")
    raise InputError(message, field=error.field, value=error.value) from None


def save(run: Run, path: str | os.PathLike[str]) -> None:
  """Copies the run folder to `path`, which must not exist; `load_run(path)` opens it.

  Raises: InputError: something is there already, it cannot be written, or the run was extended in
    memory (`with_new_ratings`), which its folder knows nothing of.
  """
  prepared = run.prepared
  if prepared.num_later or prepared.facts["ratings"] != len(prepared.interactions):
    raise InputError(
      "its new ratings, users and items are in memory alone; train with them", field="run"
    )
  target = user_path(path)
  if target.exists():
    raise InputError("exists already", field="path", value=path)
  temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run.workdir, temporary)
    temporary.rename(target)
  except (OSError, shutil.Error) as error:
    shutil.rmtree(temporary, ignore_errors=True)
    raise InputError(f"cannot be written ({error})", field="path", value=path) from None


def _kept(table: Any, folder: pathlib.Path, name: str) -> str:
  """The path of a file, or that of a copy of the table in the run folder."""
  if isinstance(table, str | os.PathLike):
    return str(table)
  import pyarrow.parquet as pq

  buffer = io.BytesIO()
  pq.write_table(_arrow(table), buffer)
  path = folder / "inputs" / f"{name}.parquet"
  if path.exists() and path.read_bytes() != buffer.getvalue() and runs.has_checkpoints(folder):
    raise InputError(
      "holds a run of another table; use another one, or delete it", field="workdir", value=folder
    )
  path.parent.mkdir(exist_ok=True)
  with runs.atomic_path(path) as temporary:
    temporary.write_bytes(buffer.getvalue())
  return str(path)


def _arrow(table: Any) -> Any:
  """The table as an Arrow table."""
  import pyarrow as pa

  if isinstance(table, Interactions):
    ids = [pa.array(vocabulary, pa.string()) for vocabulary in (table.user_ids, table.item_ids)]
    return pa.table(
      {
        "user_id": ids[0].take(pa.array(table.user)),
        "item_id": ids[1].take(pa.array(table.item)),
        "rating": table.rating,
        "timestamp": table.timestamp,
      }
    )
  if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
    return pa.Table.from_pylist(list(table))
  return as_table(table)
