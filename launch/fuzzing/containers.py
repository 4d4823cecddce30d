"""Mutations of compressed files, zip archives and Parquet: of their contents and of their bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from launch.fuzzing.mutate import TEXTS, Mutation, in_bytes


def compressed(data: bytes, suffix: str) -> bytes:
  """The data as a file of that suffix holds it: .gz, .bz2 or .zst."""
  import pyarrow as pa

  if suffix == ".gz":
    return gzip.compress(data, 1, mtime=0)
  if suffix == ".bz2":
    return bz2.compress(data, 1)
  return pa.compress(data, "zstd", asbytes=True)


def in_compressed(suffix: str, inner: Mutation) -> Mutation:
  """Changes the text in a compressed file, or its bytes; joins two, or repeats the text."""

  def mutate(rng: Random, data: bytes) -> bytes:
    text = _expanded(data, suffix)
    match rng.randrange(8):
      case 0 | 1:
        return in_bytes(rng, data)
      case 2:
        return data + compressed(inner(rng, text), suffix)
      case 3:
        return compressed(text * rng.choice((2, 50)), suffix)
      case _:
        return compressed(inner(rng, text), suffix)

  return mutate


def _expanded(data: bytes, suffix: str) -> bytes:
  import pyarrow as pa

  if suffix == ".zst":
    return pa.input_stream(pa.py_buffer(data), compression="zstd").read()
  return (gzip if suffix == ".gz" else bz2).decompress(data)


def zipped(members: Mapping[str, bytes]) -> bytes:
  """A zip archive with these members."""
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(zipfile.ZipInfo(name), data)
  return out.getvalue()


def in_zip(inner: Mutation) -> Mutation:
  """Changes a member of a zip archive, its name, or the archive's bytes."""

  def mutate(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
      return in_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    match rng.randrange(6):
      case 0:
        moved = members.pop(name)
        members[rng.choice(("../x", "/x", "C:\\x", "a/b/" + name, name.upper(), ""))] = moved
      case 1:
        del members[name]
      case _:
        members[name] = inner(rng, members[name])
    return zipped(members)

  return mutate


def parquet(columns: Mapping[str, Any]) -> bytes:
  """A Parquet file with these columns."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  out = io.BytesIO()
  pq.write_table(pa.table(dict(columns)), out)
  return out.getvalue()


def in_parquet(rng: Random, data: bytes) -> bytes:
  """Changes types, names, values and number of columns of a Parquet file, or its bytes."""
  import pyarrow.parquet as pq

  if rng.random() < 0.25:
    return in_bytes(rng, data)
  table = pq.read_table(io.BytesIO(data))
  columns = {name: table[name] for name in table.column_names}
  for _ in range(rng.choice((1, 1, 2))):
    name = rng.choice(sorted(columns))
    match rng.randrange(8):
      case 0 if len(columns) > 1:
        del columns[name]
      case 1:
        columns[rng.choice(TEXTS[:60])] = columns[name]
      case _:
        columns[name] = rng.choice(_CHANGES)(rng, columns[name].to_pylist())
  return parquet(columns)


def _array(values: list[Any], kind: Any = None) -> Any:
  import pyarrow as pa

  return pa.array(values, kind)


def _typed(make: Callable[[Any, int], Any], kind: str, *args: Any) -> Callable[..., Any]:
  """A change to another type. Args: make: (value, row) -> value. kind: of pyarrow, or ""."""

  def change(rng: Random, values: list[Any]) -> Any:
    import pyarrow as pa

    own = [None if rng.random() < 0.05 else make(one, row) for row, one in enumerate(values)]
    return pa.array(own, getattr(pa, kind)(*args) if kind else None)

  return change


_CHANGES = (
  _typed(lambda value, _: str(value).encode(), "binary"),
  _typed(lambda value, _: str(value), "large_string"),
  _typed(lambda value, _: str(value), "string_view"),
  _typed(lambda value, _: {"a": str(value)}, ""),
  _typed(lambda value, _: [str(value)], ""),
  _typed(lambda _, row: row % 2 == 0, "bool_"),
  _typed(lambda _, row: row, "int8"),
  _typed(lambda _, row: 2**64 - 1 - row, "uint64"),
  _typed(lambda _, row: row - 2**63, "int64"),
  _typed(lambda _, row: (float("nan"), float("inf"), -1e308, 0.5)[row % 4], "float64"),
  _typed(lambda _, row: float(row), "float32"),
  _typed(lambda _, row: 2**62 + row, "timestamp", "ns", "Asia/Tokyo"),
  _typed(lambda _, row: 2**62 + row, "timestamp", "s"),
  _typed(lambda _, row: 2**30 + row, "date32"),
  _typed(lambda _, row: row, "time64", "us"),
  _typed(lambda _, row: row, "duration", "s"),
  _typed(lambda _, row: f"{row}".encode().ljust(4), "binary", 4),
  lambda _, values: _array([None] * len(values)),
  lambda _, values: _array([str(one) for one in values]).dictionary_encode(),
  lambda rng, values: _array([rng.choice(TEXTS) for _ in values]),
  lambda rng, values: _array([*values[:-1], None]) if len(values) > 1 else _array(values),
)
