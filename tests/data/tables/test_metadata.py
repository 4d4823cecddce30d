"""Tables of items: every format, every spelling of a column, every kind of value."""

import datetime
import decimal
import json
import logging

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from helpers.paths import DATA as SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatrec_jax.data.tables.item_columns import columns_of, plain_name
from gatrec_jax.data.tables.metadata import load_item_metadata
from gatrec_jax.errors import InputError
from gatrec_jax.profiles import attributes, builder


def write_lines(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def fields_of(tmp_path, **columns):
  """The fields of one item with these values."""
  path = write_lines(tmp_path / "one.jsonl", [{"item_id": "a", **columns}])
  return load_item_metadata(path).fields["a"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_every_format(tmp_path, suffix):
  names = ("item_id", "title", "genres", "year", "shelf")
  rows = [(1, " A \n b", "Drama| Sci-Fi|", 1999, ""), (2, "", "", 2000, "x")]
  path = tmp_path / f"x.{suffix}"
  if suffix == "parquet":
    parquet.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path)
  elif suffix == "jsonl":
    write_lines(path, [dict(zip(names, row, strict=True)) for row in rows])
  else:
    sign = "\t" if suffix == "tsv" else ","
    path.write_text("\n".join(sign.join(f'"{v}"' for v in row) for row in [names, *rows]) + "\n")
  found = load_item_metadata(path)
  assert found.fields == {
    "1": {"title": "A \n b", "genres": ["Drama", "Sci-Fi"], "year": "1999"},
    "2": {"year": "2000", "shelf": "x"},
  }
  assert found.notes == {} and found.id_column == "item_id"
  assert found.sentence == "items: title, genres, year; other fields: 'shelf'"


BOOKS = """ISBN,Book-Title,Book-Author,Year-Of-Publication,Publisher,Image-URL-S
0195153448,Classical Mythology,Mark P. O. Morford,2002,"Oxford, Inc.",http://images.test/a.jpg
0002005018,Clara Callan,NaN,0,Collins,http://images.test/b.jpg
"""


def test_book_crossing(tmp_path):
  path = tmp_path / "books.csv"
  path.write_text(BOOKS)
  found = load_item_metadata(path)
  assert found.fields == {
    "0195153448": {
      "title": "Classical Mythology",
      "author": "Mark P. O. Morford",
      "year": "2002",
      "publisher": ["Oxford, Inc."],
    },
    "0002005018": {"title": "Clara Callan", "publisher": ["Collins"]},
  }
  assert found.sentence == (
    "items: ids from 'ISBN', title from 'Book-Title', author from 'Book-Author', year from "
    "'Year-Of-Publication', publisher from 'Publisher'; not used: 'Image-URL-S' (a link)"
  )


def test_amazon(tmp_path):
  line = {
    "asin": "B01",
    "title": "[Blue] pen",
    "brand": "HP, Inc.",
    "categories": [["Office", "Pens"], ["Office", "Ink"]],
    "main_cat": "Arts, Crafts & Sewing",
    "description": ["First.", "Second."],
    "feature": ["Steel.", "Light."],
    "also_buy": ["B02", "B03"],
    "details": {"weight": "1 oz"},
    "images": [{"large": "x"}],
    "imUrl": "https://images.test/B01.jpg",
    "price": 3.0,
    "rank": [],
  }
  found = load_item_metadata(write_lines(tmp_path / "x.jsonl", [line]))
  assert found.fields == {
    "B01": {
      "title": "[Blue] pen",
      "brand": ["HP, Inc."],
      "genres": ["Office", "Pens", "Ink", "Arts, Crafts & Sewing"],
      "description": "First. Second.",
      "features": "Steel. Light.",
      "price": "3",
    }
  }
  assert found.sentence.endswith(
    "other fields: 'price'; not used: 'also_buy' (ids of other items), 'details' (an object), "
    "'images' (a list of objects), 'imUrl' (a link), 'rank' (empty)"
  )


@pytest.mark.parametrize(
  ("header", "values", "fields"),
  [
    (
      "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
      "7\tToy Story\t1995\tAnimation Comedy",
      {"title": "Toy Story", "year": "1995", "genres": ["Animation", "Comedy"]},
    ),
    ("track_id\ttrack\tartist_name", "7\tOne\tU2", {"title": "One", "artist": "U2"}),
    ("artist_id\tartist_name\tTAGS", "7\tU2\trock;pop", {"title": "U2", "tags": ["rock", "pop"]}),
    ("movieId\ttitle\tgenres", "7\tA, B\tX|Y", {"title": "A, B", "genres": ["X", "Y"]}),
    ("anime_id\tname\tGenre", "7\tA\tX, Y", {"title": "A", "genres": ["X", "Y"]}),
    ("app_id\tname\tdevelopers", "7\tA\t['B', 'C']", {"title": "A", "developer": "B, C"}),
    (
      "n\tid\tproduct name\tCategory",
      "1\t7\tA\tB, C",
      {"title": "A", "genres": ["B, C"], "n": "1"},
    ),
    ("sku_code\tName\tPlot Keywords", "7\tA\tp|q", {"title": "A", "keywords": ["p", "q"]}),
    ("id\ttitle\toriginal_title", "7\tA\tB", {"title": "A", "original_title": "B"}),
  ],
)
def test_spellings(tmp_path, header, values, fields):
  path = tmp_path / ("x.item" if ":" in header else "x.tsv")
  path.write_text(f"{header}\n{values}\n")
  assert {k: v for k, v in load_item_metadata(path).fields["7"].items()} == fields


def test_every_recognized_field_is_one_that_profiles_read():
  names = (
    "title name genre tag keyword director actors writer author artist brand studio year "
    "release_date overview plot summary synopsis description abstract text tagline publisher"
  )
  read = {"title", "name", "genres", "tagline", *builder.OVERVIEW_FIELDS, *builder.TAG_FIELDS}
  read |= {*builder.CREDIT_FIELDS, *attributes.YEAR_FIELDS}
  assert {column.field for column in columns_of(names.split(), id_column="item_id")} <= read


def test_commas_separate_categories_only_where_their_parts_recur(tmp_path):
  def genres(*texts):
    rows = [{"item_id": n, "category": text} for n, text in enumerate(texts)]
    found = load_item_metadata(write_lines(tmp_path / "x.jsonl", rows))
    return [fields["genres"] for fields in found.fields.values()]

  assert genres("Arts, Crafts & Sewing", "Office") == [["Arts, Crafts & Sewing"], ["Office"]]
  assert genres("Pens, Ink", "Ink, Paper", "Pens") == [["Pens", "Ink"], ["Ink", "Paper"], ["Pens"]]
  assert genres("A; B, C", "D") == [["A", "B, C"], ["D"]]


@pytest.mark.parametrize(
  ("names", "item_column", "chosen"),
  [
    (["sku", "item_id", "title"], "sku", "sku"),
    (["id", "item_id", "title"], "what", "item_id"),
    (["title", "Item ID"], "item_id", "Item ID"),
    (["title", "parent_asin", "id"], "item_id", "parent_asin"),
    (["title", "shelf_code"], "item_id", "shelf_code"),
    (["Unnamed: 0", "label", "thing", "title"], "item_id", "thing"),  # labels repeat
  ],
)
def test_the_column_of_ids(tmp_path, names, item_column, chosen):
  rows = [{name: f"{name[:2]}{n}".replace(" ", "") for name in names} for n in range(3)]
  for row in rows:
    row |= {"label": "same"} if "label" in row else {}
  path = write_lines(tmp_path / "x.jsonl", rows)
  assert load_item_metadata(path, item_column=item_column).id_column == chosen


def test_an_unclear_column_of_ids_is_asked_for(tmp_path):
  path = tmp_path / "x.csv"
  path.write_text("left,right,title\na,b,A\nc,d,B\n")
  with pytest.raises(
    InputError, match="which column holds the item ids.*'what'.*left, right, title"
  ):
    load_item_metadata(path, item_column="what")


def test_lists_and_missing_values(tmp_path):
  found = fields_of(tmp_path, genres=["X", None, [["Y "], []]], cast=["P", "Q"], n=None, f=2.5)
  assert found == {"genres": ["X", "Y"], "cast": "P, Q", "f": "2.5"}
  table = pa.table({"item_id": [1.0], "genres": [["X"]], "year": [float("nan")], "pages": [3.0]})
  parquet.write_table(table, tmp_path / "x.parquet")
  assert load_item_metadata(tmp_path / "x.parquet").fields == {"1": {"genres": ["X"], "pages": "3"}}


def test_strange_values_raise_nothing(tmp_path):
  table = pa.table(
    {
      "item_id": ["a", "b"],
      "title": [b"\xff", b"x"],
      "day": [datetime.date(2001, 2, 3), None],
      "cost": [decimal.Decimal("1.50"), None],
      "inf": [float("inf"), -float("inf")],
      "big": [1e300, 2.0**60],
      "map": [[{"k": 1}], []],
    }
  )
  parquet.write_table(table, tmp_path / "x.parquet")
  found = load_item_metadata(tmp_path / "x.parquet")
  assert found.fields["a"] == {"day": "2001-02-03", "cost": "1.50", "big": "1e+300"}
  assert "'title' (bytes)" in found.sentence and "'map' (a list of objects)" in found.sentence
  assert fields_of(tmp_path, title="A", tags="[" * 5000 + "]" * 5000)["title"] == "A"
  assert fields_of(tmp_path, tags="[" + "9" * 4301 + "]")


_values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
  ),
  max_leaves=6,
)


@settings(
  suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
  st.lists(_values, min_size=1, max_size=4), st.sampled_from(["title", "genres", "brand", "z"])
)
def test_any_value_gives_text_or_nothing(tmp_path, values, name):
  rows = [{"item_id": str(n), name: value} for n, value in enumerate(values)]
  found = load_item_metadata(write_lines(tmp_path / "x.jsonl", rows))
  assert len(found.fields) == len(values)
  for own in found.fields.values():
    for value in own.values():
      parts = value if isinstance(value, list) else [value]
      assert parts and all(isinstance(part, str) and part for part in parts)


def test_unreadable_and_repeated_rows(tmp_path, caplog):
  rows = [{"item_id": 1, "title": "A"}, {"title": "B"}, {"item_id": 2, "title": {"en": "B"}}]
  path = write_lines(tmp_path / "x.jsonl", [*rows, {"item_id": 1, "title": "C"}])
  found = load_item_metadata(path, max_bad_share=0.5)
  assert found.fields == {"1": {"title": "C"}, "2": {}}
  assert found.notes == {"unreadable rows skipped": 1, "metadata rows replaced": 1}
  assert found.sentence == "items: title; not used: 'title' (an object in 1 of 3 items)"
  assert "line 2 (item_id None is not an id)" in caplog.text
  with pytest.raises(InputError, match="x.jsonl: 1 of 4 rows"):
    load_item_metadata(path)


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("x.csv", "item_id,title\n", "x.csv: there are no items"),
    ("x.jsonl", '{"item_id": 1}\n{"item_id": "x1"}', "item_id is of mixed types, 1 in line 1"),
  ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=message):
    load_item_metadata(tmp_path / name)


def test_plain_names():
  assert plain_name(" Image-URL-S ") == "image_url_s" and plain_name("Unnamed: 0") == "unnamed_0"
  assert plain_name("itemID") == "item_id"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data in {SHARED}")
@pytest.mark.parametrize(
  ("name", "items", "without"), [("metadata_ml100k", 1682, 10), ("metadata_ml1m", 3883, 12)]
)
def test_real_metadata(name, items, without, caplog):
  caplog.set_level(logging.ERROR)
  found = load_item_metadata(SHARED / f"{name}.jsonl")
  assert (len(found.fields), found.notes) == (items, {})
  assert sum("overview" not in fields for fields in found.fields.values()) == without


def test_text_that_is_not_utf_8_needs_its_encoding(tmp_path):
  path = tmp_path / "x.csv"
  path.write_bytes("item_id,title\n1,Amélie\n".encode("latin-1"))
  with pytest.raises(InputError, match="line 2 is not UTF-8"):
    load_item_metadata(path)
  assert load_item_metadata(path, encoding="latin-1").fields == {"1": {"title": "Amélie"}}
