"""Metadata joined to ratings whose ids are spelled in another way."""

import numpy as np
import pytest

from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.tables.joining import with_items

ITEMS = 40


def load(tmp_path, rated, described, *, column="item_id", more=lambda n: ""):
  """A data set from ids of ratings and of metadata, both by number."""
  (tmp_path / "ratings.csv").write_text(
    "user_id,item_id,rating\n" + "".join(f"u{n % 5},{rated(n)},4\n" for n in range(1, ITEMS + 1))
  )
  (tmp_path / "items.csv").write_text(
    f"{column},title,extra\n"
    + "".join(f"{described(n)},T{n},{more(n)}\n" for n in range(1, ITEMS + 1))
  )
  return load_dataset(str(tmp_path / "ratings.csv"), item_metadata=str(tmp_path / "items.csv"))


@pytest.mark.parametrize(
  ("rated", "described", "words"),
  [
    (lambda n: f"{n}.0", str, ["'1.0' and '1'", "write whole numbers without a fraction"]),
    (str, lambda n: f"{n:03}", ["'1' and '001'", "leading zeros"]),
    (lambda n: f"b{n}", lambda n: f"B{n}", ["'b1' and 'B1'", "capitals"]),
    (lambda n: f"x{n}", lambda n: f"y{n}", ["'x1' and 'y1'"]),
  ],
)
def test_ids_that_do_not_join_are_shown_and_left_out(tmp_path, rated, described, words):
  found = load(tmp_path, rated, described)
  warning = found.sentences[-1]
  assert warning.startswith("warning: none of the 40 items of the metadata is rated: ids look like")
  assert all(word in warning for word in words), warning
  assert found.interactions.num_items == ITEMS and not any(found.item_fields)
  assert found.notes == {"metadata items not in the catalog": ITEMS}


def test_blanks_around_ids_do_not_matter(tmp_path):
  found = load(tmp_path, lambda n: f" {n}", lambda n: f"{n} ")
  assert len(found.sentences) == 2 and found.notes == {}
  assert [fields["title"] for fields in found.item_fields] == [f"T{n}" for n in range(1, ITEMS + 1)]


def test_another_column_that_joins_is_named(tmp_path):
  found = load(tmp_path, str, lambda n: f"k{n}", more=lambda n: n if n < 31 else "")
  assert "its column 'extra' has 30 of the 40 rated items" in found.sentences[-1]


def test_few_that_join_are_counted_and_the_others_are_cold_items(tmp_path):
  found = load(tmp_path, str, lambda n: n if n < 3 else f"{n:04}")
  assert "only 2 of the 40 items of the metadata are rated" in found.sentences[-1]
  assert "leading zeros" in found.sentences[-1] and "left out" not in found.sentences[-1]
  assert found.interactions.num_items == 78
  assert len(load(tmp_path, str, lambda n: n if n < 5 else f"new{n}").sentences) == 2


def test_added_items_take_their_place_in_the_order():
  rows = with_items(Interactions.from_arrays([1, 1], [5, 30], [4, 2]), ["7", "5", "100"])
  assert rows.item_ids == ("5", "7", "30", "100")
  np.testing.assert_array_equal(rows.item, [0, 2])
  assert with_items(rows, ["x"]).item_ids == ("100", "30", "5", "7", "x")
