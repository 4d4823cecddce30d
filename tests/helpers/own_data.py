"""Small files in the forms in which people have their data, with a planted taste.

Users belong to one of four groups, and choose nearly everything from the items of their group; some
items are known to all.
"""

import csv
import gzip
import json
from typing import NamedTuple

import numpy as np

GROUPS, USERS, ITEMS, EACH = 4, 120, 80, 14
KINDS = ("jazz", "metal", "folk", "house")


class Choice(NamedTuple):
  """Attributes: user, item: indices. fits: the item is of the user's group. order: in time."""

  user: int
  item: int
  fits: bool
  order: int


def choices(seed=0):
  """What every user chose, in order."""
  rng = np.random.default_rng(seed)
  group_of = np.arange(ITEMS) % GROUPS
  found = []
  for user in range(USERS):
    fits = group_of == user % GROUPS
    weight = np.where(fits, 6.0, 0.4) * np.linspace(2, 0.5, ITEMS)
    chosen = rng.choice(ITEMS, EACH, replace=False, p=weight / weight.sum())
    found += [Choice(user, int(item), bool(fits[item]), k) for k, item in enumerate(chosen)]
  return found


def write_plays(folder, seed=0):
  """Last.fm-like: user, artist id, artist and plays, without names of columns."""
  rng = np.random.default_rng(seed)
  plays = [int(rng.lognormal(3.5 if one.fits else 0.3)) + 1 for one in choices(seed)]
  with open(folder / "plays.tsv", "w", encoding="utf-8", newline="") as out:
    for one, count in zip(choices(seed), plays, strict=True):
      name = f'Björk "{one.item}'
      out.write(f"{one.user:05x}\tartist-{one.item}\t{name}\t{count}\n")
  return plays


def write_events(folder, seed=0):
  """Shop events in milliseconds; what fits is often bought after it was viewed."""
  rng = np.random.default_rng(seed)
  rows, counts = [], {"view": 0, "addtocart": 0, "transaction": 0}
  for one in choices(seed):
    kinds = ["view"]
    if one.fits and rng.random() < 0.5:
      kinds += ["transaction", "addtocart"]  # not in the order of importance
    for step, kind in enumerate(kinds):
      counts[kind] += 1
      time = 1_433_221_332_117 + (one.order * 1000 + step) * 60_000
      rows.append((time, one.user + 257_597, kind, one.item + 355_908))
  with open(folder / "events.csv", "w", newline="") as out:
    csv.writer(out).writerows([("timestamp", "visitorid", "event", "itemid"), *rows])
  with open(folder / "products.jsonl", "w") as out:
    for item in range(ITEMS):
      product = {
        "itemid": item + 355_908,
        "product_name": f"Item No. {item}",
        "categories": [["Shop", KINDS[item % GROUPS].title()]],
        "brand": f"Brand {item % 7}",
        "price": 9.5 + item,
        "stock": {"Vienna": item},
      }
      out.write(json.dumps(product) + "\n")
  return counts


def write_books(folder, seed=0):
  """Book-Crossing-like: semicolons, Latin-1, a 0 where a book was seen but not rated."""
  rng = np.random.default_rng(seed)
  rows = []
  for one in choices(seed):
    rating = int(rng.integers(8, 11) if one.fits else rng.integers(1, 7))
    rows.append(
      (276_725 + one.user, f"0{34545104 + one.item}X", rating if rng.random() < 0.6 else 0)
    )
  style = dict(delimiter=";", quoting=csv.QUOTE_ALL)
  with open(folder / "BX-Book-Ratings.csv", "w", encoding="latin-1", newline="") as out:
    csv.writer(out, **style).writerows([("User-ID", "ISBN", "Book-Rating"), *rows])
  with open(folder / "BX-Books.csv", "w", encoding="latin-1", newline="") as out:
    names = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Image-URL-S")
    books = [
      (f"0{34545104 + i}X", f"Café {i}", f"Author {i % 5}", 1950 + i % 50, f"http://x/{i}.jpg")
      for i in range(ITEMS)
    ]
    csv.writer(out, **style).writerows([names, *books])
  return [rating for *_, rating in rows]


def write_reviews(folder, seed=0):
  """Amazon-review-like JSON lines with metadata, both compressed."""
  rng = np.random.default_rng(seed)
  ratings = []
  with gzip.open(folder / "reviews.jsonl.gz", "wt", encoding="utf-8") as out:
    for one in choices(seed):
      rating = float(rng.integers(4, 6) if one.fits else rng.integers(1, 5))
      ratings.append(rating)
      review = {
        "reviewerID": f"A{one.user:09d}",
        "asin": f"B{one.item:09d}",
        "reviewText": f'It said "{KINDS[one.item % GROUPS]}",\nand was.',
        "overall": rating,
        "helpful": [0, 1],
        "unixReviewTime": 1_252_800_000 + one.order * 86_400,
        "reviewTime": "09 13, 2009",
      }
      out.write(json.dumps(review) + "\n")
  with gzip.open(folder / "meta.jsonl.gz", "wt", encoding="utf-8") as out:
    for item in range(ITEMS):
      product = {
        "asin": f"B{item:09d}",
        "title": f"Product {item}",
        "brand": f"Brand {item % 7}",
        "categories": [["Music", KINDS[item % GROUPS].title()]],
        "description": [f"A record of {KINDS[item % GROUPS]} music.", "With a booklet."],
        "imUrl": "http://x/y.jpg",
        "related": {"also_bought": []},
      }
      out.write(json.dumps(product) + "\n")
  return ratings


def frame_columns(seed=0):
  """Columns of a DataFrame: members, tracks and stars."""
  rng = np.random.default_rng(seed)
  found = choices(seed)
  stars = [int(rng.integers(4, 6) if one.fits else rng.integers(1, 4)) for one in found]
  return {
    "member": [f"m{one.user}" for one in found],
    "track": [one.item for one in found],
    "stars": stars,
  }
