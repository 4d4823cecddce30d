"""Splits rows into training, validation and test; seeded, and independent of their order."""

from __future__ import annotations

import numpy as np

from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.data.split_draws import (
  Split,
  _pair_order,
  pair_draws,
  rank_within,
  seeded_generator,
  text_rank,
)
from gatrec_jax.errors import InputError
from gatrec_jax.sharding.peers import ALONE, Peers, place_of, sum_of

KINDS = (
  "shipped",
  "random",
  "per_user",
  "kfold",
  "temporal",
  "leave_last",
  "next_item",
  "cold_users",
  "cold_items",
  "none",
)

BY_TIME = ("temporal", "leave_last", "next_item")
"""Kinds that test what came last, and validate what came before it."""

DIVISIBLE = ("random", "per_user", "none")
"""Kinds that several processes draw together, each for the rows of its own users."""


def split_interactions(
  interactions: Interactions,
  *,
  kind: str,
  test_share: float = 0.2,
  split_seed: int = 0,
  valid_share: float = 0.1,
  valid_seed: int = 0,
  fold: str = "",
  test_rows: np.ndarray | None = None,
  valid_rows: np.ndarray | None = None,
  peers: Peers = ALONE,
) -> Split:
  """Divides the rows into training, validation and test.

  The split depends on the (user, item) pairs, the times if the kind needs them, and the seeds, not
  on the order of the rows. The validation part depends only on the training rows and `valid_seed`
  (of `next_item`: on what the test part depends on).

  Args:
    interactions: R rows, each (user, item) at most once.
    kind: one of `KINDS`. `shipped`: `test_rows`. `random`: any rows. `per_user`: any rows of each
      user, who keeps at least one. `kfold`: part `fold` of round(1 / test_share) equal parts.
      `temporal`: the latest rows of all. `leave_last`: the latest row of each user who has two.
      `next_item`: the same of each user who has three, whose row before it is validation; with
      `valid_share=0`, of each user who has two, without validation. `cold_users`, `cold_items`: all
      rows of some users or items. `none`: no rows, so that a model for use learns from all.
    test_share: share of the rows (`cold_*`: of the users or items with rows) held out for testing.
    split_seed: for the choice of test rows; ≥ 0.
    valid_share: share of the training rows that become validation rows (`carve_validation`); 0 for
      none. The number of those of `next_item` is the same for every share above 0.
    valid_seed: for the choice of validation rows; ≥ 0.
    fold: "1" … "n", for `kfold`.
    test_rows: [R] bool, for `shipped`.
    valid_rows: [R] bool, for `shipped`; None = drawn from the training rows as elsewhere.
    peers: processes with the rows of other users, as in `pair_draws`, for `DIVISIBLE` kinds.

  Raises:
    InputError: unknown kind or fold, a share outside [0, 1), a negative seed, no times where the
      kind needs them, or a part without rows.
  """
  for field, share in (("test_share", test_share), ("valid_share", valid_share)):
    if not 0 <= share < 1:
      raise InputError("must be at least 0 and below 1", field=field, value=share)
  for field, seed in (("split_seed", split_seed), ("valid_seed", valid_seed)):
    if seed < 0:
      raise InputError("must not be negative", field=field, value=seed)
  # The two purposes must not share a stream where both seeds are 0.
  generator = seeded_generator(split_seed, purpose=0)
  if kind == "shipped":
    is_test = _shipped(interactions, test_rows)
  elif kind == "random":
    is_test = _random(interactions, test_share, generator, peers)
  elif kind == "per_user":
    is_test = _per_user(interactions, test_share, generator, peers)
  elif kind == "kfold":
    is_test = _kfold(interactions, test_share, generator, fold)
  elif kind == "temporal":
    _require_times(interactions, kind)
    is_test = _latest(interactions.timestamp, test_share)
  elif kind == "leave_last":
    _require_times(interactions, kind)
    is_test = _last_rows(interactions, generator)
  elif kind == "next_item":
    _require_times(interactions, kind)
    is_test, is_valid = _next_items(interactions, generator, has_valid=valid_share > 0)
    valid_rows = is_valid if valid_share > 0 else None
  elif kind == "cold_users":
    is_test = _cold(interactions.user, distinct(interactions.user), test_share, generator)
  elif kind == "cold_items":
    is_test = _cold(interactions.item, distinct(interactions.item), test_share, generator)
  elif kind == "none":
    is_test = np.zeros(len(interactions), bool)
  else:
    raise _no_such_kind(kind)
  flags = f"`split={kind}` `test_share={test_share}`" + (f" `fold={fold}`" if fold else "")
  tests, total = sum_of(peers, [int(is_test.sum()), len(is_test)])
  if kind != "none" and tests in (0, total):
    part = "test" if tests == 0 else "training"
    advice = "; `split=none` trains on all rows" if tests == 0 else ""
    raise InputError(f"empty split: no {part} rows are left of {total} with {flags}{advice}")
  if kind in ("shipped", "next_item") and valid_rows is not None:
    is_train = ~is_test & ~valid_rows
    if not is_train.any():
      raise InputError("empty split: no training rows are left beside the shipped parts")
    return Split(np.flatnonzero(is_train), np.flatnonzero(valid_rows), np.flatnonzero(is_test))
  train, valid = carve_validation(
    interactions,
    np.flatnonzero(~is_test),
    kind=kind,
    valid_share=valid_share,
    valid_seed=valid_seed,
    peers=peers,
  )
  return Split(train=train, valid=valid, test=np.flatnonzero(is_test))


def carve_validation(
  interactions: Interactions,
  rows: np.ndarray,
  *,
  kind: str = "random",
  valid_share: float,
  valid_seed: int,
  peers: Peers = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
  """Divides the training rows `rows` ([n] int64) into (train, valid), both ascending int64.

  The validation part is chosen from the training rows as `kind` chooses the test part from all:

  - `per_user`: of each user a share of their rows, at random; each keeps at least one.
  - `temporal`: the latest rows.
  - `leave_last`: the latest row of each of some users with two, drawn at random; all of them if
    they are fewer than the share of the rows.
  - `cold_items`: all rows of a share of the items.
  - every other kind: any rows. So it is with `cold_users`: a user without any ratings gets the same
    list however long a model has learned, so that such users could not choose between epochs.

  Args:
    kind: one of `KINDS`.
    peers: with further training rows, as in `pair_draws`, for `DIVISIBLE` kinds.
  Raises:
    InputError: either part would be empty, with a `valid_share` above 0.
  """
  if valid_share == 0:
    return rows, rows[:0]
  taken, generator = interactions.take(rows), seeded_generator(valid_seed, purpose=1)
  if kind == "per_user":
    is_valid = _per_user(taken, valid_share, generator, peers)
  elif kind == "temporal":
    is_valid = _latest(taken.timestamp, valid_share)
  elif kind == "leave_last":
    is_valid = _last_rows(taken, generator)
    last = np.flatnonzero(is_valid)[_pair_order(taken.take(is_valid))]
    is_valid[generator.permutation(last)[round(valid_share * len(rows)) :]] = False
  elif kind == "cold_items":
    present = distinct(taken.item)  # by id, since the order of the catalog may depend on test rows
    present = present[np.argsort(text_rank(taken.item_ids)[present])]
    is_valid = _cold(taken.item, present, valid_share, generator)
  else:
    before, total = place_of(peers, len(rows))
    drawn = np.zeros(total, bool)
    drawn[generator.permutation(total)[: round(valid_share * total)]] = True
    is_valid = np.empty(len(rows), bool)
    is_valid[_pair_order(taken)] = drawn[before : before + len(rows)]
  count, total = sum_of(peers, [int(is_valid.sum()), len(rows)])
  if not 0 < count < total:
    part = "training" if count else "validation"
    raise InputError(
      f"empty split: no {part} rows are left of {total} with `valid_share={valid_share}`"
    )
  return rows[~is_valid], rows[is_valid]


def _no_such_kind(kind: str) -> InputError:
  # protocols.py builds on this module.
  from gatrec_jax.data.protocols import PROTOCOLS

  if kind in PROTOCOLS:
    return InputError(
      "a whole protocol, which leaves out rows before it divides them; it starts"
      " from the full data set (apply_protocol, then protocol_split)",
      field="split",
      value=kind,
    )
  return InputError(f"unknown; one of {', '.join((*KINDS, *PROTOCOLS))}", field="split", value=kind)


def _shipped(interactions: Interactions, test_rows: np.ndarray | None) -> np.ndarray:
  if test_rows is None:
    raise InputError(
      "needs a data set with shipped folds and `fold`, or `test_file`",
      field="split",
      value="shipped",
    )
  if len(test_rows) != len(interactions):
    raise InputError(
      f"{len(test_rows)} test marks for {len(interactions)} interactions",
      field="split",
      value="shipped",
    )
  return np.asarray(test_rows, dtype=bool)


def _random(
  interactions: Interactions, test_share: float, generator: np.random.Generator, peers: Peers
) -> np.ndarray:
  count = round(test_share * int(sum_of(peers, len(interactions))))
  return pair_draws(interactions, generator, peers) < count


def _kfold(
  interactions: Interactions, test_share: float, generator: np.random.Generator, fold: str
) -> np.ndarray:
  parts = round(1 / test_share) if test_share else 0
  if parts < 2:
    raise InputError(
      f"`test_share={test_share}` must be 1/n for n folds, n ≥ 2", field="split", value="kfold"
    )
  if fold not in [str(part + 1) for part in range(parts)]:
    raise InputError(
      f"`fold={fold or '(none)'}` must be 1 to {parts} with `test_share={test_share}`",
      field="split",
      value="kfold",
    )
  draws = pair_draws(interactions, generator)
  # part of draw d is ⌊d · n / R⌋: sizes differ by at most one
  return draws * parts // len(interactions) == int(fold) - 1


def _per_user(
  interactions: Interactions, test_share: float, generator: np.random.Generator, peers: Peers
) -> np.ndarray:
  user = interactions.user
  rank = rank_within(user, np.lexsort((pair_draws(interactions, generator, peers), user)))
  counts = np.bincount(user, minlength=interactions.num_users)
  held_out = np.minimum(np.floor(counts * test_share + 0.5), counts - 1)
  return rank < held_out[user]


def _require_times(interactions: Interactions, kind: str) -> None:
  times = interactions.timestamp
  if times.min() == times.max():
    what = f"all times are {times[0]}" if times[0] else "there are no times"
    raise InputError(
      f"{what}; it needs interactions with times: name their column by `time_column`",
      field="split",
      value=kind,
    )


def _latest(times: np.ndarray, share: float) -> np.ndarray:
  """The latest rows. Rows of the same second stay together, so the share is approximate."""
  count = round(share * len(times))
  if count == 0:
    return np.zeros(len(times), dtype=bool)
  cut = np.partition(times, len(times) - count)[len(times) - count]
  with_cut, without_cut = times >= cut, times > cut
  if with_cut.all():
    return without_cut
  if not without_cut.any():
    return with_cut
  excess, lack = with_cut.sum() - count, count - without_cut.sum()
  return with_cut if excess <= lack else without_cut


def _last_rows(interactions: Interactions, generator: np.random.Generator) -> np.ndarray:
  """The latest row of each user with two."""
  from_end, counts = _places_from_end(interactions, generator)
  return (from_end == 0) & (counts >= 2)


def _next_items(
  interactions: Interactions, generator: np.random.Generator, *, has_valid: bool
) -> tuple[np.ndarray, np.ndarray]:
  """The latest row, and the one before it, of each user with three; without a validation part the
  latest of each user with two."""
  from_end, counts = _places_from_end(interactions, generator)
  of_tested = counts >= (3 if has_valid else 2)
  return of_tested & (from_end == 0), of_tested & (from_end == 1)


def _places_from_end(
  interactions: Interactions, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """[R] each row's place from the end of the user's rows in the order of time, and [R] how many
  rows the user has. Equal times are in random order, since ids grow with time."""
  user = interactions.user
  order = np.lexsort((pair_draws(interactions, generator), interactions.timestamp, user))
  counts = np.bincount(user, minlength=interactions.num_users)[user]
  return counts - 1 - rank_within(user, order), counts


def _cold(
  index: np.ndarray, present: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
  """Rows of users or items that are held out as a whole.

  Args: index: [R], of each row. present: [n], those with rows, from which a share is drawn.
  """
  held_out = generator.permutation(present)[: round(share * len(present))]
  return np.isin(index, held_out)
