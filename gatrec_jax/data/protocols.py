"""Published evaluation protocols by name: which rows they keep and how they split them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Dataset, Interactions, distinct
from gatrec_jax.data.split_draws import Split, pair_draws, rank_within, seeded_generator
from gatrec_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
  """The protocol of a published table; only the seed is the user's choice.

  Every remaining row is a positive. Each user's rows are divided at random. Models learn from the
  training rows alone, are selected on the validation rows with the training rows masked, and are
  tested with both masked.

  Attributes:
    name: value of `--split`.
    lowest_rating: ratings below it are removed before anything else.
    core: users and items with fewer rows are removed repeatedly until none has; 0 keeps all.
    valid_share, test_share: of each user's rows, rounded down.
    select_metric: the metric of model selection.
  """

  name: str
  core: int
  select_metric: str
  lowest_rating: float = 3.0
  valid_share: float = 0.1
  test_share: float = 0.1

  @property
  def feedback(self) -> Feedback:
    """Every remaining rating is a like."""
    return Feedback(self.lowest_rating, self.lowest_rating - 1)


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
  {
    protocol.name: protocol
    for protocol in (
      Protocol("recbole_a", core=10, select_metric="ndcg@10"),
      Protocol("recbole_b", core=0, select_metric="mrr@10"),
    )
  }
)
"""`recbole_a`: RecBole's table of general recommendation (Zhao et al. 2021). `recbole_b`:
RecBole-GNN's (Zhao et al. 2022).

RecBole since version 1.0 makes an exception to rounding down, which is not made here: of users
with 2 to 9 rows it tests one, and of those with 3 to 9 it validates one. That concerns nobody in
`recbole_a`, and in `recbole_b` 5 of the 6,039 users of ml-1m and 2 of the 943 of ml-100k.
"""


def apply_protocol(dataset: Dataset, protocol: Protocol) -> Dataset:
  """`dataset` restricted to the rows, users and items of the protocol.

  Shipped folds are dropped, since a protocol splits the rows itself.

  Raises:
    InputError: see `filtered`.
  """
  interactions, rows, notes = filtered(dataset.interactions, protocol)
  kept_items = distinct(dataset.interactions.item[rows])
  return dataclasses.replace(
    dataset,
    interactions=interactions,
    item_fields=[dataset.item_fields[item] for item in kept_items],
    test_rows=None,
    notes={**dataset.notes, **notes},
  )


def filtered(
  interactions: Interactions, protocol: Protocol
) -> tuple[Interactions, np.ndarray, dict[str, int]]:
  """Removes low ratings, rows outside the k-core (Seidman 1983), and ids without rows.

  Returns:
    The interactions, with the vocabularies of the users and items that still have rows, in their
    former order; [n] int64 ascending, their rows among the given ones; and counts for the user.

  Raises:
    InputError: all ratings are equal (implicit feedback), or no row is left.
  """
  rating = interactions.rating
  if len(rating) and rating.min() == rating.max():
    raise InputError(
      f"needs ratings, but all are {rating[0]:g} (implicit feedback);"
      " use `split=random` or `split=per_user`",
      field="split",
      value=protocol.name,
    )
  high = np.flatnonzero(rating >= protocol.lowest_rating)
  rows = high[_is_in_core(interactions.take(high), protocol.core)]
  if not len(rows):
    what = f"at least {protocol.lowest_rating:g}"
    if protocol.core:
      what += f" between users and items with {protocol.core} of them each"
    raise InputError(
      f"of {len(rating)} ratings none is {what}; use another split",
      field="split",
      value=protocol.name,
    )
  kept = interactions.take(rows)
  users, user = np.unique(kept.user, return_inverse=True)
  items, item = np.unique(kept.item, return_inverse=True)
  kept = dataclasses.replace(
    kept,
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    user_ids=tuple(interactions.user_ids[index] for index in users),
    item_ids=tuple(interactions.item_ids[index] for index in items),
  )
  notes = {
    f"ratings below {protocol.lowest_rating:g} left out": len(rating) - len(high),
    f"ratings outside the {protocol.core}-core left out": len(high) - len(rows),
    "users left out": interactions.num_users - kept.num_users,
    "items left out": interactions.num_items - kept.num_items,
  }
  return kept, rows, {note: count for note, count in notes.items() if count}


def protocol_split(interactions: Interactions, protocol: Protocol, split_seed: int) -> Split:
  """Divides each user's rows at random; ⌊share · n⌋ of n for validation and as many for the test.

  The split depends on the (user, item) pairs and the seed, not on the order of the rows.

  Args:
    interactions: as returned by `filtered`.
    protocol: the shares.
    split_seed: ≥ 0.

  Raises:
    InputError: a negative seed, or no user has enough rows for one test row.
  """
  if split_seed < 0:
    raise InputError("must not be negative", field="split_seed", value=split_seed)
  user = interactions.user
  draws = pair_draws(interactions, seeded_generator(split_seed, purpose=0))
  rank = rank_within(user, np.lexsort((draws, user)))
  counts = np.bincount(user, minlength=interactions.num_users)
  tested = np.floor(counts * protocol.test_share).astype(np.int64)
  validated = np.floor(counts * protocol.valid_share).astype(np.int64)
  if not tested.any():
    raise InputError(
      f"no test rows, since no user has"
      f" {np.ceil(1 / protocol.test_share):.0f} ratings of at least {protocol.lowest_rating:g};"
      " use another split",
      field="split",
      value=protocol.name,
    )
  is_test = rank < tested[user]
  is_valid = ~is_test & (rank < (tested + validated)[user])
  return Split(
    train=np.flatnonzero(~is_test & ~is_valid),
    valid=np.flatnonzero(is_valid),
    test=np.flatnonzero(is_test),
  )


def _is_in_core(interactions: Interactions, core: int) -> np.ndarray:
  """[R] bool: the largest set of rows in which each user and each item has at least `core`."""
  user, item = interactions.user, interactions.item
  kept = np.ones(len(interactions), dtype=bool)
  while True:
    by_user = np.bincount(user[kept], minlength=interactions.num_users)
    by_item = np.bincount(item[kept], minlength=interactions.num_items)
    still = kept & (by_user[user] >= core) & (by_item[item] >= core)
    if still.sum() == kept.sum():
      return kept
    kept = still
