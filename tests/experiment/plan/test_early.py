"""Numbers of rows before a table is read."""

import bz2
import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment.plan.early import least_rows, least_sizes

ROWS = 120_000


def text():
  draws = np.random.default_rng(0)
  lines = (f"{u},{i},{r}" for u, i, r in draws.integers(1, 10_000, (ROWS, 3)))
  return "\n".join(["user_id,item_id,rating", *lines, ""]).encode()


def packed(data, suffix):
  if suffix == ".zst":
    return pa.compress(data, "zstd", asbytes=True)
  return {"": lambda d: d, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix](data)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
def test_of_text_by_its_first_megabyte(tmp_path, suffix):
  path = tmp_path / f"t.csv{suffix}"
  path.write_bytes(packed(text(), suffix))
  # bz2 is unpacked by blocks of 900 kB.
  assert 0.4 * ROWS < least_rows(path) <= ROWS


def test_of_a_small_file_all_of_it_counts(tmp_path):
  (tmp_path / "t.csv").write_text("user_id,item_id\n" + "1,2\n" * 99)
  assert least_rows(tmp_path / "t.csv") == 80


def test_of_lists_every_item_is_a_row(tmp_path):
  (tmp_path / "train.txt").write_text("0 1 2 3\n1 5\n2 7 8 9 10 11 12\n")
  assert least_rows(tmp_path / "train.txt") == 8  # .8 of 10


def test_of_parquet_they_are_known(tmp_path):
  pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "t.parquet")
  assert least_rows(tmp_path / "t.parquet") == 3


@pytest.mark.parametrize(
  ("name", "content"), [("t.parquet", b"no"), ("t.csv.gz", b"no"), ("t.csv", b"")]
)
def test_of_what_cannot_be_read_nothing_is_known(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  assert least_rows(tmp_path / name) == 0


def test_all_parts_of_a_table_count(tmp_path):
  for name in ("train.csv", "test.csv"):
    (tmp_path / name).write_text("user_id,item_id\n" + "1,2\n" * 99)
  fields = {"dataset": str(tmp_path / "train.csv"), "test_file": str(tmp_path / "test.csv")}
  assert least_sizes(with_fields(get_preset("best"), fields)).ratings == 160


def test_published_versions_are_known():
  config = with_fields(get_preset("best"), {"dataset": "ml-20m"})
  sizes = least_sizes(config)
  assert (sizes.users, sizes.items, sizes.ratings) == (138_493, 26_744, 20_000_263)
  assert least_sizes(with_fields(config, {"dataset": "demo"})) is None
