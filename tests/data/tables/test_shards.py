"""A data set of Parquet files in a folder is read as one file with the same rows."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from helpers.interactions import assert_same_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatrec_jax.config.schema import DataConfig
from gatrec_jax.data.tables import interaction_tables, shards
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.data.tables.metadata import load_item_metadata
from gatrec_jax.errors import InputError
from gatrec_jax.stages.data import prepared_in_memory

COLUMNS = {
  "user_id": ["b", "a", "c", "a", "b", "a"],
  "item_id": [10, 9, 9, 10, 10, 7],
  "rating": [5.0, 1.0, 4.0, 3.5, 2.0, 4.5],
  "timestamp": [10, 20, 30, 40, 50, 60],
}


@pytest.fixture(params=["fast", "slow"])
def way(request, monkeypatch):
  if request.param == "slow":
    monkeypatch.setattr(interaction_tables, "_read_fast", lambda *_: None)


def write(folder, columns, cuts, **options):
  """The rows as a file, and in a folder as files that end at `cuts`."""
  table = columns if isinstance(columns, pa.Table) else pa.table(columns)
  parts = folder / "parts"
  parts.mkdir(parents=True)
  parquet.write_table(table, folder / "whole.parquet", **options)
  ends = [*cuts, len(table)]
  for number, (start, stop) in enumerate(zip([0, *cuts], ends, strict=True)):
    path = parts / f"part-{number:05d}.parquet"
    parquet.write_table(table.slice(start, stop - start), path, **options)
  return folder / "whole.parquet", parts


def assert_equal(left, right):
  """Two `InteractionTable`s."""
  assert_same_rows(left.interactions, right.interactions)
  assert left.feedback == right.feedback and left.sentence == right.sentence
  assert left.remarks == right.remarks and left.notes == right.notes


def test_files_are_read_in_the_order_of_their_paths(tmp_path, way):
  whole, parts = write(tmp_path, COLUMNS, (2, 2, 5))
  (parts / "more").mkdir()
  # "more/…" comes before "part-…", so these rows are now the first ones.
  (parts / "part-00003.parquet").rename(parts / "more" / "z.parquet")
  for name in ("_SUCCESS", ".part-00000.parquet.crc", "_metadata.parquet", "notes.txt"):
    (parts / name).write_bytes(b"not Parquet")
  (parts / "_temporary").mkdir()
  (parts / "_temporary" / "part-9.parquet").write_bytes(b"not Parquet")
  found = load_interactions(parts)
  rows = found.interactions
  assert rows.user_ids == ("a", "b", "c") and rows.item_ids == ("7", "9", "10")
  # The row (b, 10) of time 10 gives way to that of time 50.
  assert rows.user.tolist() == [0, 0, 2, 0, 1] and rows.item.tolist() == [0, 1, 1, 2, 2]
  assert rows.rating.tolist() == [4.5, 1.0, 4.0, 3.5, 2.0]
  assert found.notes == {"duplicate ratings dropped": 1}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_folder_and_a_file_give_the_same(tmp_path_factory, data):
  """Any cuts, sizes of row groups, batches and merges of dictionaries; any kind of values."""
  size = data.draw(st.integers(1, 30))

  def column(values):
    return data.draw(st.lists(values, min_size=size, max_size=size))

  few = st.integers(0, 5)
  columns = {
    "user_id": column(data.draw(st.sampled_from([few, few.map(lambda k: f" u{k}"), few.map(str)]))),
    "item_id": column(st.one_of(few, st.just(40))),
  }
  kind = data.draw(st.sampled_from(["stars", "plays", "event", "nothing", "gaps"]))
  if kind == "stars":
    columns["rating"] = column(st.sampled_from([0.0, 0.5, 3.0, 5.0]))
  elif kind == "plays":
    columns["plays"] = column(st.sampled_from([0, 1, 2, 150]))
  elif kind == "event":
    columns["event"] = column(st.sampled_from(["view", "cart", "purchase", "return"]))
  elif kind == "gaps":  # the slow way
    columns["rating"] = column(st.sampled_from([1.0, 5.0, None]))
  if data.draw(st.booleans()):
    dates = few.map(lambda day: datetime.datetime(2020, 1, 1 + day))
    columns["timestamp"] = column(data.draw(st.sampled_from([few, dates])))
  cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
  folder = tmp_path_factory.mktemp("shards")
  whole, parts = write(folder, columns, cuts, row_group_size=data.draw(st.sampled_from([2, 100])))
  with pytest.MonkeyPatch.context() as patch:
    one = result_of(whole)
    patch.setattr(shards, "_BATCH", data.draw(st.sampled_from([1, 3, 100])))
    patch.setattr(shards, "_PENDING", data.draw(st.sampled_from([0, 4, 100])))
    many = result_of(parts)
  if isinstance(one, str):
    assert one == many
  else:
    assert_equal(one, many)


def result_of(path):
  """The table, or the message without the path and what it says of single rows."""
  try:
    return load_interactions(path, max_bad_share=0.5)
  except InputError as error:
    return str(error).replace(str(path), "").partition("cannot be read")[0]


def test_both_give_the_same_prepared_data(tmp_path):
  rng = np.random.default_rng(0)
  pairs = rng.choice(600, 300, replace=False)
  columns = {
    "user_id": pa.array([f"u{u}" for u in pairs // 20]),
    "item_id": pa.array(pairs % 20),
    "rating": pa.array(rng.integers(1, 6, 300)),
  }
  whole, parts = write(tmp_path, columns, (10, 200))
  one, many = (
    prepared_in_memory(DataConfig(dataset=str(path), split="per_user")) for path in (whole, parts)
  )
  for name in ("train", "valid", "test"):
    rows = getattr(one.split, name)
    assert len(rows)
    np.testing.assert_array_equal(rows, getattr(many.split, name))
  assert one.feedback == many.feedback and one.sentences == many.sentences
  assert one.facts == many.facts and one.interactions.user_ids == many.interactions.user_ids


def test_columns_of_differing_types_and_orders_are_brought_together(tmp_path, monkeypatch):
  monkeypatch.setattr(interaction_tables, "_read_slowly", None)
  parts = [
    {
      "item_id": pa.array([1, 2], pa.int16()),
      "user_id": pa.array(["a", "b"]).dictionary_encode(),
      "rating": pa.array([1, 5], pa.int8()),
      "timestamp": pa.array([0, 1000], pa.timestamp("ms")),
    },
    {
      "user_id": pa.array(["b", "c"], pa.large_string()),
      "item_id": pa.array([1.0, 30.0]),
      "rating": pa.array([4.5, 2.0]),
      "timestamp": pa.array([2_000_000, 3_000_000], pa.timestamp("us")),
    },
  ]
  for number, part in enumerate(parts):
    parquet.write_table(pa.table(part), tmp_path / f"{number}.parquet")
  rows = load_interactions(tmp_path).interactions
  assert rows.user_ids == ("a", "b", "c") and rows.item_ids == ("1", "2", "30")
  assert rows.user.tolist() == [0, 1, 1, 2] and rows.item.tolist() == [0, 1, 0, 2]
  assert rows.rating.tolist() == [1.0, 5.0, 4.5, 2.0] and rows.timestamp.tolist() == [0, 1, 2, 3]


def test_ids_of_mixed_types_are_named_by_their_files(tmp_path):
  for number, ids in enumerate((["1", "2"], [1, 2])):
    parquet.write_table(
      pa.table({"user_id": ids, "item_id": [1, 2]}), tmp_path / f"part-{number}.parquet"
    )
  with pytest.raises(InputError) as error:
    load_interactions(tmp_path)
  assert str(error.value) == (
    f"{tmp_path}: user_id is of mixed types, '1' in line 1 of part-0.parquet and 1 in line 1 of "
    "part-1.parquet; write all ids the same way"
  )


def test_unreadable_rows_are_named_by_their_files(tmp_path):
  _, parts = write(tmp_path, {**COLUMNS, "rating": [5.0, None, 4.0, 3.5, 2.0, None]}, (4,))
  with pytest.raises(InputError) as error:
    load_interactions(parts)
  assert str(error.value).startswith(
    f"{parts}: 2 of 6 rows cannot be read: row 2 of part-00000.parquet (rating None is not a "
    "number), 2 of part-00001.parquet (rating None is not a number); "
  )


def test_a_damaged_file_is_named(tmp_path):
  _, parts = write(tmp_path, COLUMNS, (2, 4))
  path = parts / "part-00001.parquet"
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(InputError, match=rf"^{path}: cannot be read "):
    load_interactions(parts)


def test_a_damaged_row_group_is_named(tmp_path):
  _, parts = write(tmp_path, COLUMNS, (2, 4), compression="none", use_dictionary=False)
  path = parts / "part-00001.parquet"
  content = bytearray(path.read_bytes())
  content[4:30] = b"\xff" * 26  # the first page's header
  path.write_bytes(content)
  with pytest.raises(InputError, match=rf"^{path}: cannot be read "):
    load_interactions(parts)


def test_a_file_with_other_columns_is_named(tmp_path):
  _, parts = write(tmp_path, COLUMNS, (2,))
  path = parts / "part-00001.parquet"
  parquet.write_table(pa.table({"user_id": [1], "item_id": [1], "rating": [1.0]}), path)
  with pytest.raises(InputError, match=rf"^{path}: has no column 'timestamp', unlike part-00000"):
    load_interactions(parts)
  parquet.write_table(pa.table({**{k: v[:1] for k, v in COLUMNS.items()}, "x": [1]}), path)
  with pytest.raises(InputError, match=rf"^{path}: has a column 'x', unlike part-00000.parquet"):
    load_interactions(parts)


def test_a_folder_without_parquet_files_is_refused(tmp_path):
  (tmp_path / "a.csv").write_text("user_id,item_id\n1,1\n")
  with pytest.raises(InputError, match=rf"^{tmp_path}: is a folder without Parquet files"):
    load_interactions(tmp_path)


def test_no_rows_in_any_file(tmp_path):
  _, parts = write(tmp_path, {name: values[:0] for name, values in COLUMNS.items()}, (0,))
  with pytest.raises(InputError, match="there are no interactions; at least one row is needed"):
    load_interactions(parts, columns=Columns("user_id", "item_id"))


def test_metadata_may_be_a_folder_too(tmp_path):
  _, parts = write(tmp_path, {"item_id": [1, 2, 3], "title": ["x", "y", "z"]}, (1,))
  fields = load_item_metadata(parts, item_column="item_id").fields
  assert {name: field["title"] for name, field in fields.items()} == {"1": "x", "2": "y", "3": "z"}
