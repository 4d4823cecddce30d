"""The observed pairs of iALS in arrays of few shapes: rows of similar length share a bucket."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array

# Numbers that a chunk gathers, B · L · D: about a core's second cache, since every step reads them
# twice (far beyond it, a step takes three times as long); or enough to occupy a device.
_CPU_CHUNK, _DEVICE_CHUNK = 1 << 19, 1 << 24
# Another length must save so many cells of padding: each is a loop of its own to compile.
_WORTH_A_LENGTH = 30_000
_STEP = 8


class Pairs(NamedTuple):
  """The observed pairs of one side, by row.

  Attributes:
    counts: [R] int64, pairs of each row.
    other: [P] int32, their rows on the other side, in the order of the rows.
    weight: [P] float32, their c; None for 1 each.
  """

  counts: np.ndarray
  other: np.ndarray
  weight: np.ndarray | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bucket:
  """Rows of similar length, in C chunks of B rows: those of items, then those of users.

  Attributes:
    lists: [C, B, L] int32, the slots of their pairs; the last slot, whose factor is 0, for padding.
    weights: [C, B, L] float32, c of these pairs, 0 for padding; None if all are 1.
    totals: [C, B] float32, the sums of c.
    item_chunks: how many of the chunks hold items; static.
  """

  lists: Array
  weights: Array | None
  totals: Array
  item_chunks: int = dataclasses.field(metadata={"static": True})


class Layout(NamedTuple):
  """The buckets, whose rows in this order are the slots 0 … S − 1, and where rows are found.

  Attributes:
    buckets: by length.
    item_slot: [I], user_slot: [U] int32; S for rows without pairs, which are in no bucket.
  """

  buckets: tuple[Bucket, ...]
  item_slot: Array
  user_slot: Array


def by_row(
  row: np.ndarray, other: np.ndarray, weight: np.ndarray | None, *, num_rows: int
) -> Pairs:
  """Sorts pairs [P], each there once, by row and then as they are."""
  # NumPy sorts numbers of 16 bits by their digits, in a quarter of the time.
  order = np.argsort(row.astype(np.uint16) if num_rows <= 1 << 16 else row, kind="stable")
  return Pairs(
    np.bincount(row, minlength=num_rows),
    other[order].astype(np.int32),
    None if weight is None else weight[order],
  )


def layout(items: Pairs, users: Pairs, *, width: int) -> Layout:
  """The layout of both sides, which share their buckets. Args: width: D of the factors."""
  sides = items, users
  counts = np.concatenate([side.counts for side in sides])
  lengths = bucket_lengths(counts[counts > 0]).tolist()
  slots = [np.zeros(len(side.counts), np.int32) for side in sides]
  shapes, first = [], 0
  for shorter, length in zip([0, *lengths], lengths, strict=False):
    chosen = [np.flatnonzero((side.counts > shorter) & (side.counts <= length)) for side in sides]
    chunks, batch = _chunks([len(rows) for rows in chosen], length, width)
    for slot, rows, own in zip(slots, chosen, chunks, strict=True):
      slot[rows] = first + np.arange(len(rows))
      first += own * batch
    shapes.append((chosen, chunks, (batch, length)))
  for slot, side in zip(slots, sides, strict=True):
    slot[side.counts == 0] = first
  buckets = [
    _bucket(sides, slots[::-1], chosen, chunks, shape=shape, padding=first)
    for chosen, chunks, shape in shapes
  ]
  return Layout(tuple(buckets), *slots)


def padded_rows(users: Pairs, *, num_items: int, width: int) -> Bucket:
  """All users in one bucket, whose length is a power of two; their lists hold items, not slots.

  Args: users: also those without pairs. num_items: I, which is the padding. width: D.
  """
  length = max(_STEP, 1 << (int(users.counts.max()) - 1).bit_length())
  rows = np.arange(len(users.counts))
  chunks, batch = _chunks([len(rows)], length, width)
  return _bucket(
    (users,), [np.arange(num_items)], [rows], chunks, shape=(batch, length), padding=num_items
  )


def bucket_lengths(counts: np.ndarray) -> np.ndarray:
  """The lengths to pad rows to, ascending, which balance padding against their number.

  By dynamic programming over multiples of eight, whose distance grows to an eighth of themselves;
  the longest is the largest count. Args: counts: [R] int64 ≥ 1.
  """
  longest = counts.max(initial=1)
  candidates = [_STEP]
  while candidates[-1] < longest:
    candidates.append(candidates[-1] + _STEP * max(1, candidates[-1] // (8 * _STEP)))
  sizes = np.asarray([*candidates[:-1], longest])
  upto = np.concatenate([[0], np.searchsorted(np.sort(counts), sizes, side="right")])
  best, before = np.zeros(len(sizes) + 1), np.zeros(len(sizes) + 1, int)
  for end in range(1, len(sizes) + 1):
    costs = (
      best[:end]
      + sizes[end - 1] * (upto[end] - upto[:end])
      + _WORTH_A_LENGTH * (upto[end] > upto[:end])
    )
    before[end] = costs.argmin()
    best[end] = costs[before[end]]
  chosen, end = [], len(sizes)
  while end > 0:
    if upto[end] > upto[before[end]]:
      chosen.append(sizes[end - 1])
    end = before[end]
  return np.asarray(chosen[::-1])


def _chunks(rows: list[int], length: int, width: int) -> tuple[list[int], int]:
  """Chunks of each side, and rows per chunk. Args: rows: of each side."""
  numbers = _CPU_CHUNK if jax.default_backend() == "cpu" else _DEVICE_CHUNK
  fitting = max(1, numbers // (length * width))
  batch = -(-max(rows) // -(-max(rows) // fitting))
  return [-(-count // batch) for count in rows], batch


def _bucket(
  sides: tuple[Pairs, ...],
  other_slots: list[np.ndarray],
  chosen: list[np.ndarray],
  chunks: list[int],
  *,
  shape: tuple[int, int],
  padding: int,
) -> Bucket:
  """Fills a bucket of `shape` (B, L) with the rows `chosen` of each side; users are the last."""
  batch, length = shape
  total = sum(chunks) * batch
  lists = np.full((total, length), padding, np.int32)
  weights = None if sides[0].weight is None else np.zeros((total, length), np.float32)
  totals = np.zeros(total, np.float32)
  first = 0
  for side, slot, rows, own in zip(sides, other_slots, chosen, chunks, strict=True):
    counts, start = side.counts[rows], (np.cumsum(side.counts) - side.counts)[rows]
    inside = np.arange(length) < counts[:, None]
    pairs = (start[:, None] + np.arange(length))[inside]
    within = slice(first, first + len(rows))
    lists[within][inside] = slot[side.other[pairs]]
    if weights is not None:
      weights[within][inside] = side.weight[pairs]
      totals[within] = weights[within].sum(axis=1)
    else:
      totals[within] = counts
    first += own * batch
  whole = sum(chunks), batch
  return Bucket(
    lists.reshape(*whole, length),
    None if weights is None else weights.reshape(*whole, length),
    totals.reshape(whole),
    sum(chunks[:-1]),
  )
