"""Loads a data set by name or path: the demo, a MovieLens version, or the user's own table."""

from __future__ import annotations

import dataclasses
import difflib
import os

from gatrec_jax.data import movielens
from gatrec_jax.data.interactions import Dataset
from gatrec_jax.data.meaning import Reading
from gatrec_jax.data.nouns import FILM, noun_of_table
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.interaction_tables import InteractionTable, load_interactions
from gatrec_jax.data.tables.joining import join_items
from gatrec_jax.data.tables.metadata import ItemMetadata, load_item_metadata
from gatrec_jax.data.tables.source import SUFFIXES, TableOptions, has_known_suffix
from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.peers import ALONE, Peers

DATASETS = ("demo", *movielens.VERSIONS)


def load_dataset(
  dataset: str,
  *,
  data_dir: str = "",
  fold: str = "",
  columns: Columns = Columns(),  # noqa: B008 - frozen
  reading: Reading = Reading(),  # noqa: B008
  options: TableOptions = TableOptions(),  # noqa: B008
  time_format: str = "",
  valid_file: str = "",
  test_file: str = "",
  item_metadata: str = "",
  item_noun: str = "",
  max_bad_share: float = 0.01,
  seed: int = 0,
  peers: Peers = ALONE,
) -> Dataset:
  """Loads a data set, and adds the fields of `item_metadata` to its items.

  Fields of the metadata take precedence. Items that only the metadata contains are added to the
  catalog of the user's own table (cold items can be recommended), unless no item joins. A published
  catalog does not change, and they are counted in the notes.

  Args:
    dataset: "demo", one of the MovieLens versions, or a path to a table of interactions or to a
      folder of Parquet files, which together are one.
    data_dir: folder of the MovieLens archives.
    fold: of ml-100k; sets `test_rows`.
    columns, reading, options, time_format: of the user's table, see `load_interactions`.
    valid_file, test_file: further parts of the user's table, which set `valid_rows`, `test_rows`.
    item_metadata: path to a table of items; "" for none.
    item_noun: what an item is called; "" = as the names of columns and files say.
    max_bad_share: share of rows of the user's tables that may be unreadable.
    seed: of the demo.
    peers: processes that read the user's table together, as in `load_interactions`.

  Raises:
    InputError: an unknown name, a fold of another data set, or a problem with the files.
  """
  if dataset not in DATASETS and not _is_path(dataset):
    raise InputError(_unknown(dataset), field="dataset", value=dataset)
  if (valid_file or test_file) and not _is_path(dataset):
    raise InputError(
      f"{dataset} is not a file of yours; give the training part as `train_file`",
      field="test_file" if test_file else "valid_file",
      value=test_file or valid_file,
    )
  if valid_file and not test_file:
    raise InputError("needs `test_file` beside it", field="valid_file", value=valid_file)
  if fold and dataset not in movielens.VERSIONS:
    raise InputError(
      f"{dataset} has no shipped folds; leave the flag out", field="fold", value=fold
    )
  own, item_column = dataset not in DATASETS, columns.item
  if dataset == "demo":
    from gatrec_jax.data import synthetic

    found = synthetic.make_demo(seed=seed)
  elif not own:
    found = movielens.load_movielens(dataset, data_dir=data_dir, fold=fold)
  else:
    more = [file for file in (valid_file, test_file) if file]
    table = load_interactions(
      dataset,
      more=more,
      columns=columns,
      reading=reading,
      options=options,
      time_format=time_format,
      max_bad_share=max_bad_share,
      peers=peers,
    )
    item_column = table.item_column
    found = _data_set(dataset, table, valid_file=valid_file, test_file=test_file)
  metadata = ItemMetadata()
  if item_metadata:
    metadata = load_item_metadata(
      item_metadata, item_column=item_column, encoding=options.encoding, max_bad_share=max_bad_share
    )
  found = join_items(found, metadata, grows=own)
  noun = item_noun or (noun_of_table(dataset, item_column, metadata) if own else FILM)
  return dataclasses.replace(found, item_noun=noun)


def _data_set(dataset: str, table: InteractionTable, *, valid_file: str, test_file: str) -> Dataset:
  """The user's own table, of one file or several."""
  rows = table.interactions
  return Dataset(
    dataset,
    rows,
    [{}] * rows.num_items,
    test_rows=table.part == bool(valid_file) + 1 if test_file else None,
    valid_rows=table.part == 1 if valid_file else None,
    feedback=table.feedback,
    sentences=tuple(filter(None, (table.sentence, ", ".join(table.remarks)))),
    notes=table.notes,
    position=table.position,
  )


def _is_path(dataset: str) -> bool:
  path = user_path(dataset)
  return bool(dataset) and (has_known_suffix(path) or len(path.parts) > 1 or os.path.exists(path))


def _unknown(dataset: str) -> str:
  near = difflib.get_close_matches(dataset.lower(), DATASETS, n=1)
  hint = f" Did you mean {near[0]}?" if near else ""
  return (
    f"unknown.{hint} It is one of {', '.join(DATASETS)}, or a path to a"
    f" table ending in {', '.join(SUFFIXES)}, or to a folder of Parquet files"
  )
