"""Loads the user's own interactions from tables of any format, and finds out what they mean."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data.duplicates import merge_duplicates
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions, index_interactions, pair_keys
from gatrec_jax.data.meaning import Meaning, Reading, find_meaning, meaning_of_events, sentence
from gatrec_jax.data.tables import row_reader as rows
from gatrec_jax.data.tables.columns import COUNTS, Columns, bare, find_columns
from gatrec_jax.data.tables.fast_reader import Unclean, numeric_columns, read_columns, read_table
from gatrec_jax.data.tables.raw_columns import RawColumns, joined
from gatrec_jax.data.tables.shares import read_share
from gatrec_jax.data.tables.source import Source, TableOptions, open_source
from gatrec_jax.data.tables.times import TimeStyle, style_of
from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.peers import ALONE, Peers, any_of, sum_of

if TYPE_CHECKING:
  import pyarrow as pa

_SAMPLE = 2000


@dataclasses.dataclass(frozen=True)
class InteractionTable:
  """Interactions, and how they were understood.

  Attributes:
    interactions: a row for each (user, item).
    feedback: what their ratings mean.
    sentence: what was understood, in one line.
    remarks: assumptions, such as columns that were found under other names.
    notes: counts of merged and of unreadable rows, if there are any.
    part: [R] int8, the number of the file that each row is from.
    item_column: the column that the items are from; "" for frames.
    position: [R] int64, the places of the rows among those of all processes; None where they are
      all.
  """

  interactions: Interactions
  feedback: Feedback
  sentence: str
  remarks: tuple[str, ...]
  notes: Mapping[str, int]
  part: np.ndarray
  item_column: str = ""
  position: np.ndarray | None = None


def load_interactions(
  path: str | Path,
  *,
  columns: Columns = Columns(),  # noqa: B008 - frozen
  reading: Reading = Reading(),  # noqa: B008
  options: TableOptions = TableOptions(),  # noqa: B008
  time_format: str = "",
  max_bad_share: float = 0.01,
  more: Sequence[str | Path] = (),
  peers: Peers = ALONE,
) -> InteractionTable:
  """Loads a table of interactions, one per row, or one user and their items per line.

  Args:
    path: a file ending in .csv, .tsv, .txt, .dat, .inter, .parquet or .jsonl, and possibly in .gz,
      .bz2 or .zst after that; or a folder of Parquet files, read in the order of their paths. Text
      is UTF-8, with or without a byte-order mark.
    columns: their names.
    reading: what the values mean, where that is to be said.
    options: separator, encoding, names of columns.
    time_format: of `strptime`, for times that are neither numbers nor ISO-8601; "" = found out.
    max_bad_share: share of rows that may be unreadable; they are skipped with a warning.
    more: further files of the same kind, such as a validation and a test part. A pair that an
      earlier file holds is left out of the later ones.
    peers: processes that read the table together, which each get the rows of some users (see
      `shares`). Where only a slow reader can read it, or there are `more` files, each reads all.

  Raises:
    InputError: no such file or column, no rows, ids of mixed types, too many unreadable rows, or
      values that can be understood in two ways.
  """
  if peers.count > 1 and not more and (table := _share(path, columns, reading, peers, options)):
    return table
  found, remarks, notes = [], [], {}
  for file in (path, *more):
    bad = rows.BadRows(Path(file), max_bad_share)
    source = open_source(user_path(file), options)
    raw = _read_fast(source, columns, reading, time_format)
    if raw is None:
      raw = _read_slowly(source, columns, reading, time_format, bad)
    for note, count in bad.settle(len(raw)).items():
      notes[note] = notes.get(note, 0) + count
    if not len(raw):
      raise InputError(f"{source.path}: there are no interactions; at least one row is needed")
    remarks += [remark for remark in raw.remarks if remark not in remarks]
    found.append(raw)
  part = np.repeat(np.arange(len(found), dtype=np.int8), [len(raw) for raw in found])
  table = understand(joined(found), part, reading=reading, source=str(path))
  return dataclasses.replace(
    table, remarks=tuple(remarks), notes={**notes, **table.notes}, item_column=found[0].item_name
  )


def _share(
  path: str | Path, columns: Columns, reading: Reading, peers: Peers, options: TableOptions
) -> InteractionTable | None:
  """The part of the table that this process has; None where each process has to read all."""
  source = open_source(user_path(path), options)
  if source.format != "parquet":
    return None
  columns, remarks = _find_columns(source, columns, reading, source.names)
  found = read_share(source, columns, peers)
  if found is None:
    return None
  raw, position = found
  part = np.zeros(len(raw), np.int8)
  table = understand(raw, part, reading=reading, source=str(path), peers=peers, position=position)
  remarks = (*remarks, *raw.remarks)
  return dataclasses.replace(table, remarks=remarks, item_column=columns.item)


def understand(
  raw: RawColumns,
  part: np.ndarray,
  *,
  reading: Reading,
  source: str,
  peers: Peers = ALONE,
  position: np.ndarray | None = None,
) -> InteractionTable:
  """The interactions of raw columns, by what their values mean.

  Args:
    raw: R rows.
    part: [R] int8, the number of the file that each row is from.
    reading: as in `load_interactions`. source: for messages.
    peers: processes with the rows of other users, encoded by the same dictionaries. position: [R]
      int64, the places of the rows among all of them.
  Raises: InputError: as `load_interactions`.
  """
  indexed = _indexed(raw, source, peers)
  meaning = _meaning(raw, indexed, reading, source, peers)
  if not any_of(peers, meaning.kept.any()):
    raise InputError(f"{source}: every row says 'not rated'; at least one rating is needed")
  rating = meaning.rating
  if any_of(peers, not meaning.kept.all()):
    rating, part = rating[meaning.kept], part[meaning.kept]
    position = None if position is None else position[meaning.kept]
    # Users and items without any rating are not in the catalog.
    indexed = _indexed(raw.take(meaning.kept), source, peers)
  num_parts = int(part.max(initial=0)) + 1
  keys = pair_keys(indexed)
  kept, rating = merge_duplicates(
    keys * num_parts + part, indexed.timestamp, rating.astype(np.float32), rule=meaning.duplicates
  )
  interactions = dataclasses.replace(indexed, rating=rating)
  notes = {}
  merged = int(sum_of(peers, 0 if kept is None else len(interactions) - len(kept)))
  if merged:
    note = (
      "duplicate ratings dropped"
      if meaning.duplicates in ("last", "first")
      else "repeated rows merged"
    )
    notes[note] = merged
  if kept is not None:
    interactions, part = interactions.take(kept), part[kept]
    position = None if position is None else position[kept]
  if num_parts > 1:
    new = _not_in_earlier_parts(pair_keys(interactions), part, num_parts)
    if not new.all():
      notes["pairs of an earlier file left out"] = int((~new).sum())
      interactions, part = interactions.take(np.flatnonzero(new)), part[new]
  line = sentence(meaning, interactions.rating, merged, peers)
  return InteractionTable(interactions, meaning.feedback, line, (), notes, part, position=position)


def _indexed(raw: RawColumns, source: str, peers: Peers) -> Interactions:
  time = np.zeros(len(raw), np.int64) if raw.time is None else raw.time
  ones = np.ones(len(raw), np.float32)
  return index_interactions(raw.user, raw.item, ones, time, source=source, peers=peers)


def _meaning(
  raw: RawColumns, indexed: Interactions, reading: Reading, source: str, peers: Peers
) -> Meaning:
  try:
    if raw.event is not None:
      event = raw.event.combine_chunks()
      codes = event.indices.to_numpy(zero_copy_only=False)
      events = [str(value) for value in event.dictionary.to_pylist()]
      return meaning_of_events(codes, events, name=raw.event_name, reading=reading, peers=peers)
    if raw.is_true_or_false:
      reading = dataclasses.replace(reading, zeros_are_ratings=True)
    keys = np.sort(pair_keys(indexed)) if raw.value is None else np.zeros(0, np.int64)
    return find_meaning(
      raw.value,
      num_rows=len(raw),
      has_repeats=bool(any_of(peers, (keys[1:] == keys[:-1]).any())),
      name=raw.value_name,
      is_count_name=bare(raw.value_name) in COUNTS,
      reading=reading,
      peers=peers,
    )
  except InputError as error:
    raise InputError(f"{source}: {error.message}", field=error.field, value=error.value) from None


def _not_in_earlier_parts(keys: np.ndarray, part: np.ndarray, num_parts: int) -> np.ndarray:
  """[R] bool, rows whose pair is in no part with a smaller number."""
  new = np.ones(len(keys), bool)
  for number in range(1, num_parts):
    own = part == number
    new[own] = ~np.isin(keys[own], keys[part < number])
  return new


def _read_fast(
  source: Source, columns: Columns, reading: Reading, time_format: str
) -> RawColumns | None:
  """The columns, read by pyarrow; None if anything is irregular."""
  if time_format:
    return None
  found, remarks = None, []
  if source.format != "jsonl":
    found, remarks = _find_columns(source, columns, reading, source.names)
  table = read_table(source, found)
  if table is None:
    return None
  if found is None:
    numeric = numeric_columns(table)
    found, remarks = _named(source, columns, reading, table.column_names, numeric)
  try:
    raw = read_columns(table, found)
  except Unclean:
    return None
  return dataclasses.replace(raw, remarks=(*remarks, *raw.remarks), item_name=found.item)


def _find_columns(
  source: Source, columns: Columns, reading: Reading, names: Sequence[str]
) -> tuple[Columns, list[str]]:
  sample = rows.first_rows(source, _SAMPLE)
  return _named(source, columns, reading, names, _numeric_in(sample, names))


def _named(
  source: Source,
  columns: Columns,
  reading: Reading,
  names: Sequence[str],
  numeric: Mapping[str, str],
) -> tuple[Columns, list[str]]:
  return find_columns(str(source.path), columns, names, numeric=numeric, kind=reading.kind)


def _numeric_in(sample: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
  """The columns that hold a number in every row of a sample, each with its range."""
  found = {}
  for name in names:
    try:
      values = [rows.parse_rating(row.get(name)) for row in sample]
    except ValueError:
      continue
    if values:
      found[name] = f"{min(values):g} to {max(values):g}"
  return found


def _read_slowly(
  source: Source, columns: Columns, reading: Reading, time_format: str, bad: rows.BadRows
) -> RawColumns:
  """The columns, read row by row without unreadable rows."""
  columns, remarks = _find_columns(source, columns, reading, rows.column_names(source))
  style = _style(source, columns.time, time_format)
  if style.remark:
    remarks.append(style.remark)
  parsers = [rows.IdParser(source.path, name) for name in (columns.user, columns.item)]
  # Codes and machine numbers instead of Python objects, so that a large table fits in memory.
  known: tuple[dict[str, int], ...] = ({}, {}, {})
  codes = array("i"), array("i"), array("i")
  values, times = array("d"), array("q")
  truths = 0
  for line, row in rows.read_rows(source, bad):
    try:
      texts = [parser.parse(line, row) for parser in parsers]
      if columns.event:
        texts.append(_event(columns.event, row))
      value = rows.parse_rating(row.get(columns.rating)) if columns.rating else 1.0
      time = style.seconds(row.get(columns.time)) if columns.time else 0
    except ValueError as error:
      bad.add(line, str(error))
      continue
    values.append(value)
    times.append(time)
    truths += _is_truth(row.get(columns.rating))
    for text, ids, column in zip(texts, known, codes, strict=False):
      column.append(ids.setdefault(text, len(ids)))
  user, item, event = (_dictionary(column, ids) for column, ids in zip(codes, known, strict=True))
  return RawColumns(
    user,
    item,
    np.array(values) if columns.rating else None,
    event if columns.event else None,
    np.array(times) if columns.time else None,
    columns.rating,
    columns.event,
    bool(columns.rating) and truths == len(values) > 0,
    tuple(remarks),
    columns.item,
  )


def _is_truth(value: Any) -> bool:
  return value is True or value is False or str(value).strip().lower() in ("true", "false")


def _event(name: str, row: Mapping[str, Any]) -> str:
  value = row.get(name)
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{name} {value!r} is not the name of an event")
  return value.strip()


def _style(source: Source, column: str, time_format: str) -> TimeStyle:
  """How a column writes times, by its first rows, or by all where these leave a doubt."""
  if not column:
    return TimeStyle()
  sample = (row.get(column) for row in rows.first_rows(source, _SAMPLE))
  try:
    return style_of(sample, column=column, time_format=time_format)
  except InputError:
    every = (row.get(column) for _, row in rows.read_rows(source, rows.BadRows(source.path, 1.0)))
    try:
      return style_of(every, column=column)
    except InputError as error:
      raise InputError(f"{source.path}: {error.message}", field=error.field) from None


def _dictionary(codes: array, ids: dict[str, int]) -> pa.ChunkedArray:
  import pyarrow as pa

  return pa.chunked_array(
    [
      pa.DictionaryArray.from_arrays(
        pa.array(np.array(codes, dtype=np.int32)), pa.array(list(ids), type=pa.string())
      )
    ]
  )
