"""The data stage of a run folder: interactions, split into parts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.schema import DataConfig
from gatrec_jax.data.datasets import DATASETS, load_dataset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Dataset, Interactions, distinct
from gatrec_jax.data.meaning import Reading
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.protocols import PROTOCOLS, apply_protocol, protocol_split
from gatrec_jax.data.split_draws import Split
from gatrec_jax.data.splits import DIVISIBLE, split_interactions
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.shards import shard_files
from gatrec_jax.data.tables.source import TableOptions
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.peers import ALONE, Peers, Processes, any_of, common_folder

OUTPUTS = ("interactions.parquet", "users.parquet", "items.jsonl")
_UNSAID = ("understood", "feedback", "content")  # facts that have a line of their own
_FORMAT = 2  # raised when the stage's files change their form, so that old ones are made again


def prepare(data: DataConfig, workdir: pathlib.Path, *, log: Log) -> Prepared:
  """Reads and splits the interactions, or reads them from the run folder if nothing changed.

  Several processes read a data set of Parquet files together (`peers_of`).

  Args: workdir: the run folder; of several processes, the own one of each (`own_folder`).
  Raises:
    InputError: files missing or unreadable, wrong fold, empty part.
  """
  with peers_of(data, workdir) as peers:
    return _prepare(data, workdir, peers=peers, log=log)


def _prepare(data: DataConfig, workdir: pathlib.Path, *, peers: Peers, log: Log) -> Prepared:
  paths = [data.item_metadata, data.valid_file, data.test_file]
  if data.dataset not in DATASETS and os.path.exists(user_path(data.dataset)):
    paths.append(data.dataset)
  settings = {k: v for k, v in dataclasses.asdict(data).items() if k != "data_dir"}
  inputs = runs.digest(_FORMAT, settings, [_digest_of(p, peers) for p in paths])
  runs.require_same_origin(workdir, "data", inputs)
  folder = workdir / "data"
  if peers.count > 1:
    # Where one process has to make it, all do.
    kept = runs.is_made(folder, inputs=inputs, outputs=OUTPUTS)
    if any_of(peers, not kept):
      (folder / runs.MANIFEST).unlink(missing_ok=True)
  runs.stage(
    folder,
    name="data",
    inputs=inputs,
    log=log,
    outputs=OUTPUTS,
    make=lambda: write_prepared(folder, prepared_in_memory(data, peers=peers)),
  )
  prepared = load_prepared(workdir)
  runs.require_same_origin(workdir, "contents of the data files", prepared.facts["content"])
  for line in prepared.sentences:
    log.info(f"data: {line}")
  if prepared.sentences and len(prepared.split.test):
    log.info(
      f"data: the {len(prepared.split.test)} ratings of the test part are held out, so lists may "
      "hold their items; split=none trains on all ratings"
    )
  log.info("data: " + ", ".join(f"{k} {v}" for k, v in prepared.facts.items() if k not in _UNSAID))
  return prepared


@contextlib.contextmanager
def peers_of(data: DataConfig, workdir: pathlib.Path) -> Iterator[Peers]:
  """The processes that read the data together: those of `jax.distributed`, for a data set of
  Parquet files and a split that they can draw together; else each reads everything itself.

  Args: workdir: of `own_folder`.
  """
  path = user_path(data.dataset)
  together = (
    jax.process_count() > 1
    and data.dataset not in DATASETS
    and (os.path.isdir(path) or path.suffix == ".parquet")
    and not data.test_file
    and data.split in DIVISIBLE
  )
  if not together:
    yield ALONE
    return
  peers = Processes(common_folder(workdir) / "processes" / "data")
  yield peers
  peers.close()  # not after an error, which the others may not have


def _digest_of(path: str, peers: Peers) -> str | list[str]:
  """A hash of the file's bytes; of a folder, one for each of its Parquet files, in their order.

  Each of several processes reads some of the files.
  """
  import pyarrow as pa

  folder = user_path(path)
  if not path or not os.path.isdir(folder):
    return runs.file_digest(folder if path else "")
  files, own, error = shard_files(folder), [], None
  try:
    own = [runs.file_digest(file) for file in files[peers.index :: peers.count]]
  except InputError as found:
    error = found
  peers.raise_together(error)
  tables = peers.gather(pa.table({"digest": pa.array(own, pa.string())}))
  digests = [table["digest"].to_pylist() for table in tables]
  return [digests[place % peers.count][place // peers.count] for place in range(len(files))]


def prepared_in_memory(data: DataConfig, *, peers: Peers = ALONE) -> Prepared:
  """The split data, without a run folder; for evaluating other tools' lists.

  Args: peers: processes that make them together. Each reads and divides the rows of some users,
    then gets the result whole, which takes 21 bytes a row.
  """
  kind = data.split_kind
  dataset = load_dataset(
    data.dataset,
    data_dir=data.data_dir,
    fold="" if kind == "kfold" else data.fold,
    columns=columns_of(data),
    reading=reading_of(data),
    options=options_of(data),
    time_format=data.time_format,
    valid_file=data.valid_file,
    test_file=data.test_file,
    item_metadata=data.item_metadata,
    item_noun=data.item_noun,
    max_bad_share=data.max_bad_share,
    peers=peers,
  )
  if kind in PROTOCOLS:
    return _by_protocol(dataset, kind, data.split_seed)
  split = split_interactions(
    dataset.interactions,
    kind=kind,
    test_share=data.test_share,
    split_seed=data.split_seed,
    valid_share=data.valid_share,
    valid_seed=data.valid_seed,
    fold=data.fold,
    test_rows=dataset.test_rows,
    valid_rows=dataset.valid_rows,
    peers=ALONE if dataset.position is None else peers,
  )
  if dataset.position is not None:
    dataset, split = _of_all(dataset, split, peers)
  return _prepared(dataset, split, _feedback(data, dataset))


def _of_all(dataset: Dataset, split: Split, peers: Peers) -> tuple[Dataset, Split]:
  """The rows of all processes, in the order of the files, with their parts."""
  import pyarrow as pa
  import pyarrow.compute as pc

  rows = dataset.interactions
  columns = {**_columns(rows, split), "position": dataset.position}
  tables = peers.gather(pa.table(columns))
  taken = np.zeros(max(pc.max(one["position"]).as_py() or 0 for one in tables) + 1, bool)
  for one in tables:
    taken[one["position"].to_numpy()] = True
  # Positions leave out rows that were merged into others.
  place = np.cumsum(taken, dtype=np.int64) - 1
  del columns["position"]
  every = {name: np.empty(place[-1] + 1, column.dtype) for name, column in columns.items()}
  for one in tables:
    own = place[one["position"].to_numpy()]
    for name, column in every.items():
      column[own] = one[name].to_numpy()
  part = every.pop("part")
  rows = dataclasses.replace(rows, **every)
  return dataclasses.replace(dataset, interactions=rows, position=None), _split_of(part)


def _columns(rows: Interactions, split: Split) -> dict[str, np.ndarray]:
  """The columns of the rows, and their part: 0 for training, 1 for validation, 2 for test."""
  part = np.zeros(len(rows), np.int8)
  part[split.valid], part[split.test] = 1, 2
  return {
    "user": rows.user,
    "item": rows.item,
    "rating": rows.rating,
    "timestamp": rows.timestamp,
    "part": part,
  }


def _split_of(part: np.ndarray) -> Split:
  return Split(*(np.flatnonzero(part == number) for number in (0, 1, 2)))


def columns_of(data: DataConfig) -> Columns:
  """The names of the columns of the user's table."""
  return Columns(
    data.user_column, data.item_column, data.rating_column, data.time_column, data.event_column
  )


def _listed(text: str) -> list[str]:
  return [part.strip() for part in text.split(",") if part.strip()]


def options_of(data: DataConfig) -> TableOptions:
  """Separator, encoding and names of the user's table."""
  return TableOptions(data.separator, data.encoding, tuple(_listed(data.columns)))


def reading_of(data: DataConfig) -> Reading:
  """What the user says about the values of the table. Raises InputError: unreadable weights."""
  weights = []
  for part in _listed(data.event_weights):
    name, colon, number = part.rpartition(":")
    try:
      weights.append((name.strip(), float(number)))
    except ValueError:
      colon = ""
    if not colon or not name.strip():
      raise InputError(
        "write view:1,cart:3,purchase:5", field="event_weights", value=data.event_weights
      )
  return Reading(
    kind=data.feedback,
    positive_threshold=data.positive_threshold,
    negative_threshold=data.negative_threshold,
    zeros_are_ratings=data.zero_means == "rating",
    duplicates=data.duplicates,
    event_weights=tuple(weights),
  )


def reading_of_more(data: DataConfig, feedback: Feedback) -> Reading:
  """How further rows of a run's data are read: as the first ones were, however few they are."""
  return dataclasses.replace(
    reading_of(data),
    kind=feedback.kind,
    is_of_run=True,
    positive_threshold=feedback.positive_threshold if feedback.kind == "stars" else None,
    negative_threshold=feedback.negative_threshold if feedback.kind == "stars" else None,
  )


def _by_protocol(dataset: Dataset, name: str, split_seed: int) -> Prepared:
  """The split data of a named protocol, which also defines feedback and validation part."""
  protocol = PROTOCOLS[name]
  dataset = apply_protocol(dataset, protocol)
  split = protocol_split(dataset.interactions, protocol, split_seed)
  return _prepared(dataset, split, protocol.feedback)


def _prepared(dataset: Dataset, split: Split, feedback: Feedback) -> Prepared:
  return Prepared(
    dataset.interactions,
    split,
    dataset.item_fields,
    feedback,
    dict(dataset.notes),
    dataset.sentences,
    dataset.item_noun,
  )


def load_prepared(workdir: pathlib.Path) -> Prepared:
  """Reads what `prepare` wrote. Raises InputError where it is missing or damaged."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  folder = workdir / "data"
  facts = runs.facts_of_stage(folder, *OUTPUTS)["facts"]
  try:
    table = pq.read_table(folder / "interactions.parquet")
    user_ids = tuple(pq.read_table(folder / "users.parquet")["user_id"].to_pylist())
    lines = (folder / "items.jsonl").read_text("utf-8").rstrip("\n").split("\n")
  except (OSError, pa.ArrowInvalid) as error:
    raise InputError(f"{folder}: damaged ({error}); delete that folder and run again") from None
  items = [json.loads(line) for line in lines]
  item_ids = tuple(item.pop("item_id") for item in items)
  column = {name: table[name].to_numpy() for name in table.column_names}
  part = column.pop("part")
  return Prepared(
    interactions=Interactions(user_ids=user_ids, item_ids=item_ids, **column),
    split=_split_of(part),
    item_fields=items,
    feedback=Feedback(facts["positive_threshold"], facts["negative_threshold"], facts["feedback"]),
    facts=facts,
    sentences=tuple(facts["understood"]),
    item_noun=facts["item_noun"],
  )


def _content_digest(prepared: Prepared) -> str:
  """A hash of all interactions, what they mean, their parts and the items' fields."""
  rows, split = prepared.interactions, prepared.split
  arrays = (rows.user, rows.item, rows.rating, rows.timestamp, split.valid, split.test)
  return runs.digest(
    dataclasses.astuple(prepared.feedback),
    list(rows.user_ids),
    list(rows.item_ids),
    [dict(fields) for fields in prepared.item_fields],
    *(np.ascontiguousarray(array).tobytes() for array in arrays),
  )


def _feedback(data: DataConfig, dataset: Dataset) -> Feedback:
  """What the ratings mean; of a published data set, with the thresholds that the user gave."""
  known, given = dataset.feedback, (data.positive_threshold, data.negative_threshold)
  if known.kind != "stars" or given == (None, None):
    return known
  high, low = given
  return dataclasses.replace(
    known,
    positive_threshold=known.positive_threshold if high is None else high,
    negative_threshold=known.negative_threshold if low is None else low,
  )


def write_prepared(folder: pathlib.Path, prepared: Prepared) -> dict[str, Any]:
  """Writes `OUTPUTS`, each whole or not at all. Returns: the facts for the manifest."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  rows, split = prepared.interactions, prepared.split
  with runs.atomic_path(folder / "interactions.parquet") as path:
    pq.write_table(pa.table(_columns(rows, split)), path)
  with runs.atomic_path(folder / "users.parquet") as path:
    pq.write_table(pa.table({"user_id": pa.array(rows.user_ids, pa.string())}), path)
  with runs.atomic_path(folder / "items.jsonl") as path, open(path, "w", encoding="utf-8") as out:
    for item_id, fields in zip(rows.item_ids, prepared.item_fields, strict=True):
      out.write(json.dumps({**fields, "item_id": item_id}, ensure_ascii=False) + "\n")
  return {
    "users": rows.num_users,
    "items": rows.num_items,
    "ratings": len(rows),
    "train": len(split.train),
    "valid": len(split.valid),
    "test": len(split.test),
    "users without training ratings": rows.num_users - len(distinct(rows.user[split.train])),
    "items without training ratings": rows.num_items - len(distinct(rows.item[split.train])),
    "positive_threshold": prepared.feedback.positive_threshold,
    "negative_threshold": prepared.feedback.negative_threshold,
    "feedback": prepared.feedback.kind,
    "understood": list(prepared.sentences),
    "item_noun": prepared.item_noun,
    "content": _content_digest(prepared),
    **{k: v for k, v in prepared.facts.items() if v},
  }
