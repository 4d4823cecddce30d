"""The demo: the same for everyone, of the promised size, with signal in text and in the graph."""

import numpy as np

from gatrec_jax.data.synthetic import make_demo, plant


def test_same_seed_same_bytes_other_seed_other_ratings():
  first, again, other = make_demo(), make_demo(), make_demo(1)
  assert first.item_fields == again.item_fields
  for column in ("user", "item", "rating", "timestamp"):
    assert getattr(first.interactions, column).tobytes() == (
      getattr(again.interactions, column).tobytes()
    )
  assert len(first.interactions) != len(other.interactions)


def test_size_ratings_and_cold_ends():
  rows = make_demo().interactions
  assert (rows.num_users, rows.num_items) == (600, 800) and 35_000 < len(rows) < 45_000
  assert set(rows.rating) == {1.0, 2.0, 3.0, 4.0, 5.0}
  assert 0.4 < (rows.rating >= 4).mean() < 0.65
  users, items = np.bincount(rows.user), np.bincount(rows.item, minlength=800)
  assert (users <= 10).sum() >= 50 and (items <= 3).sum() >= 30 and items.max() > 150
  assert len(set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))) == len(rows)


def test_ratings_follow_the_planted_utility_and_texts_are_there():
  planted = plant()
  rows = planted.dataset.interactions
  utility = planted.utility[rows.user, rows.item]
  assert np.corrcoef(utility, rows.rating)[0, 1] > 0.8
  for fields in planted.dataset.item_fields:
    assert fields["title"].startswith("The ") and fields["genres"] and len(fields["overview"]) > 40


def test_neither_text_nor_style_alone_explains_the_utility():
  """What genre and theme say leaves much of a user's taste open, and the reverse."""
  planted = plant()
  genres = sorted({g for f in planted.dataset.item_fields for g in f["genres"]})
  table = np.array([[g in f["genres"] for g in genres] for f in planted.dataset.item_fields], float)
  centered = planted.utility - planted.utility.mean(axis=1, keepdims=True)
  fitted = table @ np.linalg.lstsq(table, centered.T, rcond=None)[0]
  explained = 1 - ((centered.T - fitted) ** 2).sum() / (centered**2).sum()
  assert 0.1 < explained < 0.7
