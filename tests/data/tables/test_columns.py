"""Columns under other names, and those that are asked about."""

import pytest

from gatrec_jax.data.meaning import Reading
from gatrec_jax.data.tables.columns import Columns, find_columns
from gatrec_jax.data.tables.interaction_tables import load_interactions
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
  assert len(remarks) == sum(
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
    "(weight 5): 2 likes, 2 repeated rows merged (duplicates=max)"
  )
  assert "times are read as milliseconds since 1970" in table.remarks
  with pytest.raises(InputError, match="event_weights: .*shop.csv: .*transaction .1., addtocart"):
    load_interactions(path, reading=Reading(event_weights=(("view", 1.0),)))
