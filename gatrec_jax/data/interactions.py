"""Interactions: user, item, rating and time columns, with vocabularies of raw ids."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.data.duplicates import merge_duplicates
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.sharding.peers import ALONE, Peers, any_of, sum_of

if TYPE_CHECKING:
  import pyarrow as pa

  Column = np.ndarray | pa.Array | pa.ChunkedArray | Sequence[Any]

# "007" and "7" are different ids, so only the canonical spelling is a number.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,30}")
# The years 1 and 9999 in seconds; milliseconds of any date after 1978 lie outside.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799


def distinct(values: np.ndarray) -> np.ndarray:
  """The distinct values of [n], ascending.

  By sorting, since the hashing of `np.unique` (NumPy 2.3) takes twenty times as long for millions.

  >>> distinct(np.array([3, 1, 3])).tolist()
  [1, 3]
  """
  ordered = np.sort(values)
  return ordered[np.concatenate([np.ones(len(ordered[:1]), bool), ordered[1:] != ordered[:-1]])]


@dataclasses.dataclass(frozen=True)
class Interactions:
  """Ratings as columns: user[r] rated item[r] with rating[r] at timestamp[r].

  Attributes:
    user: [R] int32, index into `user_ids`.
    item: [R] int32, index into `item_ids`.
    rating: [R] float32, finite: ratings, counts or weights of events; 1.0 everywhere for implicit
      feedback.
    timestamp: [R] int64, seconds since 1970; 0 if times are unknown. Of ratings or times that are
      all the same, the array is a read-only view of one number.
    user_ids: [U] raw user ids as strings, in numeric order if all are integers, else sorted.
    item_ids: [I] raw item ids as strings, likewise.
  """

  user: np.ndarray
  item: np.ndarray
  rating: np.ndarray
  timestamp: np.ndarray
  user_ids: tuple[str, ...]
  item_ids: tuple[str, ...]

  def __post_init__(self) -> None:
    # Unknown times and the ratings of implicit feedback are one number, which a view repeats.
    for name in ("rating", "timestamp"):
      object.__setattr__(self, name, _without_copies(getattr(self, name)))

  @property
  def num_users(self) -> int:
    return len(self.user_ids)

  @property
  def num_items(self) -> int:
    return len(self.item_ids)

  def __len__(self) -> int:
    return len(self.user)

  @classmethod
  def from_arrays(
    cls,
    user: Column,
    item: Column,
    rating: Column | None = None,
    timestamp: Column | None = None,
    *,
    user_ids: Iterable[int | str] | None = None,
    item_ids: Iterable[int | str] | None = None,
  ) -> Interactions:
    """Interactions from columns of raw ids; of several rows with the same pair, the latest is kept.

    Args:
      user, item: [R] raw ids, all whole numbers or all text.
      rating: [R] finite numbers; None for implicit feedback, 1.0 everywhere.
      timestamp: [R] seconds since 1970; None if unknown.
      user_ids, item_ids: raw ids that belong to the vocabularies even without rows.
    Raises:
      InputError: as `build_interactions`.

    >>> rows = Interactions.from_arrays(["ann", "bob", "ann"], [7, 7, 30], [5, 3, 4])
    >>> rows.user_ids, rows.item_ids
    (('ann', 'bob'), ('7', '30'))
    >>> rows.user.tolist(), rows.item.tolist(), rows.rating.tolist()
    ([0, 1, 0], [0, 0, 1], [5.0, 3.0, 4.0])
    """
    return build_interactions(
      user,
      item,
      np.ones(len(user), np.float32) if rating is None else rating,
      np.zeros(len(user), np.int64) if timestamp is None else timestamp,
      user_ids=user_ids,
      item_ids=item_ids,
    )[0]

  @classmethod
  def from_indices(
    cls,
    user: np.ndarray | Sequence[int],
    item: np.ndarray | Sequence[int],
    rating: np.ndarray | Sequence[float] | None = None,
    timestamp: np.ndarray | Sequence[int] | None = None,
    *,
    num_users: int,
    num_items: int,
  ) -> Interactions:
    """Interactions from dense indices; the raw ids are the indices as text.

    Args:
      user: [R] int in 0 … num_users − 1. item: [R] int in 0 … num_items − 1.
      rating, timestamp: as in `from_arrays`.
      num_users, num_items: U and I.
    Raises:
      InputError: an index out of range, or as `build_interactions`.

    >>> rows = Interactions.from_indices([0, 2], [1, 0], [5, 3], num_users=3, num_items=2)
    >>> rows.num_users, rows.num_items, rows.user.tolist()
    (3, 2, [0, 2])
    """
    for field, index, size in (("user", user, num_users), ("item", item, num_items)):
      index = np.asarray(index)
      if len(index) and (index.min() < 0 or index.max() >= size):
        raise InputError(f"indices must lie in 0…{size - 1}", field=field)
    return cls.from_arrays(
      np.asarray(user),
      np.asarray(item),
      rating,
      timestamp,
      user_ids=range(num_users),
      item_ids=range(num_items),
    )

  def take(self, rows: np.ndarray) -> Interactions:
    """The interactions of `rows` ([n] int64 or [R] bool) with the same vocabularies."""
    return dataclasses.replace(
      self,
      user=self.user[rows],
      item=self.item[rows],
      rating=self.rating[rows],
      timestamp=self.timestamp[rows],
    )


def _without_copies(column: np.ndarray) -> np.ndarray:
  """The column, or a view of its first value where all are the same."""
  if len(column) < 2 or column[0] != column[-1] or (column != column[0]).any():
    return column
  return np.broadcast_to(column[:1].copy()[0], column.shape)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A catalog with its interactions.

  Attributes:
    name: as given by `--dataset`.
    interactions: all rows, in an order that does not depend on any split.
    item_fields: [I] one mapping per item: "title" (str), "genres" (list of str), "overview" (str)
      and any other text field; an empty mapping if nothing is known.
    test_rows: [R] bool, the shipped test rows; None where no split is shipped.
    valid_rows: [R] bool, the shipped validation rows; None where none are shipped.
    feedback: what the ratings mean.
    sentences: what was understood of tables of the user's, a line each.
    notes: counts to report to the user, e.g. {"duplicate rows dropped": 3}.
    item_noun: what an item is called, such as "film"; "item" where nothing says it.
    position: [R] int64, the places of the rows among those of all processes, where each process
      has those of some users; None where the rows are all.
  """

  name: str
  interactions: Interactions
  item_fields: Sequence[Mapping[str, Any]]
  test_rows: np.ndarray | None = None
  valid_rows: np.ndarray | None = None
  feedback: Feedback = Feedback()
  sentences: tuple[str, ...] = ()
  notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  item_noun: str = "item"
  position: np.ndarray | None = None


def build_interactions(
  user: Column,
  item: Column,
  rating: Column,
  timestamp: Column,
  *,
  user_ids: Iterable[int | str] | None = None,
  item_ids: Iterable[int | str] | None = None,
  source: str = "",
) -> tuple[Interactions, dict[str, int]]:
  """Converts raw columns to vocabularies and dense indices.

  Of several rows with the same user and item, the latest is kept (by time, then by row), and the
  others are counted. The order of the remaining rows does not change.

  Args: as `index_interactions`.

  Returns:
    The interactions, and notes: {"duplicate ratings dropped": n} if there were any.

  Raises:
    InputError: as `index_interactions`.
  """
  indexed = index_interactions(
    user, item, rating, timestamp, user_ids=user_ids, item_ids=item_ids, source=source
  )
  kept, _ = merge_duplicates(pair_keys(indexed), indexed.timestamp, indexed.rating, rule="last")
  if kept is None:
    return indexed, {}
  return indexed.take(kept), {"duplicate ratings dropped": len(indexed) - len(kept)}


def index_interactions(
  user: Column,
  item: Column,
  rating: Column,
  timestamp: Column,
  *,
  user_ids: Iterable[int | str] | None = None,
  item_ids: Iterable[int | str] | None = None,
  source: str = "",
  peers: Peers = ALONE,
) -> Interactions:
  """Interactions of all rows, those of the same user and item too.

  Args:
    user: [R] raw ids, all whole numbers or all text, without missing values.
    item: [R] raw ids, likewise.
    rating: [R] finite numbers.
    timestamp: [R] seconds since 1970, rounded down.
    user_ids, item_ids: raw ids that belong to the vocabularies even without rows.
    source: name of the file for error messages.
    peers: processes with further rows of the same vocabularies: `user` and `item` are then encoded
      by one dictionary in all of them.

  Raises:
    InputError: no rows, columns of unequal length, missing ids or ids of mixed types, ratings that
      are not finite numbers, timestamps outside the years 1 to 9999.
  """
  prefix = f"{source}: " if source else ""
  lengths = {"user": len(user), "item": len(item), "rating": len(rating), "time": len(timestamp)}
  if len(set(lengths.values())) > 1:
    raise InputError(f"{prefix}columns differ in length: {lengths}; each row needs all four")
  if not sum_of(peers, len(user)):
    raise InputError(f"{prefix}there are no interactions; at least one row is needed")
  user_index, user_vocabulary = _index_ids(user, user_ids, f"{prefix}user id", peers)
  item_index, item_vocabulary = _index_ids(item, item_ids, f"{prefix}item id", peers)
  return Interactions(
    user=user_index,
    item=item_index,
    rating=_check_ratings(rating, prefix),
    timestamp=_check_timestamps(timestamp, prefix),
    user_ids=user_vocabulary,
    item_ids=item_vocabulary,
  )


def no_interactions() -> Interactions:
  """Interactions without rows, users or items."""
  empty = np.zeros(0, np.int32)
  return Interactions(empty, empty, empty.astype(np.float32), empty.astype(np.int64), (), ())


def catalog_order(ids: Iterable[int | str]) -> tuple[str, ...]:
  """Distinct `ids` as strings, in numeric order if all are integers, else sorted as text."""
  distinct = {str(raw_id) for raw_id in ids}
  if all(_INTEGER.fullmatch(raw_id) for raw_id in distinct):
    return tuple(sorted(distinct, key=int))
  return tuple(sorted(distinct))


def pair_keys(interactions: Interactions) -> np.ndarray:
  """[R] int64, one number per (user, item) pair, ordered by user, then item."""
  return interactions.user.astype(np.int64) * interactions.num_items + interactions.item


def _index_ids(
  column: Column, given: Iterable[int | str] | None, what: str, peers: Peers
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns [R] int32 indices into the vocabulary, and the vocabulary."""
  encoded = _encode_ids(column, what)
  codes = encoded.indices.to_numpy(zero_copy_only=False)
  distinct = [str(value) for value in encoded.dictionary.to_pylist()]
  # A dictionary from a file may contain values without rows.
  occurs = any_of(peers, np.bincount(codes, minlength=len(distinct)) > 0)
  occurring = [raw_id for raw_id, seen in zip(distinct, occurs, strict=True) if seen]
  if any(not raw_id.strip() for raw_id in occurring):
    raise InputError(f"{what}: some are empty; every row needs one")
  vocabulary = catalog_order([*occurring, *(given or ())])
  position = {raw_id: index for index, raw_id in enumerate(vocabulary)}
  lookup = np.array([position.get(raw_id, -1) for raw_id in distinct], dtype=np.int32)
  return lookup[codes], vocabulary


def _encode_ids(column: Column, what: str) -> pa.DictionaryArray:
  """Dictionary-encodes a column of ids, so that only the distinct ones become Python objects."""
  import pyarrow as pa

  array = column
  if not isinstance(column, (pa.Array, pa.ChunkedArray)):
    if not isinstance(column, np.ndarray) or column.dtype == object:
      _check_one_type(column, what)
    array = pa.array(column)
  chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
  if chunked.null_count:
    row = int(np.flatnonzero(chunked.is_null().to_numpy())[0])
    raise InputError(f"{what}: missing in row {row} (from 0); every row needs one")
  value_type = chunked.type
  if pa.types.is_dictionary(value_type):
    value_type = value_type.value_type
  elif pa.types.is_floating(value_type):
    # Other tools convert integers to floats if a row has none.
    try:
      chunked = chunked.cast(pa.int64())
    except pa.ArrowInvalid:
      raise InputError(f"{what}: not all are whole numbers; whole numbers or text needed") from None
    value_type = pa.int64()
  if not (
    pa.types.is_integer(value_type)
    or pa.types.is_string(value_type)
    or pa.types.is_large_string(value_type)
  ):
    raise InputError(f"{what}: type {value_type} will not do; whole numbers or text are needed")
  if not pa.types.is_dictionary(chunked.type):
    chunked = chunked.dictionary_encode()
  return chunked.unify_dictionaries().combine_chunks()


def _check_one_type(column: Sequence[Any], what: str) -> None:
  first = "text" if isinstance(column[0], str) else "a whole number"
  for row, value in enumerate(column):
    is_number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    kind = "text" if isinstance(value, str) else "a whole number" if is_number else None
    if kind is None:
      raise InputError(f"{what}: {value!r} in row {row} (from 0) is neither whole number nor text")
    if kind != first:
      raise InputError(
        f"{what}: mixed types, {column[0]!r} in row 0 is {first} and {value!r} in row {row} is"
        f" {kind}; write all ids the same way"
      )


def _numbers(column: Column, what: str) -> np.ndarray:
  """[R] array of an integer or floating dtype; missing values become NaN."""
  array = column if isinstance(column, np.ndarray) else np.asarray(column)
  if array.dtype.kind not in "iuf":
    raise InputError(f"{what}: type {array.dtype} will not do; numbers are needed")
  return array


def _check_ratings(column: Column, prefix: str) -> np.ndarray:
  """[R] float32."""
  with np.errstate(over="ignore"):
    rating = _numbers(column, f"{prefix}rating").astype(np.float32)
  finite = np.isfinite(rating)
  if not finite.all():
    row = int(np.argmin(finite))
    raise InputError(
      f"{prefix}rating: {np.asarray(column)[row]} in row {row} (from 0) and in"
      f" {np.count_nonzero(~finite) - 1} more; finite numbers are needed"
    )
  return rating


def _check_timestamps(column: Column, prefix: str) -> np.ndarray:
  """[R] int64."""
  seconds = _numbers(column, f"{prefix}timestamp")
  in_range = (seconds >= FIRST_SECOND) & (seconds <= LAST_SECOND)
  if not in_range.all():
    row = int(np.argmin(in_range))
    raise InputError(
      f"{prefix}timestamp: {seconds[row]} in row {row} (from 0) is outside the years 1 to 9999;"
      " seconds since 1970 are needed (not milliseconds)"
    )
  return seconds.astype(np.int64)
