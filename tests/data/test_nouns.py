"""What items are called, from names of columns and files."""

import pytest

from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.nouns import kind_of, noun_of_table, plural
from gatrec_jax.data.tables.metadata import ItemMetadata


@pytest.mark.parametrize(
  ("dataset", "item", "columns", "noun"),
  [
    ("r.csv", "movieId", (), "film"),
    ("r.csv", "ISBN", ("price",), "book"),
    ("r.csv", "item_id", ("book_title",), "book"),
    ("r.csv", "item_id", ("asin", "title"), "product"),
    ("r.csv", "item_id", ("title", "author"), "book"),
    ("r.csv", "item_id", ("title", "brand"), "product"),
    ("r.csv", "item_id", ("title", "director"), "film"),
    ("r.csv", "track_id", ("artist",), "song"),
    ("r.csv", "artist_id", ("tags",), "artist"),
    ("games.csv", "item_id", ("title", "price"), "game"),
    ("anime/ratings.csv", "item_id", ("title",), "anime"),
    ("bookings/r.csv", "item_id", ("title",), "item"),
  ],
)
def test_nouns_of_tables(dataset, item, columns, noun):
  metadata = ItemMetadata(columns=columns)
  assert noun_of_table(dataset, item, metadata) == noun


def test_named_data_sets_have_films_and_a_given_noun_counts(tmp_path):
  assert load_dataset("demo").item_noun == "film"
  assert load_dataset("demo", item_noun="toy").item_noun == "toy"
  (tmp_path / "r.csv").write_text("user_id,item_id\na,1\n")
  assert load_dataset(str(tmp_path / "r.csv"), item_noun="toy").item_noun == "toy"


def test_plurals():
  words = {"film": "films", "anime": "anime", "series": "series", "box": "boxes", "city": "cities"}
  assert {word: plural(word) for word in words} == words
  assert kind_of("blue", "toy") == "blue toy" and kind_of("blue toys", "toy") == "blue toys"
