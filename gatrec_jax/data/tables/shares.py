"""Reads a Parquet data set by several processes, each a part of its files.

Each process reads about the same number of rows, and passes them on to the process that has their
user. All rows of a user are then in one place, where repeated ones are merged and splits are drawn
without the other rows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax.data.split_draws import text_rank
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.fast_reader import Unclean, read_columns, read_table, witnesses_of_times
from gatrec_jax.data.tables.raw_columns import RawColumns
from gatrec_jax.data.tables.source import Source
from gatrec_jax.data.tables.times import style_of_numbers
from gatrec_jax.errors import InputError
from gatrec_jax.sharding.peers import Peers, any_of, place_of, sum_of

if TYPE_CHECKING:
  import pyarrow as pa


def read_share(
  source: Source, columns: Columns, peers: Peers
) -> tuple[RawColumns, np.ndarray] | None:
  """The rows of this process's users.

  Users go to processes in the order of their ids as text, so that each process has about the same
  number of rows.

  Args: columns: with "" for absent ones.
  Returns:
    The rows in the order of the files, and their places among all [R] int64. Ids and events are
    encoded by one dictionary in all processes. None, in all of them, where only the slow reader can
    read a row of any.
  Raises: InputError, in all of them, where one cannot read its part.
  """
  raw = _read_part(source, columns, peers)
  if raw is None:
    return None
  before, _ = place_of(peers, len(raw))
  columns_of_ids = [column for column in (raw.user, raw.item, raw.event) if column is not None]
  encoded = [_common(column, peers) for column in columns_of_ids]
  if any(one is None for one in encoded):
    return None
  (user, user_ids), (item, item_ids), *more = encoded
  event, events = more[0] if more else (None, None)
  numbers = {"user": user, "item": item, "value": raw.value, "event": event, "time": raw.time}
  numbers["position"] = before + np.arange(len(raw))
  present = {name: column for name, column in numbers.items() if column is not None}
  found = _to_owners(present, _owners(user, user_ids, peers), peers)
  share = dataclasses.replace(
    raw,
    user=_encoded(found["user"], user_ids),
    item=_encoded(found["item"], item_ids),
    value=found.get("value"),
    event=_encoded(found["event"], events) if events is not None else None,
    time=found.get("time"),
  )
  return share, found["position"]


def _read_part(source: Source, columns: Columns, peers: Peers) -> RawColumns | None:
  """The rows that this process reads; None, in all processes, where one finds something irregular.

  The style of times follows from the rows of all.
  """
  import pyarrow as pa

  table, error, raw = None, None, None
  try:
    table = read_table(source, columns, part=(peers.index, peers.count))
  except InputError as found:
    error = found
  peers.raise_together(error)
  seen = witnesses_of_times(table, columns).astype(np.float64)
  gathered = [one["number"].to_numpy() for one in peers.gather(pa.table({"number": seen}))]
  style = style_of_numbers(np.concatenate(gathered))
  try:
    if table is not None:
      raw = read_columns(table, columns, style=style)
  except Unclean:
    pass
  return None if any_of(peers, raw is None) else raw


def _common(column: pa.ChunkedArray, peers: Peers) -> tuple[np.ndarray, pa.Array] | None:
  """Codes [R] int32 in a dictionary of all processes, and that dictionary; None where they have ids
  of different types.
  """
  import pyarrow as pa
  import pyarrow.compute as pc

  encoded = column.combine_chunks()
  own = encoded.dictionary
  if not pa.types.is_integer(own.type):
    own = own.cast(pa.large_string())
  tables = [table for table in peers.gather(pa.table({"id": own})) if len(table)]
  if len({table.schema.field("id").type for table in tables}) > 1:
    return None
  known = pa.concat_tables(tables)["id"].combine_chunks() if tables else own
  common = pc.unique(known)
  if not len(own):
    return np.zeros(0, np.int32), common
  places = pc.index_in(own, value_set=common).to_numpy()
  return places[encoded.indices.to_numpy()], common


def _owners(user: np.ndarray, user_ids: pa.Array, peers: Peers) -> np.ndarray:
  """[U] int64, the process that has each user. Args: user: [R] int32 codes of the own rows."""
  rank = text_rank(tuple(str(one) for one in user_ids.to_pylist()))
  by_rank = np.zeros(len(rank), np.int64)
  by_rank[rank] = sum_of(peers, np.bincount(user, minlength=len(rank)))
  before = np.cumsum(by_rank) - by_rank
  return (before * peers.count // max(int(by_rank.sum()), 1))[rank]


def _to_owners(
  columns: dict[str, np.ndarray], owners: np.ndarray, peers: Peers
) -> dict[str, np.ndarray]:
  """The columns of the own users' rows, as all processes have read them, in their order."""
  import pyarrow as pa

  owner = owners[columns["user"]]
  order = np.argsort(owner, kind="stable")
  ends = np.searchsorted(owner[order], np.arange(peers.count + 1))
  parts = [order[ends[k] : ends[k + 1]] for k in range(peers.count)]
  received = peers.exchange(
    [pa.table({name: column[part] for name, column in columns.items()}) for part in parts]
  )
  return {name: np.concatenate([table[name].to_numpy() for table in received]) for name in columns}


def _encoded(codes: np.ndarray, dictionary: pa.Array) -> pa.ChunkedArray:
  import pyarrow as pa

  return pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(codes), dictionary)])
