"""Splits of rows into parts, and random draws that depend on (user, item) pairs, not on rows."""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.sharding.peers import ALONE, Peers, place_of


@dataclasses.dataclass(frozen=True)
class Split:
  """Row indices of the parts, [n] int64 ascending; disjoint, and together all rows.

  The validation part is chosen from the training rows as the test part is from all, where that
  tells models apart (`splits.carve_validation`).
  """

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray


def seeded_generator(seed: int, *, purpose: int) -> np.random.Generator:
  """A stream of random numbers for a seed, independent for each `purpose` (≥ 0)."""
  sequence = np.random.SeedSequence(seed, spawn_key=(purpose,))
  return np.random.Generator(np.random.PCG64(sequence))


def text_rank(ids: tuple[str, ...]) -> np.ndarray:
  """[len(ids)] int64, the place of each id when all are sorted as text."""
  rank = np.empty(len(ids), dtype=np.int64)
  rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
  return rank


def _pair_order(interactions: Interactions) -> np.ndarray:
  """[R] int64, the rows by (user id, item id).

  Ids are sorted as text even if all are numbers: the order of a catalog changes when its only
  non-numeric id disappears, and that id may belong to a test row.
  """
  users = text_rank(interactions.user_ids)[interactions.user]
  items = text_rank(interactions.item_ids)[interactions.item]
  return np.argsort(users * interactions.num_items + items, kind="stable")


def pair_draws(
  interactions: Interactions, generator: np.random.Generator, peers: Peers = ALONE
) -> np.ndarray:
  """[R] int64, distinct random numbers that depend on the pairs, not on the order of rows.

  Args: peers: with further rows. Their users, sorted as text, come before or after the own ones as
    the processes do.
  """
  before, total = place_of(peers, len(interactions))
  draws = np.empty(len(interactions), dtype=np.int64)
  drawn = generator.permutation(total)[before : before + len(interactions)]
  draws[_pair_order(interactions)] = drawn
  return draws


def rank_within(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
  """[R] int64, each row's place among the rows of its group; `order` sorts by group first."""
  ordered = groups[order]
  starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
  sizes = np.diff(np.append(starts, len(ordered)))
  rank = np.empty(len(groups), dtype=np.int64)
  rank[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
  return rank
