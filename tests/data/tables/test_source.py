"""Formats, compression, encodings and separators, found out before a table is read."""

import bz2
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gatrec_jax.data.tables import interaction_tables
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.data.tables.source import TableOptions, has_known_suffix, open_source
from gatrec_jax.errors import InputError

CSV = "user_id,item_id,rating,timestamp\n1,a,4,10\n2,b,2,20\n"


def write(path, data):
  path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return path


def rows_of(path, **settings):
  table = load_interactions(path, **settings)
  found = table.interactions
  return [
    (found.user_ids[u], found.item_ids[i], float(r), int(t))
    for u, i, r, t in zip(found.user, found.item, found.rating, found.timestamp, strict=True)
  ]


ROWS = [("1", "a", 4.0, 10), ("2", "b", 2.0, 20)]


def compressed(data, suffix, tmp_path):
  if suffix == ".zst":
    with pa.output_stream(str(tmp_path / "packed"), compression="zstd") as stream:
      stream.write(data)
    return (tmp_path / "packed").read_bytes()
  return {".gz": gzip.compress, ".bz2": bz2.compress, "": bytes}[suffix](data)


@pytest.fixture(params=["fast", "slow"])
def way(request, monkeypatch):
  if request.param == "slow":
    monkeypatch.setattr(interaction_tables, "_read_fast", lambda *_: None)


@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_in_every_compression(tmp_path, packing, kind, way):
  if kind == "parquet":
    buffer = io.BytesIO()
    columns = ([1, 2], ["a", "b"], [4, 2], [10, 20])
    names = ["user_id", "item_id", "rating", "timestamp"]
    parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), buffer)
    data = buffer.getvalue()
  elif kind == "jsonl":
    data = b'{"user_id": 1, "item_id": "a", "rating": 4, "timestamp": 10}\n'
    data += b'{"user_id": 2, "item_id": "b", "rating": 2, "timestamp": 20}'
  else:
    data = CSV.replace(",", "\t" if kind == "tsv" else ",").encode()
  path = write(tmp_path / f"x.{kind}{packing}", compressed(data, packing, tmp_path))
  assert rows_of(path) == ROWS
  assert has_known_suffix(path) and not has_known_suffix(tmp_path / "x.xlsx")


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".zst"])
def test_a_damaged_archive_is_one_line(tmp_path, packing):
  good = compressed(CSV.encode() * 50, packing, tmp_path)
  path = write(tmp_path / f"x.csv{packing}", good[: len(good) // 2])
  with pytest.raises(InputError, match=rf"x.csv{packing}: cannot be read") as caught:
    load_interactions(path)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t", "::", " "])
def test_separators_are_found_out(tmp_path, separator, way):
  path = write(tmp_path / "x.csv", CSV.replace(",", separator))
  assert open_source(path).separator == separator
  assert rows_of(path) == ROWS


def test_a_separator_within_texts_does_not_mislead(tmp_path):
  lines = [f'{k};"a, b, c, {k}";4;5' for k in range(9)]
  path = write(tmp_path / "x.csv", "user_id;item_id;rating;timestamp\n" + "\n".join(lines))
  assert rows_of(path)[2] == ("2", "a, b, c, 2", 4.0, 5)
  path = write(tmp_path / "x.txt", CSV.replace(",", "#"))
  assert rows_of(path, options=TableOptions(separator="#")) == ROWS
  assert (
    rows_of(write(tmp_path / "y.txt", CSV.replace(",", "\t")), options=TableOptions("tab")) == ROWS
  )


def test_tables_without_names(tmp_path, way):
  path = write(tmp_path / "x.csv", CSV.partition("\n")[2])
  names = ("user_id", "item_id", "rating", "timestamp")
  assert rows_of(path, options=TableOptions(names=names)) == ROWS
  message = "has no column 'user_id'.*its first line holds no names.*`columns=user_id,item_id"
  with pytest.raises(InputError, match=message):
    load_interactions(path)
  with pytest.raises(InputError, match="line 1 .4 fields, not 2"):
    load_interactions(path, options=TableOptions(names=("user_id", "item_id")))


def test_recbole_files(tmp_path, way):
  text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
  path = write(tmp_path / "x.inter", text + "1\ta\t4\t10\n2\tb\t2\t20\n")
  assert rows_of(path) == ROWS
  source = open_source(write(tmp_path / "x.item", "item_id:token\tgenre:token_seq\na\tx y\n"))
  assert source.names == ("item_id", "genre") and source.lists == {"genre"}


def test_lines_of_a_user_and_their_items(tmp_path):
  train = write(tmp_path / "train.txt", "0 5 7\n1 5\n2\n")
  test = write(tmp_path / "test.txt", "0 9 5\n2 7\n")
  assert rows_of(train) == [("0", "5", 1, 0), ("0", "7", 1, 0), ("1", "5", 1, 0)]
  table = load_interactions(train, more=[test])
  assert table.interactions.user_ids == ("0", "1", "2")
  assert table.part.tolist() == [0, 0, 0, 1, 1]
  assert table.notes == {"pairs of an earlier file left out": 1}
  write(train, "0 5 7\n1 five\n")
  with pytest.raises(InputError, match="has no column 'user_id'"):
    load_interactions(train)


LATIN = "user_id,item_id\n1,Am\xe9lie\n2,Se\xf1or\n".encode("latin-1")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_other_encodings(tmp_path, suffix):
  data = LATIN.replace(b",", b"\t" if suffix == "tsv" else b",")
  if suffix == "jsonl":
    data = '{"user_id": 1, "item_id": "x"}\n{"user_id": 1, "item_id": "Am\xe9lie"}'.encode(
      "latin-1"
    )
  path = write(tmp_path / f"x.{suffix}", data)
  with pytest.raises(InputError, match="line 2 is not UTF-8 .byte 0xe9.*`encoding=latin-1`"):
    load_interactions(path)
  for encoding in ("latin-1", "cp1252"):
    assert "Am\xe9lie" in [row[1] for row in rows_of(path, options=TableOptions(encoding=encoding))]
  with pytest.raises(InputError, match="encoding=ascii: .*line 2 is not ascii either"):
    load_interactions(path, options=TableOptions(encoding="ascii"))
  with pytest.raises(InputError, match="encoding=klingon: is not an encoding"):
    load_interactions(path, options=TableOptions(encoding="klingon"))
  # A file that is UTF-8 is read as such whatever is said of others.
  path = write(tmp_path / "y.csv", CSV)
  assert rows_of(path, options=TableOptions(encoding="latin-1")) == ROWS


def test_utf16(tmp_path):
  assert rows_of(write(tmp_path / "x.csv", CSV.encode("utf-16"))) == ROWS
  path = write(tmp_path / "y.csv", CSV.encode("utf-16-le"))
  assert rows_of(path, options=TableOptions(encoding="utf-16-le")) == ROWS
  with pytest.raises(InputError, match="y.csv: .*`encoding=utf-16"):
    load_interactions(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_line_ends_blank_lines_and_marks(tmp_path, ends, separator):
  text = "\ufeff" + CSV.replace(",", separator).replace("\n", ends + ends)
  path = write(tmp_path / ("x.csv" if separator == "," else "x.tsv"), text)
  assert rows_of(path) == ROWS


def test_quotes_of_every_kind(tmp_path, caplog):
  """A quote is plain text between tabs; between commas it must close."""
  body = ['1,1,4,"Heroes" of', '2,1,3,say "x"', '3,1,2,"closed; ""x"" and\nlong"', "4,1,5,plain"]
  path = write(tmp_path / "x.csv", "\n".join(["user_id,item_id,rating,note", *body]))
  assert [row[0] for row in rows_of(path, max_bad_share=0.3)] == ["2", "3", "4"]
  assert "1 of 4 rows cannot be read: line 2 (" in caplog.text
  path = write(tmp_path / "x.tsv", path.read_text().replace(",", "\t").replace("and\n", "and "))
  assert [row[0] for row in rows_of(path)] == ["1", "2", "3", "4"]


def test_two_stray_quotes_are_a_long_field_or_an_error(tmp_path):
  lines = [f"{k},1,4,ok" for k in range(300)]
  lines[20], lines[90] = '20,1,4,"open', '90,1,4,close"'
  path = write(tmp_path / "x.csv", "\n".join(["user_id,item_id,rating,note", *lines]))
  # The quotes enclose 71 lines, so the row is a user's whose note is long: all that CSV says.
  table = load_interactions(path, max_bad_share=1)
  assert len(table.interactions) == 230
  lines[90] = '90,1,4,"close" x'
  write(path, "\n".join(["user_id,item_id,rating,note", *lines]))
  with pytest.raises(InputError, match="71 of 300 rows cannot be read: line 22 "):
    load_interactions(path)


def test_json_that_ends_native_parsers(tmp_path):
  good = '{"user_id": 1, "item_id": 2, "rating": 4}'
  deep = '{"user_id": 1, "item_id": ' + "[" * 100_000 + "]" * 100_000 + "}"
  strange = ["null", "[1]", "7", '"x"', deep, '{"user_id": ' + "9" * 4301 + ', "item_id": 1}']
  path = write(tmp_path / "x.jsonl", "\n".join([good, *strange]))
  table = load_interactions(path, max_bad_share=0.9)
  assert len(table.interactions) == 1
  assert table.notes == {"unreadable rows skipped": 6}


def test_one_array_of_objects(tmp_path, way):
  rows = '[{"user_id": "1", "item_id": "a", "rating": 4, "timestamp": 10},\n'
  rows += ' {"user_id": "2", "item_id": "b",\n  "rating": 2, "timestamp": 20}]\n'
  assert rows_of(write(tmp_path / "x.json", rows)) == ROWS
  with pytest.raises(InputError, match="x.json: begins as a JSON array, but is none"):
    load_interactions(write(tmp_path / "x.json", rows[:60]))


def test_a_header_only_and_an_empty_file(tmp_path):
  for name, text, message in (
    ("x.csv", "user_id,item_id\n", "there are no interactions"),
    ("x.csv", "\n\n", "is empty"),
    ("x.csv", "user_id,item_id,user_id\n1,2,3", "column 'user_id' is there twice"),
  ):
    with pytest.raises(InputError, match=message):
      load_interactions(write(tmp_path / name, text))
