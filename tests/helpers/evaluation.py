"""Small data sets for the evaluation tests, and ML-100K's u1 where ../shared exists."""

import io
import zipfile

import numpy as np
import pytest
from helpers.paths import DATA as SHARED

from gatrec_jax.data.interactions import Interactions


def interactions(rows, num_users, num_items):
  """rows: (user, item, rating) triples; ids are "u0"… and "i0"…."""
  table = np.array(rows, np.float64).reshape(-1, 3)
  return Interactions(
    table[:, 0].astype(np.int32),
    table[:, 1].astype(np.int32),
    table[:, 2].astype(np.float32),
    np.arange(len(table), dtype=np.int64),
    tuple(f"u{u}" for u in range(num_users)),
    tuple(f"i{i}" for i in range(num_items)),
  )


def random_split(seed, *, num_users=7, num_items=12):
  """Train and test part of random ratings, every second pair rated."""
  rng = np.random.default_rng(seed)
  pairs = np.argwhere(rng.random((num_users, num_items)) < 0.6)
  rows = np.column_stack([pairs, rng.integers(1, 6, len(pairs))])
  held_out = rng.random(len(rows)) < 0.4
  return (
    interactions(rows[~held_out], num_users, num_items),
    interactions(rows[held_out], num_users, num_items),
  )


def random_lists(train, seed, *, length):
  """[U, length] lists of unseen items, −1 where a user has too few."""
  rng = np.random.default_rng(seed)
  lists = np.full((train.num_users, length), -1, np.int32)
  for user in range(train.num_users):
    unseen = np.setdiff1d(np.arange(train.num_items), train.item[train.user == user])
    chosen = rng.permutation(unseen)[: rng.integers(0, length + 1)]
    lists[user, : len(chosen)] = chosen
  return lists


def movielens_u1():
  """u1.base and u1.test of ml-100k, ids "1"…; skips the test without ../shared."""
  path = SHARED / "ml-100k.zip"
  if not path.is_file():
    pytest.skip("../shared/data is not here")
  parts = []
  with zipfile.ZipFile(path) as archive:
    for name in ("u1.base", "u1.test"):
      table = np.loadtxt(io.BytesIO(archive.read(f"ml-100k/{name}")), dtype=np.int64)
      parts.append(
        Interactions(
          (table[:, 0] - 1).astype(np.int32),
          (table[:, 1] - 1).astype(np.int32),
          table[:, 2].astype(np.float32),
          table[:, 3],
          tuple(str(u) for u in range(1, 944)),
          tuple(str(i) for i in range(1, 1683)),
        )
      )
  return parts
