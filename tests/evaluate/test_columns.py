"""Cells for spreadsheets, tables of ids, and the run that made a file of lists."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.columns import escape_cell, index_column, read_columns, unescape_cell
from gatrec_jax.evaluate.files import metadata_of_run, read_recommendations, run_of_lists


@pytest.mark.parametrize(
  ("text", "escaped"),
  [
    ("=1+1", "'=1+1"),
    ("+49 30", "'+49 30"),
    ("-x", "'-x"),
    ("@sum", "'@sum"),
    ("\tx", "'\tx"),
    ("\rx", "'\rx"),
    ("'=x", "''=x"),  # so that unescaping gives it back
    ("-5", "-5"),
    ("+1.5e-3", "+1.5e-3"),
    ("a=b", "a=b"),
    ("'tis", "'tis"),
    ("", ""),
  ],
)
def test_cells_that_would_be_executed_get_an_apostrophe(text, escaped):
  assert escape_cell(text) == escaped and unescape_cell(escaped) == text


@given(st.text(alphabet="'=-+@\t1a", max_size=6))
def test_escaping_is_undone(text):
  assert unescape_cell(escape_cell(text)) == text


def test_columns_of_every_format(tmp_path):
  ids = ("007", "-a", "7", "a,b")
  (tmp_path / "t.csv").write_text('\ufeffitem_id,x\n\'-a,1\n"a,b",2\n007,3\n', encoding="utf-8")
  (tmp_path / "t.tsv").write_text("x\titem_id\n1\t7\n2\tnone\n")
  (tmp_path / "t.jsonl").write_text('{"item_id": 7}\n\n{"item_id": "007"}\n{"item_id": 7.0}\n')
  pq.write_table(pa.table({"item_id": pa.array([7.0, None])}), tmp_path / "t.parquet")
  want = {"csv": [1, 3, 0], "tsv": [2, -1], "jsonl": [2, 0, 2], "parquet": [2, -1]}
  for suffix, places in want.items():
    (column,) = read_columns(tmp_path / f"t.{suffix}", ["item_id"], what="items").values()
    assert index_column(column, ids).tolist() == places


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[1]\n", "cannot be read as a table of items .a line is no JSON object"),
    ("{\n", "cannot be read"),
    ('{"item": 1}\n', "column item_id is missing"),
    ("", "no rows"),
  ],
)
def test_bad_json_lines_are_one_line(tmp_path, text, message):
  (tmp_path / "t.jsonl").write_text(text)
  with pytest.raises(InputError, match=f"t.jsonl: {message}") as error:
    read_columns(tmp_path / "t.jsonl", ["item_id"], what="items")
  assert "\n" not in str(error.value)


def test_json_lines_of_lists_are_read_as_others_are(tmp_path):
  rows = [("2", "b", 2), ("2", "a", 1), ("1", "a", 5)]
  lines = [json.dumps({"user_id": u, "item_id": i, "rank": r}) for u, i, r in rows]
  (tmp_path / "l.jsonl").write_text("\n".join(lines))
  users, items = read_recommendations(
    tmp_path / "l.jsonl", user_ids=("1", "2"), item_ids=("a", "b")
  )
  assert users.tolist() == [0, 1] and items.tolist() == [[0, -1], [0, 1]]


def test_a_file_says_which_run_made_it(tmp_path):
  run, table = tmp_path / "run", pa.table({"user_id": ["1"]})
  (run / "data").mkdir(parents=True)
  (run / "config.json").write_text("{}")
  named = table.replace_schema_metadata(metadata_of_run(run))
  pq.write_table(named, tmp_path / "named.parquet")
  pq.write_table(table, tmp_path / "plain.parquet")
  (run / "rerank").mkdir()
  assert run_of_lists(tmp_path / "named.parquet") == run
  assert run_of_lists(run / "rerank" / "lists.csv") == run  # any file within it
  for name in ("plain.parquet", "lists.csv", "absent.parquet"):
    assert run_of_lists(tmp_path / name) is None
  (run / "config.json").unlink()
  with pytest.raises(InputError, match="named.parquet: made by the run .*run, which is not there"):
    run_of_lists(tmp_path / "named.parquet")


@pytest.mark.parametrize(
  "ids",
  [
    pa.array([b"1", b"2"]),
    pa.array([{"a": 1}, {"a": 2}]),
    pa.array([["1"], ["2"]]),
    pa.array([True, False]),
    pa.array([2**30, 1], pa.date32()),
  ],
  ids=lambda ids: str(ids.type),
)
def test_columns_that_hold_neither_numbers_nor_texts_are_refused(tmp_path, ids):
  path = tmp_path / "lists.parquet"
  pq.write_table(pa.table({"user_id": ["1", "2"], "item_id": ids, "rank": [1, 2]}), path)
  with pytest.raises(InputError, match="column item_id holds .*; numbers or texts are needed"):
    read_recommendations(path, user_ids=["1", "2"], item_ids=["1", "2"])


def test_dictionaries_are_decoded_and_ranks_bounded(tmp_path):
  path, vocabulary = tmp_path / "lists.parquet", ["1", "2"]
  ids = pa.array(vocabulary).dictionary_encode()
  pq.write_table(pa.table({"user_id": ids, "item_id": ids, "rank": [1, 1]}), path)
  users, lists = read_recommendations(path, user_ids=vocabulary, item_ids=vocabulary)
  assert users.tolist() == [0, 1] and lists.tolist() == [[0], [1]]
  path = tmp_path / "lists.jsonl"
  for rank in ("9" * 400, "1e300", "9007199254740993"):
    path.write_text(f'{{"user_id": 1, "item_id": 2, "rank": {rank}}}')
    with pytest.raises(InputError, match="is not a whole number"):
      read_recommendations(path, user_ids=vocabulary, item_ids=vocabulary)
