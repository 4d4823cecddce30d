"""A small catalog for the re-ranking tests."""

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.split_draws import Split

TITLES = tuple(f"Title {letter} (199{number})" for number, letter in enumerate("ABCDEFGH"))


def rows(*triples, num_users=3, num_items=8):
  """Interactions from (user, item, rating, time)."""
  table = np.array(triples, np.float64).reshape(-1, 4)
  return Interactions(
    table[:, 0].astype(np.int32),
    table[:, 1].astype(np.int32),
    table[:, 2].astype(np.float32),
    table[:, 3].astype(np.int64),
    tuple(f"u{u}" for u in range(num_users)),
    tuple(f"i{i}" for i in range(num_items)),
  )


def prepared(interactions, train, valid=(), test=()):
  """A Prepared with these rows in its parts."""
  parts = [np.array(part, np.int64) for part in (train, valid, test)]
  fields = [{"title": title} for title in TITLES[: interactions.num_items]]
  return Prepared(interactions, Split(*parts), fields, Feedback(), {})
