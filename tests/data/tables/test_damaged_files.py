"""Compressed files that are damaged or absurdly small, and columns that Python cannot hold."""

import datetime
import gzip
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gatrec_jax.data import archives
from gatrec_jax.data.archives import Archive
from gatrec_jax.data.tables import files, shards
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.data.tables.metadata import load_item_metadata
from gatrec_jax.data.tables.source import TableOptions
from gatrec_jax.data.tables.times import style_of
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import run_of_lists
from gatrec_jax.profiles.provided import read_profiles
from launch.fuzzing.containers import compressed

CSV = b"user_id,item_id\n" + b"1,2\n" * 30_000


def error_of(read):
  with pytest.raises(InputError) as error:
    read()
  message = str(error.value)
  assert message and "\n" not in message and len(message) < 2000
  return message


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("place", [0, 20, -6])
def test_damaged_compressed_files(tmp_path, suffix, place):
  data = bytearray(compressed(bytes(range(256)) * 40, suffix))
  for offset in range(4):
    data[place + offset] ^= 0xFF
  path = tmp_path / f"t.csv{suffix}"
  path.write_bytes(data)
  assert error_of(lambda: load_interactions(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch, suffix):
  path = tmp_path / f"t.csv{suffix}"
  path.write_bytes(compressed(CSV, suffix))
  monkeypatch.setattr(files, "MOST_RATIO", 50)
  monkeypatch.setattr(files, "ALWAYS_BYTES", len(CSV))
  assert len(load_interactions(path).interactions) == 1
  monkeypatch.setattr(files, "ALWAYS_BYTES", len(CSV) - 1)
  message = error_of(lambda: load_interactions(path))
  assert message.startswith(f"{path}: unpacks to more than 0 MiB, over 50 times its own size")
  assert message.endswith("unpack it and name the unpacked file")


def test_a_zip_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a/u.data", CSV)
  assert Archive(path).read("u.data") == CSV
  monkeypatch.setattr(files, "ALWAYS_BYTES", 1000)
  assert "u.data: unpacks to more than" in error_of(lambda: Archive(path).read("u.data"))
  assert archives.require_ratio is files.require_ratio


def test_what_is_unpacked_fits_into_memory(tmp_path, monkeypatch):
  path = tmp_path / "t.json.gz"
  path.write_bytes(gzip.compress(b'[{"user_id": 1, "item_id": 2}]'))
  assert len(load_interactions(path).interactions) == 1
  monkeypatch.setattr(files, "free_bytes", lambda: 50)
  assert "its unpacked contents need about" in error_of(lambda: load_interactions(path))


def test_equal_rows_take_no_space_in_the_file_but_in_memory(tmp_path, monkeypatch):
  path = tmp_path / "t.parquet"
  pq.write_table(pa.table({"user_id": [1] * 10_000, "item_id": [2] * 10_000}), path)
  assert path.stat().st_size < 5_000
  assert len(load_interactions(path).interactions) == 1
  monkeypatch.setattr(files, "free_bytes", lambda: 100_000)
  message = error_of(lambda: load_interactions(path))
  assert "its 10,000 rows need about" in message and "a part of the rows" in message
  assert shards.require_memory_for is files.require_memory_for


@pytest.mark.parametrize(
  "values",
  [
    pa.array([b"1", b"2"]),
    pa.array([{"a": 1}, {"a": 2}]),
    pa.array([[1], [2]]),
    pa.array([True, False]),
    pa.array([None, None]),
    pa.array([0.5, float("nan")]),
    pa.array([2**62, 1], pa.timestamp("ms")),
    pa.array([2**30, 1], pa.date32()),
    pa.array([1, 2], pa.duration("s")),
  ],
  ids=lambda values: str(values.type),
)
def test_columns_of_other_types(tmp_path, values):
  path = tmp_path / "t.parquet"
  good = pa.array([1, 2])
  pq.write_table(pa.table({"user_id": good, "item_id": values}), path)
  assert str(path) in error_of(lambda: load_interactions(path))
  pq.write_table(pa.table({"item_id": values, "title": ["a", "b"]}), path)
  error_of(lambda: load_item_metadata(path))
  pq.write_table(pa.table({"item_id": good, "title": ["a", "b"], "other": values}), path)
  assert set(load_item_metadata(path).fields) == {"1", "2"}


def test_a_dictionary_of_texts_is_read(tmp_path):
  path = tmp_path / "t.parquet"
  ids = pa.array(["a", "b"]).dictionary_encode()
  pq.write_table(pa.table({"user_id": ids, "item_id": ids}), path)
  assert load_interactions(path).interactions.item_ids == ("a", "b")


def test_a_column_name_that_is_not_utf8(tmp_path):
  path = tmp_path / "t.parquet"
  pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), path)
  path.write_bytes(path.read_bytes().replace(b"item_id", b"item_\xf4d"))
  for read in (load_interactions, load_item_metadata):
    assert "cannot be read" in error_of(lambda read=read: read(path))
  assert run_of_lists(path) is None


def test_times_beyond_every_calendar(tmp_path):
  huge = int("9" * 400)
  style = style_of([huge, 978_300_000], column="time")
  last = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
  assert style.seconds(last) == 253_402_300_799
  for value in (huge, -huge, 1e300, float("inf")):
    with pytest.raises(ValueError, match=r"outside the years 1 to 9999"):
      style.seconds(value)
  path = tmp_path / "t.jsonl"
  good = '{"user_id": 1, "item_id": 2, "timestamp": 978300000}\n'
  path.write_text(good + good.replace("978300000", str(huge)))
  assert len(load_interactions(path, max_bad_share=0.5).interactions) == 1


def test_an_encoding_that_is_none(tmp_path):
  path = tmp_path / "t.csv"
  path.write_bytes("user_id,item_id\n1,é\n".encode("latin-1"))
  for encoding in ("base64", "x" * 500, "\0", "idna"):
    error_of(lambda: load_interactions(path, options=TableOptions(encoding=encoding)))  # noqa: B023


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "a\\ud83dx"])
def test_half_of_a_surrogate_pair_is_no_text(tmp_path, half):
  path = tmp_path / "m.jsonl"
  good = '{"item_id": 1, "title": "\\ud83d\\ude00", "profile": "x"}\n'
  path.write_text(good + good.replace("1", "2", 1).replace("\\ud83d\\ude00", half))
  found = load_item_metadata(path, max_bad_share=0.5)
  assert found.fields == {"1": {"title": "😀", "profile": "x"}}
  assert found.notes == {"unreadable rows skipped": 1}
  path.write_text(f'{{"item_id": 1, "profile": "{half}"}}\n')
  with pytest.raises(InputError, match="line 1: half of a surrogate pair"):
    read_profiles(path, id_field="item_id", ids=["1"])
