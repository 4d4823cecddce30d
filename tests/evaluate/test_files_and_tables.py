"""Recommendation files of other tools, good and bad; tables for people."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations, write_recommendations
from launch.cli.evaluation_tables import evaluation_grid, rows_by_cutoff
from launch.cli.grid import markdown_grid, print_grid

IDS = {"user_ids": ("1", "2", "3"), "item_ids": ("10", "20", "007", "a b")}


def read(tmp_path, text, name="lists.csv"):
  path = tmp_path / name
  path.write_text(text, encoding="utf-8")
  return read_recommendations(path, **IDS)


def test_reads_any_order_gaps_and_lengths(tmp_path):
  text = "rank,item_id,note,user_id\n7,10,x,3\n3,007,x,3\n1,a b,,1\n"
  for separator, name in ((",", "lists.csv"), ("\t", "lists.tsv")):
    users, items = read(tmp_path, text.replace(",", separator), name)
    assert users.tolist() == [0, 2]
    assert items.tolist() == [[3, -1], [2, 0]]


def test_reads_parquet_with_numbers_for_ids(tmp_path):
  path = tmp_path / "lists.parquet"
  for kind in (pa.int64(), pa.float64()):
    table = {"user_id": pa.array([2, 2], kind), "item_id": pa.array([20, 10], kind)}
    pq.write_table(pa.table(table | {"rank": [1, 2]}), path)
    users, items = read_recommendations(path, **IDS)
    assert users.tolist() == [1] and items.tolist() == [[1, 0]]


def test_written_lists_are_read_back(tmp_path):
  items = np.array([[0, 3, -1], [2, -1, -1]], np.int32)
  path = tmp_path / "recommendations.parquet"
  write_recommendations(
    path, users=np.array([0, 2]), items=items, scores=np.zeros((2, 3), np.float32), **IDS
  )
  assert pq.read_table(path).column_names == ["user_id", "item_id", "rank", "score"]
  assert pq.read_schema(path).field("user_id").type == pa.int64()
  users, found = read_recommendations(path, **IDS)
  assert users.tolist() == [0, 2] and found.tolist() == items[:, :2].tolist()
  assert [p.name for p in tmp_path.iterdir()] == ["recommendations.parquet"]
  with pytest.raises(InputError, match="cannot be written"):
    write_recommendations(
      path / "inside" / "x.parquet",
      users=np.array([0]),
      items=items[:1],
      scores=np.zeros((1, 3)),
      **IDS,
    )


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("user_id,item_id\n1,10\n", "column rank is missing"),
    ("user_id,item_id,rank\n", "no rows"),
    ("", "cannot be read"),
    ("user_id,item_id,rank\n1,10\n", "cannot be read"),
    ("user_id,item_id,rank\n1,10,1\n9,10,1\n", "row 2: user_id 9 is unknown .1 such rows"),
    ("user_id,item_id,rank\n1,7,1\n", "row 1: item_id 7 is unknown"),
    ("user_id,item_id,rank\n1,,1\n", "row 1: item_id is empty"),
    ("user_id,item_id,rank\n1,10,1.5\n", "row 1: rank '1.5' is not a whole number"),
    ("user_id,item_id,rank\n1,10,1\n1,20,first\n", "row 2: rank 'first'"),
    ("user_id,item_id,rank\n1,10,1\n1,20,nan\n", "row 2: rank"),
    ("user_id,item_id,rank\n1,10,1\n1,20,\n", "row 2: rank None"),
    (
      "user_id,item_id,rank\n1,10,1\n2,10,1\n1,10,2\n",
      "row 3: item_id 10 appears twice for user 1",
    ),
    ("user_id,item_id,rank\n1,10,1\n1,20,1\n", "row 2: rank 1 appears twice for user 1"),
  ],
)
def test_bad_files_are_named_with_their_row(tmp_path, text, message):
  with pytest.raises(InputError, match=f"lists.csv.*{message}") as error:
    read(tmp_path, text)
  assert "\n" not in str(error.value)


def test_missing_and_broken_files(tmp_path):
  with pytest.raises(InputError, match="no such file"):
    read_recommendations(tmp_path / "absent.csv", **IDS)
  (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
  with pytest.raises(InputError, match="broken.parquet: cannot be read"):
    read_recommendations(tmp_path / "broken.parquet", **IDS)


RESULTS = {
  "ndcg@10": {"mean": 0.42537, "lo": 0.4, "hi": 0.45, "n": 456},
  "coverage@10": {"mean": 0.25, "lo": None, "hi": None, "n": 456},
  "ndcg@5": {"mean": 0.5, "lo": 0.4, "hi": 0.6, "n": 456},
}


def test_tables_show_figures_intervals_and_definitions():
  out = io.StringIO()
  rows = {"ours [best]": RESULTS, "old": {"ndcg@10": {"mean": 0.0, "lo": None, "hi": None, "n": 0}}}
  metrics = ["ndcg@10", "coverage@10"]
  given = dict(title="u1 [full]", protocol="full", metrics=metrics, notes=["a note"])
  print_grid(evaluation_grid(rows, **given), file=out)
  text = out.getvalue()
  for part in ("u1 [full]", "ours [best]", "0.4254 [0.4000, 0.4500]", "ndcg: binary", "a note"):
    assert part in text
  assert "recall:" not in text
  grid = evaluation_grid(rows, title="u1", protocol="judged", metrics=metrics, digits=2)
  markdown = markdown_grid(grid)
  assert "| ours [best] | 0.43 [0.40, 0.45] | 0.25 | 456 |" in markdown
  assert "| old | – | – | 0 |" in markdown
  assert "judged-only" in markdown


def test_rows_by_cutoff():
  rows = rows_by_cutoff(RESULTS)
  assert list(rows) == ["@5", "@10"]
  assert set(rows["@10"]) == {"ndcg", "coverage"}
