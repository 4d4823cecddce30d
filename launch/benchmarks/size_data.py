"""Synthetic tables of ratings in the shapes of public data sets, written once as Parquet.

Popularity and activity follow power laws, as in real catalogs, and half of a user's ratings are of
items of one group, so that there is something to learn. Everything follows from the shape's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gatrec_jax import runs

_GROUPS = 20
_VERSION = 1  # raised when the tables change, so that old files are not read


class Shape(NamedTuple):
  """Attributes: users, items, ratings: how many. has_stars: ratings of 1 to 5, else likes alone."""

  users: int
  items: int
  ratings: int
  has_stars: bool


SHAPES: Mapping[str, Shape] = {
  "small": Shape(300, 200, 9_000, True),
  "ml-1m": Shape(6_040, 3_706, 1_000_209, True),
  "ml-latest-small": Shape(610, 9_742, 100_836, True),
  "gowalla": Shape(29_858, 40_981, 1_027_370, False),
  "ml-20m": Shape(138_493, 26_744, 20_000_263, True),
  "ml-25m": Shape(162_541, 59_047, 25_000_095, True),
  "1m-1m": Shape(1_000_000, 1_000_000, 50_000_000, False),
}


def table_of(name: str, folder: Path) -> Path:
  """The path of a shape's table in `folder`, which is written unless it is there."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  path = folder / f"{name}-{_VERSION}.parquet"
  if path.is_file():
    return path
  shape = SHAPES[name]
  user, item, rating = draw_ratings(shape, seed=zlib.crc32(name.encode()))
  columns = {"user_id": user, "item_id": item}
  if shape.has_stars:
    columns["rating"] = rating
  with runs.atomic_path(path) as temporary:
    pq.write_table(pa.table(columns), temporary)
  return path


def draw_ratings(shape: Shape, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Users [R] int32, items [R] int32 and ratings [R] int8 from 1 to 5, in random order.

  Every user and every item has a rating; no pair is there twice.

  Args: shape: with at most a third of all pairs.
  """
  draws = np.random.default_rng(seed)
  num_users, num_items, count = shape.users, shape.items, shape.ratings
  activity = _power_law(draws, num_users, power=1.1)
  popularity = _power_law(draws, num_items, power=1.4)
  every = np.arange(max(num_users, num_items), dtype=np.int64)
  needed = np.unique((every % num_users) * num_items + every % num_items)
  keys = needed
  while len(keys) < count:
    size = int(1.3 * (count - len(keys))) + 100
    user = np.searchsorted(activity, draws.random(size)).astype(np.int64)
    item = np.searchsorted(popularity, draws.random(size)).astype(np.int64)
    own = item - item % _GROUPS + user % _GROUPS
    item = np.where((draws.random(size) < 0.5) & (own < num_items), own, item)
    more = np.unique(user * num_items + item)
    more = more[_is_new(more, keys)]
    keys = np.insert(keys, np.searchsorted(keys, more), more)
  spare = np.flatnonzero(_is_new(keys, needed))
  keys = np.delete(keys, draws.choice(spare, len(keys) - count, replace=False))
  draws.shuffle(keys)
  user, item = (part.astype(np.int32) for part in np.divmod(keys, num_items))
  is_own = item % _GROUPS == user % _GROUPS
  rating = draws.integers(1, 6, count) + is_own * draws.integers(0, 3, count)
  return user, item, np.minimum(rating, 5).astype(np.int8)


def _is_new(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
  """[n] bool, which keys are not known. Args: known: sorted, at least one."""
  place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
  return known[place] != keys


def _power_law(draws: np.random.Generator, count: int, *, power: float) -> np.ndarray:
  """[count] float64 rising to 1: sums of weights (rank + a twentieth of all)^−power."""
  weight = (np.arange(count) + count / 20 + 1) ** -power
  total = np.cumsum(draws.permutation(weight))
  return total / total[-1]
