"""Several processes that each read a part of a data set find together what a single one finds."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from helpers.interactions import assert_same_rows
from helpers.peers import together
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatrec_jax.config.schema import DataConfig
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.stages.data import prepared_in_memory


def write(folder, columns, sizes, row_group_size=2):
  """A data set of files with so many rows each."""
  folder.mkdir(exist_ok=True)
  table, start = pa.table(columns), 0
  for number, size in enumerate(sizes):
    path = folder / f"part-{number}.parquet"
    parquet.write_table(table.slice(start, size), path, row_group_size=row_group_size)
    start += size
  assert start == len(table)
  return folder


def assert_same(ours, whole):
  """Two `Prepared`, or two errors."""
  if isinstance(whole, InputError):
    assert isinstance(ours, InputError) and str(ours) == str(whole)
    return
  assert not isinstance(ours, Exception), ours
  assert_same_rows(ours.interactions, whole.interactions)
  for name in ("train", "valid", "test"):
    np.testing.assert_array_equal(getattr(ours.split, name), getattr(whole.split, name))
  assert ours.feedback == whole.feedback and ours.sentences == whole.sentences
  assert ours.facts == whole.facts and ours.item_fields == whole.item_fields


def prepared(folder, peers=None, **settings):
  config = DataConfig(dataset=str(folder), **settings)
  try:
    return prepared_in_memory(config, **({} if peers is None else {"peers": peers}))
  except InputError as error:
    return error


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_processes_find_what_one_finds(tmp_path_factory, data):
  """Any kind of values, ids, times, split, and number of processes."""
  size = data.draw(st.integers(1, 40))

  def column(values):
    return data.draw(st.lists(values, min_size=size, max_size=size))

  few = st.integers(0, 9)
  words = few.map(lambda k: f"u{k}")
  columns = {
    "user_id": column(data.draw(st.sampled_from([few, words, st.just(1), few.map(str)]))),
    "item_id": column(st.one_of(few, st.just(40))),
  }
  kind = data.draw(st.sampled_from(["stars", "plays", "event", "nothing", "gaps"]))
  if kind == "stars":
    columns["rating"] = column(st.sampled_from([0.0, 0.5, 3.0, 5.0]))
  elif kind == "plays":
    columns["plays"] = column(st.sampled_from([0, 1, 2, 150]))
  elif kind == "event":
    columns["event"] = column(st.sampled_from(["view", "cart", "purchase", "return", "nod"]))
  elif kind == "gaps":  # each process reads everything, slowly
    columns["rating"] = column(st.sampled_from([1.0, 5.0, None]))
  times = [few, st.integers(2 * 10**11, 3 * 10**11), st.sampled_from([20090408, 20101231, 0])]
  if data.draw(st.booleans()):
    columns["timestamp"] = column(data.draw(st.sampled_from(times)))
  cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
  sizes = np.diff([0, *cuts, size]).tolist()
  folder = write(tmp_path_factory.mktemp("shares"), columns, sizes)
  options = {
    "split": data.draw(st.sampled_from(["random", "per_user", "none"])),
    "test_share": 0.3,
    "valid_share": data.draw(st.sampled_from([0.0, 0.2])),
    "max_bad_share": 0.9,
    "duplicates": data.draw(st.sampled_from(["auto", "first", "mean"])),
  }
  whole = prepared(folder, **options)
  found = together(
    data.draw(st.sampled_from([2, 3])), lambda peers: prepared(folder, peers, **options)
  )
  for ours in found:
    assert_same(ours, whole)


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  columns = {
    "user_id": [f"u{k}" for k in rng.integers(0, 30, 400)],
    "item_id": rng.integers(0, 20, 400),
    "rating": rng.integers(1, 6, 400),
  }
  return write(tmp_path / "data", columns, (100, 200, 100), row_group_size=20)


def test_each_process_has_all_rows_of_about_as_many_users(folder):
  tables = together(4, lambda peers: load_interactions(folder, peers=peers))
  whole = load_interactions(folder).interactions
  users = [set(table.interactions.user.tolist()) for table in tables]
  assert set.union(*users) == set(range(30)) and sum(map(len, users)) == 30
  assert all(50 < len(table.interactions) < 110 for table in tables)
  for table in tables:
    rows = table.interactions
    np.testing.assert_array_equal(np.sort(table.position), table.position)
    assert rows.user_ids == whole.user_ids and rows.item_ids == whole.item_ids
  assert sum(len(table.interactions) for table in tables) == len(whole)


def test_each_process_reads_a_part_of_the_files(folder, monkeypatch):
  from gatrec_jax.data.tables import shards

  read, batches = [], shards._batches

  def counted(path, names, groups):
    read.extend((path.name, group) for group in groups)
    return batches(path, names, groups)

  monkeypatch.setattr(shards, "_batches", counted)
  together(3, lambda peers: load_interactions(folder, peers=peers))
  assert len(read) == len(set(read)) == 20


def test_a_damaged_file_is_the_same_line_in_all_processes(folder):
  path = folder / "part-2.parquet"
  content = bytearray(path.read_bytes())
  content[4:300] = b"\xff" * 296
  path.write_bytes(content)
  errors = together(2, lambda peers: load_interactions(folder, peers=peers))
  assert {type(error) for error in errors} == {InputError}
  assert len({str(error) for error in errors}) == 1
  assert str(errors[0]).startswith(f"{path}: cannot be read ")


@pytest.mark.parametrize("ratings", ([0.0] * 4, [0.0, 5.0, 4.0, 0.0]))
def test_processes_without_rows_take_part(tmp_path, ratings):
  """All rows are of one user, so of one process; some or all are not ratings and leave."""
  columns = {"user_id": [1] * 4, "item_id": [3, 1, 2, 4], "rating": ratings}
  folder = write(tmp_path / "data", columns, (4,), row_group_size=1)
  options = {"split": "random", "test_share": 0.5, "valid_share": 0.0}
  whole = prepared(folder, **options)
  assert isinstance(whole, InputError) == (max(ratings) == 0)
  for ours in together(3, lambda peers: prepared(folder, peers, **options)):
    assert_same(ours, whole)


def test_ids_of_mixed_types_are_found_across_processes(tmp_path):
  for number, ids in enumerate((["1", "2"], [1, 2])):
    parquet.write_table(
      pa.table({"user_id": ids, "item_id": [1, 2]}), tmp_path / f"part-{number}.parquet"
    )
  errors = together(2, lambda peers: load_interactions(tmp_path, peers=peers))
  assert all("user_id is of mixed types, '1' in line 1 of part-0" in str(one) for one in errors)
