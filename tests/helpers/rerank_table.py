"""A small table of ratings with texts, on which re-ranking takes seconds."""

import csv
import json

import numpy as np
import pytest

GENRES = ("Drama", "Comedy", "War", "Noir")


def write_table(folder, *, users=60, items=40):
  """Writes ratings.csv and items.jsonl; users like one of four kinds. Returns: the titles."""
  rng = np.random.default_rng(0)
  with open(folder / "ratings.csv", "w", newline="") as out:
    writer = csv.writer(out)
    writer.writerow(["user_id", "item_id", "rating", "timestamp"])
    for user in range(users):
      for item in rng.permutation(items)[:22]:
        rating = 5 if item % 4 == user % 4 else int(rng.integers(1, 5))
        writer.writerow([user, item, rating, int(rng.integers(10_000))])
  with open(folder / "items.jsonl", "w") as out:
    for item in range(items):
      genre = GENRES[item % 4]
      fields = {"item_id": item, "title": f"Film {item}", "genres": [genre], "overview": genre}
      out.write(json.dumps(fields) + "\n")
  return [f"Film {item}" for item in range(items)]


def in_table_folder(tmp_path_factory):
  """For fixtures: a folder with the table, in which the tests then run."""
  folder = tmp_path_factory.mktemp("place")
  write_table(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    yield folder
