"""The user's own tables: every format, every fault by its line."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatrec_jax.data.tables import interaction_tables
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.errors import InputError

ROWS = [("007", "a", 4.5, 100), ("7", 'b "x", y', 1.0, 200), ("7", "a\nb", 3.0, 300)]
NAMES = ("user_id", "item_id", "rating", "timestamp")


def write(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def write_rows(path, rows=ROWS, names=NAMES, newline="\n", prefix=""):
  """`rows` in the format of the path's suffix."""
  if path.suffix == ".parquet":
    columns = [list(column) for column in zip(*rows, strict=True)]
    parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    return path
  if path.suffix == ".jsonl":
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
  else:
    separator = "\t" if path.suffix == ".tsv" else ","
    # Names in quotes say that a table between tabs has quotes at all.
    quoted = [
      ['"' + str(value).replace('"', '""') + '"' for value in row] for row in (names, *rows)
    ]
    lines = [separator.join(line) for line in quoted]
  return write(path, prefix + newline.join(lines) + newline)


def read(path, **settings):
  table = load_interactions(path, **settings)
  found, notes = table.interactions, table.notes
  columns = zip(found.user, found.item, found.rating, found.timestamp, strict=True)
  rows = [(found.user_ids[u], found.item_ids[i], float(r), int(t)) for u, i, r, t in columns]
  return rows, notes


@pytest.fixture(params=["fast", "slow"])
def way(request, monkeypatch):
  """Both ways of reading must agree wherever the fast one applies."""
  if request.param == "slow":
    monkeypatch.setattr(interaction_tables, "_read_fast", lambda *_: None)
  return request.param


FORMATS = ["csv", "tsv", "parquet", "jsonl"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(tmp_path, suffix, way):
  assert read(write_rows(tmp_path / f"x.{suffix}")) == (ROWS, {})


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_byte_order_mark_and_windows_lines(tmp_path, suffix, way):
  path = write_rows(tmp_path / f"x.{suffix}", newline="\r\n", prefix="\ufeff")
  assert read(path) == (ROWS, {})


def test_a_table_without_faults_takes_the_fast_way(tmp_path, monkeypatch):
  monkeypatch.setattr(interaction_tables, "_read_slowly", None)
  for suffix in FORMATS:
    # Line breaks within quotes are left to the slow way, which sees whether the quotes close.
    rows = [row for row in ROWS if "\n" not in row[1]]
    assert read(write_rows(tmp_path / f"x.{suffix}", rows)) == (rows, {})


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_names_and_order_of_columns(tmp_path, suffix, way):
  rows = [(t, r, "x", i, u) for u, i, r, t in ROWS]
  path = write_rows(tmp_path / f"x.{suffix}", rows, ("when", "stars", "other", "book", "who"))
  assert read(path, columns=Columns("who", "book", "stars", "when"))[0] == ROWS


@pytest.mark.parametrize("suffix", FORMATS)
def test_implicit_feedback_without_times(tmp_path, suffix, way):
  path = write_rows(tmp_path / f"x.{suffix}", [row[:2] for row in ROWS], NAMES[:2])
  expected = [(user, item, 1.0, 0) for user, item, _, _ in ROWS]
  assert read(path)[0] == expected
  full = write_rows(tmp_path / f"y.{suffix}")
  assert read(full, columns=Columns(rating="", time=""))[0] == expected


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
  ("columns", "flag"),
  [
    (Columns(user="who"), "'who' .`user_column`"),
    (Columns(item="what"), "'what' .`item_column`"),
    (Columns(rating="stars"), "'stars' .`rating_column`"),
    (Columns(time="when"), "'when' .`time_column`"),
    (Columns(user=""), "'' .`user_column`"),
  ],
)
def test_a_named_column_that_is_missing_is_named(tmp_path, suffix, columns, flag, way):
  path = write_rows(tmp_path / f"x.{suffix}")
  with pytest.raises(InputError, match=f"{path.name}: has no column {flag}.*user_id, item_id, rat"):
    load_interactions(path, columns=columns)


@pytest.mark.parametrize(
  ("text", "seconds"),
  [
    ("0", 0),
    ("-5", -5),
    ("1.9", 1),
    ("2001-09-09", 999_993_600),
    ("2001-09-09T01:46:40", 1_000_000_000),
    ("2001-09-09 01:46:40.75", 1_000_000_000),
    ("2001-09-09T01:46:40Z", 1_000_000_000),
    ("2001-09-09T03:46:40+02:00", 1_000_000_000),
    ("1969-12-31T23:59:59.5", -1),
  ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_times_as_text(tmp_path, text, seconds, suffix, way):
  path = write_rows(tmp_path / f"x.{suffix}", [("u", "i", 1, text)])
  assert read(path)[0][0][3] == seconds


@pytest.mark.parametrize(
  "column",
  [
    pa.array([datetime.date(2001, 9, 9)]),
    pa.array([999_993_600]),
    pa.array([999_993_600.5]),
    pa.array([datetime.datetime(2001, 9, 9)], type=pa.timestamp("ns")),
    pa.array([datetime.datetime(2001, 9, 9)], type=pa.timestamp("ms", tz="Europe/Vienna")),
    pa.array(["2001-09-09"]),
  ],
)
def test_times_of_parquet(tmp_path, column, way):
  table = pa.table({"user_id": [1], "item_id": [2], "timestamp": column})
  parquet.write_table(table, tmp_path / "x.parquet")
  assert read(tmp_path / "x.parquet")[0] == [("1", "2", 1.0, 999_993_600)]


def test_mixed_forms_of_time_in_one_column(tmp_path):
  path = write(tmp_path / "x.csv", "user_id,item_id,timestamp\n1,1,5\n1,2,1970-01-02\n")
  assert [row[3] for row in read(path)[0]] == [5, 86_400]


BAD_LINES = [
  ("x.csv", "1,2", "line 3 (2 fields, not 4)"),
  ("x.csv", "1,2,3,4,5", "line 3 (5 fields, not 4)"),
  ("x.csv", ",2,3,4", "line 3 (user_id '' is empty"),
  ("x.csv", "1, ,3,4", "line 3 (item_id ' ' is empty"),
  ("x.csv", "1,2,nan,4", "line 3 (rating 'nan' is not finite)"),
  ("x.csv", "1,2,-inf,4", "line 3 (rating '-inf' is not finite)"),
  ("x.csv", "1,2,1e39,4", "line 3 (rating '1e39' is not finite)"),
  ("x.csv", "1,2,,4", "line 3 (rating '' is not a number)"),
  ("x.csv", "1,2,good,4", "line 3 (rating 'good' is not a number)"),
  ("x.csv", "1,2,3,soon", "line 3 (time 'soon' is neither"),
  ("x.csv", "1,2,3,", "line 3 (time '' is neither"),
  ("x.csv", "1,2,3,9e99", "line 3 (time '9e99' is outside the years 1 to 9999"),
  ("x.csv", "1,a\0b,3,4", "line 3 (item_id 'a\\x00b' is empty or not text"),
  ("x.csv", f"1,2,3,{'9' * 4301}", "line 3 (time '999"),
  ("x.jsonl", '{"user_id": "1", ', "line 3 (not JSON: "),
  ("x.jsonl", "[1]", "line 3 (not a JSON object)"),
  ("x.jsonl", '{"user_id": "1", "rating": 3, "timestamp": 4}', "line 3 (item_id None is not"),
  ("x.jsonl", '{"user_id": "1", "item_id": [2], "rating": 3, "timestamp": 4}', "(item_id [2] is"),
  ("x.jsonl", '{"user_id": true, "item_id": "2", "rating": 3, "timestamp": 4}', "(user_id True"),
  ("x.jsonl", '{"user_id": "1", "item_id": "2", "rating": NaN, "timestamp": 4}', "rating nan is"),
  ("x.jsonl", '{"user_id": "1", "item_id": "2", "timestamp": 4}', "line 3 (rating None is"),
]


@pytest.mark.parametrize(("name", "line", "reason"), BAD_LINES)
def test_unreadable_rows_are_reported_by_line(tmp_path, caplog, name, line, reason):
  names = NAMES
  good = [(f"u{k}", "i", 3.0, k) for k in range(9)]
  lines = write_rows(tmp_path / name, good, names).read_bytes().splitlines(keepends=True)
  lines.insert(2, (line if isinstance(line, bytes) else line.encode()) + b"\n")
  path = write(tmp_path / name, b"".join(lines))
  rows, notes = read(path, max_bad_share=0.1)
  assert rows == good
  assert notes == {"unreadable rows skipped": 1}
  assert f"{path}: 1 of 10 rows cannot be read: " in caplog.text
  assert reason in caplog.text
  with pytest.raises(InputError, match="1 of 10 rows.*`max_bad_share=0.05`") as caught:
    load_interactions(path, max_bad_share=0.05)
  assert reason in str(caught.value)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_lines_are_those_of_the_file_where_fields_hold_line_breaks(tmp_path, caplog):
  text = 'user_id,item_id\n\n1,"a\nb\nc"\n1\n1,d\n'
  rows, _ = read(write(tmp_path / "x.csv", text), max_bad_share=0.5)
  assert [row[1] for row in rows] == ["a\nb\nc", "d"]
  assert "line 6 (1 fields, not 2)" in caplog.text


def test_an_open_quotation_mark_counts_all_lines_that_it_swallows(tmp_path):
  lines = "".join(f"1,{k},3\n" for k in range(50))
  path = write(tmp_path / "x.csv", f'user_id,item_id,rating\n{lines}1,"x,3\n{lines}')
  with pytest.raises(InputError, match=r"51 of 101 rows cannot be read: line 52 \("):
    load_interactions(path, max_bad_share=0.5)


def test_the_first_few_lines_are_named(tmp_path):
  path = write(tmp_path / "x.csv", "user_id,item_id,rating\n" + "1,2,x\n" * 9)
  with pytest.raises(InputError, match=r"9 of 9 rows cannot be read: line 2 .* 6 \(.*\) …;"):
    load_interactions(path, max_bad_share=1)


def test_unreadable_rows_of_parquet(tmp_path, caplog):
  table = pa.table(
    {"user_id": [1, None, 3, 4], "item_id": [1.0, 2.0, 3.0, 4.5], "rating": [1, 2, np.nan, 4]}
  )
  parquet.write_table(table, tmp_path / "x.parquet")
  rows, notes = read(tmp_path / "x.parquet", max_bad_share=0.75)
  assert rows == [("1", "1", 1.0, 0)]
  assert notes == {"unreadable rows skipped": 3}
  assert "row 2 (user_id None is not an id), 3 (rating nan is not finite), 4 (item" in caplog.text


def test_ids_of_mixed_types(tmp_path):
  lines = ['{"user_id": 1, "item_id": 2}', "", '{"user_id": "x1", "item_id": 2}']
  path = write(tmp_path / "x.jsonl", "\n".join(lines))
  with pytest.raises(InputError, match="x.jsonl: user_id is of mixed types, 1 in line 1 and 'x1'"):
    load_interactions(path, max_bad_share=1)


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("x.csv", "", "x.csv: is empty"),
    ("x.csv", "user_id,item_id\n", "x.csv: there are no interactions"),
    ("x.csv", "user_id,item_id,item_id\n1,2,3\n", "x.csv: column 'item_id' is there twice"),
    ("x.jsonl", "", "x.jsonl: is empty"),
    ("x.jsonl", "{\n", "x.jsonl: 1 of 1 rows cannot be read: line 1"),
    ("x.parquet", "PAR1", "x.parquet: cannot be read"),
    ("x.xlsx", "", "x.xlsx: format unknown; the name must end in .csv, .tsv, .txt"),
    ("x.csv", "user_id,item_id,timestamp\n1,2,9e99\n", "line 2 .time .* outside the y"),
  ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
  with pytest.raises(InputError, match=message):
    load_interactions(write(tmp_path / name, text))


def test_missing_file_and_bad_share(tmp_path):
  with pytest.raises(InputError, match="no.csv: there is no such file"):
    load_interactions(tmp_path / "no.csv")
  with pytest.raises(InputError, match="no: there is no such file or folder"):
    load_interactions(tmp_path / "no")
  with pytest.raises(InputError, match="max_bad_share=1.5: must be from 0 to 1"):
    load_interactions(write_rows(tmp_path / "x.csv"), max_bad_share=1.5)


def test_duplicates_and_unreadable_rows_are_both_counted(tmp_path):
  path = write(tmp_path / "x.csv", "user_id,item_id,rating\n1,2,3\n1,2,4\n1,2\n")
  rows, notes = read(path, max_bad_share=0.5)
  assert rows == [("1", "2", 4.0, 0)]
  assert notes == {"unreadable rows skipped": 1, "duplicate ratings dropped": 1}


_id = st.text(st.characters(codec="utf-8", exclude_characters="\x00\ufffd"), min_size=1, max_size=4)


@settings(
  max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
  ids=st.lists(
    _id.filter(lambda text: text and text == text.strip()), min_size=1, max_size=8, unique=True
  ),
  suffix=st.sampled_from(FORMATS),
)
def test_any_text_can_be_an_id(tmp_path, ids, suffix):
  path = write_rows(tmp_path / f"x.{suffix}", [(raw_id, raw_id, 2, 3) for raw_id in ids])
  assert read(path) == ([(raw_id, raw_id, 2.0, 3) for raw_id in ids], {})
