"""One call for every `--dataset`, and the merging of metadata."""

import json

import pytest

from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.tables.columns import Columns
from gatrec_jax.errors import InputError


@pytest.fixture
def metadata(tmp_path):
  lines = [
    {"item_id": 1, "overview": "Toys."},
    {"item_id": 2, "title": "New", "genres": "Comedy|War"},
    {"item_id": 99, "title": "Cold"},
  ]
  path = tmp_path / "items.jsonl"
  path.write_text("\n".join(map(json.dumps, lines)))
  return str(path)


@pytest.fixture
def small_100k(tmp_path, monkeypatch):
  """A data_dir with three ratings in the form of ml-100k."""
  folder = tmp_path / "data" / "ml-100k"
  folder.mkdir(parents=True)
  (folder / "u.data").write_text("1\t1\t5\t1\n1\t2\t4\t2\n2\t1\t3\t3\n")
  (folder / "u1.base").write_text("1\t1\t5\t1\n1\t2\t4\t2\n")
  (folder / "u1.test").write_text("2\t1\t3\t3\n")
  (folder / "u.user").write_text("1|24|M|x|0\n2|24|M|x|0\n")
  (folder / "u.genre").write_text("Drama|0\n")
  (folder / "u.item").write_text("1|Toy Story (1995)||||1\n2|Old||||1\n")
  return str(tmp_path / "data")


def test_movielens_keeps_its_catalog_and_gains_fields(small_100k, metadata):
  dataset = load_dataset("ml-100k", data_dir=small_100k, fold="u1", item_metadata=metadata)
  assert list(dataset.item_fields) == [
    {"title": "Toy Story (1995)", "genres": ["Drama"], "overview": "Toys."},
    {"title": "New", "genres": ["Comedy", "War"]},
  ]
  assert dataset.test_rows.tolist() == [False, False, True]
  assert dataset.notes == {"metadata items not in the catalog": 1}


def test_metadata_adds_cold_items_to_the_users_own_table(tmp_path, metadata):
  path = tmp_path / "mine.csv"
  path.write_text("user_id,item_id,stars\na,2,3\na,3,4\na,3,5\n")
  columns = Columns(rating="stars")
  dataset = load_dataset(str(path), columns=columns, item_metadata=metadata)
  assert dataset.name == str(path)
  assert dataset.interactions.item_ids == ("1", "2", "3", "99")
  assert list(dataset.item_fields) == [
    {"overview": "Toys."},
    {"title": "New", "genres": ["Comedy", "War"]},
    {},
    {"title": "Cold"},
  ]
  assert dataset.notes == {"duplicate ratings dropped": 1}
  assert list(load_dataset(str(path), columns=columns).item_fields) == [{}, {}]


def test_counts_of_both_files_are_told_apart(tmp_path):
  table, items = tmp_path / "mine.csv", tmp_path / "items.csv"
  table.write_text("user_id,item_id\na,2\na\n")
  items.write_text("item_id,title\n2,A\n2\n3\n")
  dataset = load_dataset(str(table), item_metadata=str(items), max_bad_share=0.7)
  assert dataset.notes == {
    "unreadable rows skipped": 1,
    "unreadable rows skipped (item metadata)": 2,
  }


def test_demo():
  dataset = load_dataset("demo")
  assert dataset.name == "demo"
  assert dataset.item_fields[0]["title"]
  assert load_dataset("demo", seed=1).item_fields != dataset.item_fields


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    (dict(dataset="ml-100"), "dataset=ml-100: unknown. Did you mean ml-10.*demo, ml-100k, ml-1m"),
    (dict(dataset="ML-1M"), "Did you mean ml-1m?"),
    (dict(dataset=""), "dataset=: unknown"),
    (dict(dataset="zzz"), "dataset=zzz: unknown. It is one of demo"),
    (dict(dataset="no/such.csv"), "no/such.csv: there is no such file"),
    (dict(dataset="demo", fold="u1"), "fold=u1: demo has no shipped folds"),
    (dict(dataset="mine.csv", fold="u1"), "fold=u1: mine.csv has no shipped folds"),
    (dict(dataset="demo", item_metadata="no.jsonl"), "no.jsonl: there is no such file"),
  ],
)
def test_bad_choices_are_named(chosen, message):
  with pytest.raises(InputError, match=message):
    load_dataset(**chosen)
