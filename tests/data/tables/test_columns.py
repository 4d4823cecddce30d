"""Columns under other names, and those that are asked about."""

import pytest

from gatrec_jax.data.meaning import Reading
from gatrec_jax.data.tables.columns import Columns, find_columns
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.data.tables.row_reader import parse_rating
from gatrec_jax.data.tables.source import TableOptions
from gatrec_jax.errors import InputError


def find(names, numeric=(), columns=Columns(), kind="auto"):
  ranges = {name: "1 to 10" for name in numeric}
  return find_columns("x.csv", columns, names, numeric=ranges, kind=kind)


@pytest.mark.parametrize(
  ("names", "columns"),
  [
    (["user_id", "item_id", "rating", "timestamp"], Columns()),
    (["userId", "movieId", "Rating", "date"], Columns("userId", "movieId", "Rating", "date")),
    (["User-ID", "ISBN", "Book-Rating"], Columns("User-ID", "ISBN", "Book-Rating", "")),
    (
      ["reviewerID", "asin", "overall", "unixReviewTime", "reviewText"],
      Columns("reviewerID", "asin", "overall", "unixReviewTime"),
    ),
    (
      ["rating", "title", "asin", "parent_asin", "user_id", "timestamp"],
      Columns("user_id", "parent_asin"),
    ),
    (["userID", "artistID", "weight"], Columns("userID", "artistID", "weight", "")),
    (
      ["visitorid", "event", "itemid", "timestamp"],
      Columns("visitorid", "itemid", "", "timestamp", "event"),
    ),
    (["user", "item"], Columns("user", "item", "", "")),
  ],
)
def test_published_layouts(names, columns):
  numeric = [name for name in names if name not in ("event", "reviewText", "title")]
  found, remarks = find(names, numeric)
  assert found == columns
  assert len([remark for remark in remarks if "not used" not in remark]) == sum(
    bool(getattr(found, field)) and getattr(found, field) != default
    for field, default in vars(Columns()).items()
  )


def test_a_column_that_looks_like_ratings_is_asked_about():
  names = ["user_id", "item_id", "score", "price"]
  with pytest.raises(
    InputError, match="'score' .numbers from 1 to 10. .*`rating_column=score`.*`fe"
  ):
    find(names, ["score", "price"])
  assert find(names, ["score"], Columns(rating=""))[0].rating == ""
  assert find(names, ["score"], Columns(rating="score"))[0].rating == "score"
  assert find(names, ["score"], kind="implicit")[0].rating == ""
  assert find(names, ["price"])[0].rating == ""  # a score of words is not one


def test_events():
  names = ["user_id", "item_id", "rating", "action"]
  assert find(names, ["rating"])[0].event == ""
  assert find(names, ["rating"], kind="events")[0].event == "action"
  with pytest.raises(InputError, match="feedback=events: x.csv: needs `event_column`"):
    find(names[:3], ["rating"], kind="events")
  with pytest.raises(InputError, match="event_column=action: `feedback=counts` reads no events"):
    find(names, ["rating"], Columns(event="action"), "counts")
  with pytest.raises(InputError, match="has no column 'what' .`event_column`"):
    find(names, columns=Columns(event="what"))


def test_files_without_names_as_steam_and_last_fm_publish_them(tmp_path):
  path = tmp_path / "steam-200k.csv"
  path.write_text('151603712,"Skyrim, V",purchase,1.0,0\n151603712,"Skyrim, V",play,273.0,0\n')
  names = TableOptions(names=("user_id", "game", "event", "hours", "zero"))
  table = load_interactions(path, options=names)
  assert table.interactions.item_ids == ("Skyrim, V",)
  assert table.interactions.rating.tolist() == [5]
  table = load_interactions(path, columns=Columns(rating="hours"), options=names)
  assert table.feedback.kind == "counts" and table.interactions.rating.tolist() == [274]
  path = tmp_path / "listens.tsv"
  line = "user_000001\t2009-05-04T23:0{}:57Z\tf1b1\tDeep Dish\t\tAround the World\n"
  path.write_text("".join(line.format(minute) for minute in (8, 9, 7)))
  names = ("user_id", "timestamp", "artist_id", "artist", "track_id", "track")
  table = load_interactions(path, options=TableOptions(names=names))
  assert table.interactions.item_ids == ("f1b1",) and table.interactions.rating.tolist() == [3]
  assert table.interactions.timestamp.tolist() == [1_241_478_597]
  assert table.sentence.endswith("2 repeated rows merged (duplicates=count)")


def test_end_to_end(tmp_path):
  path = tmp_path / "shop.csv"
  path.write_text(
    "session,visitorid,itemid,event,timestamp\n"
    "a,1,7,view,1433221332117\na,1,7,transaction,1433221332999\na,1,7,addtocart,1433221333000\n"
    "b,2,7,view,1433221334000\n"
  )
  table = load_interactions(path)
  assert table.interactions.rating.tolist() == [5, 1]  # the cart after it does not hide a purchase
  assert table.interactions.timestamp.tolist() == [1433221333, 1433221334]
  assert table.sentence == (
    "events of column 'event': 2 view (weight 1), 1 addtocart (weight 3), 1 transaction "
    "(weight 5): 2 likes, 2 repeated rows merged (duplicates=strongest)"
  )
  assert "times are read as milliseconds since 1970" in table.remarks
  with pytest.raises(InputError, match="event_weights: .*shop.csv: .*transaction .1., addtocart"):
    load_interactions(path, reading=Reading(event_weights=(("view", 1.0),)))


@pytest.mark.parametrize(
  ("text", "number"),
  [
    ("83,20", 83.2),
    ("1.177,68", 1177.68),
    ("1,177.68", 1177.68),
    ("1.177", 1.177),
    ("-2,5", -2.5),
    ("true", 1.0),
    (" 4 ", 4.0),
  ],
)
def test_numbers_as_people_write_them(text, number):
  assert parse_rating(text) == number


@pytest.mark.parametrize("text", ["1,177", "1.17,5,3", "", "4 stars", None, [3]])
def test_what_is_no_number(text):
  with pytest.raises(ValueError, match="is not a number"):
    parse_rating(text)


def test_columns_that_are_not_used_are_named():
  _, remarks = find(["user_id", "item_id", "Minuten", "wann"], ["Minuten"])
  assert remarks == ["not used: 'Minuten' (numbers from 1 to 10), 'wann'"]
  with pytest.raises(InputError, match="'user_id' .* and no column 'item_id'.*it has a, b"):
    find(["a", "b"])
