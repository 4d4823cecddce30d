"""How many rows a table has, before it is read: by metadata, or its size and first megabyte."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gatrec_jax.config.schema import Config
from gatrec_jax.data.datasets import DATASETS
from gatrec_jax.data.movielens import VERSIONS
from gatrec_jax.data.tables.source import are_lists, plain_suffix
from gatrec_jax.experiment.plan.sizes import Sizes, sizes_of_table
from gatrec_jax.runs.paths import user_path

_SAMPLE_BYTES = 1 << 20
# Lines differ in length, and some rows are repeated or empty: so many of the estimated ones count.
_SURE_SHARE = 0.8
# Users and items of the large published versions.
_PUBLISHED = {
  "ml-10m": (69_878, 10_677),
  "ml-20m": (138_493, 26_744),
  "ml-25m": (162_541, 59_047),
  "ml-32m": (200_948, 84_432),
}


def least_sizes(config: Config) -> Sizes | None:
  """Lower bounds of the sizes of the configured data; None where nothing is known of them.

  Of a table of the user's, users and items count as one: what they need comes on top.
  """
  data = config.data
  if data.dataset in DATASETS:
    if data.dataset not in _PUBLISHED:
      return None
    users, items = _PUBLISHED[data.dataset]
    ratings = VERSIONS[data.dataset].ratings
    return sizes_of_table(config, users=users, items=items, ratings=ratings)
  files = [user_path(file) for file in (data.dataset, data.valid_file, data.test_file) if file]
  rows = sum(least_rows(file) for file in files if file.is_file())
  return sizes_of_table(config, users=1, items=1, ratings=rows) if rows else None


def least_rows(path: Path) -> int:
  """A number of rows that a table has at least; 0 where its form says nothing of them."""
  try:
    if path.suffix.lower() == ".parquet":
      import pyarrow.parquet as parquet

      return parquet.read_metadata(path).num_rows
    if plain_suffix(path) == ".parquet":
      return 0
    with open(path, "rb") as file:
      unpacked = _unpacked(path, file)  # which closes the file when it is deleted
      sample, taken = unpacked.read(_SAMPLE_BYTES), file.tell()
  except Exception:  # the reader says what is wrong with the file
    return 0
  size = path.stat().st_size
  if len(sample) < _SAMPLE_BYTES:
    return round(_SURE_SHARE * sum(_rows_of(path, sample)))
  if taken > size or sample.lstrip()[:1] == b"[":
    return 0
  *whole, _ = sample.split(b"\n")
  return round(_SURE_SHARE * sum(_rows_of(path, b"\n".join(whole))) * size / max(taken, 1))


def _rows_of(path: Path, sample: bytes) -> Iterator[int]:
  """The rows of each line of a sample."""
  lines = sample.decode("utf-8", "replace").splitlines()
  holds_lists = plain_suffix(path) in (".txt", ".dat") and are_lists(lines[:50])
  for line in lines:
    yield max(len(line.split()) - 1, 0) if holds_lists else bool(line.strip())


def _unpacked(path: Path, file: IO[bytes]) -> Any:
  """The unpacked bytes of an open file."""
  suffix = path.suffix.lower()
  if suffix == ".gz":
    return gzip.GzipFile(fileobj=file)
  if suffix == ".bz2":
    return bz2.BZ2File(file)
  if suffix == ".zst":
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
  return file
