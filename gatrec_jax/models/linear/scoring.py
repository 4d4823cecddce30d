"""Scores of histories by item-item weights, dense or in two terms."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gatrec_jax.models.baselines.item_item import exact_matmul
from gatrec_jax.models.inputs import Histories, valued_rows
from gatrec_jax.models.linear.spectral import SpectralWeights

Array = jax.Array

# Entries of each history that are read at a time, by what is done with them.
_ADDED, _SCATTERED = 4, 16
# Adding the weights of one rating takes as long as so many columns of a matrix product.
ITEMS_PER_RATING = 64


def rows_of_histories(
  pairs: Histories, values: Array, users: Array, *, num_items: int
) -> list[Array]:
  """The m histories as rows, [B, I] float32 each.

  Args: values: [m, R] float32. users: [B] int32.
  """
  return [valued_rows(pairs, own, users, num_items=num_items) for own in values]


def scores_of_histories(weights: Array, pairs: Histories, values: Array, users: Array) -> Array:
  """[B, I] float32 by dense weights: a matrix product, or, where all these users have short
  histories beside the catalog, the sum of the weights of their ratings.

  Args: weights: [m, I, I] float32. pairs: R of them, by user. values: [m, R] float32. users: [B]
    int32.
  """
  num_items = weights.shape[1]
  longest = jnp.max(pairs.start[users + 1] - pairs.start[users])

  def product() -> Array:
    rows = rows_of_histories(pairs, values, users, num_items=num_items)
    return sum(map(exact_matmul, rows, weights))

  return jax.lax.cond(
    longest * ITEMS_PER_RATING < num_items,
    lambda: _sums_of_rows(weights, pairs, values, users),
    product,
  )


def scores_of_rows(weights: SpectralWeights, rows: Array) -> Array:
  """[B, I] float32 for a few histories as rows. Args: rows: [m, B, I] float32."""
  low_rank = sum(map(exact_matmul, rows, weights.left))
  scores = exact_matmul(low_rank, weights.right.T)

  def add(scores: Array, of_rank: tuple[Array, Array]) -> tuple[Array, None]:
    neighbors, values = of_rank
    return scores.at[:, neighbors].add(jnp.einsum("sbi,si->bi", rows, values)), None

  by_rank = weights.neighbors.T, jnp.moveaxis(weights.values, 2, 0)
  return jax.lax.scan(add, scores, by_rank)[0]


def low_rank_and_neighbors(
  weights: SpectralWeights, pairs: Histories, values: Array, users: Array
) -> tuple[Array, Array]:
  """The two terms of many users' scores: [B, R], to be multiplied by `right`, and [B, I], float32.

  The time depends on the longest history among these users, not on I.

  Args: pairs: P of them, by user. values: [m, P] float32. users: [B] int32.
  """
  low_rank = _sums_of_rows(weights.left, pairs, values, users)
  zeros = jnp.zeros((users.shape[0], weights.right.shape[0]))
  return low_rank, _with_neighbors(zeros, weights, pairs, values, users)


def scores_in_two_terms(
  weights: SpectralWeights, pairs: Histories, values: Array, users: Array
) -> Array:
  """[B, I] float32, both terms of many users' scores. Args: as of `low_rank_and_neighbors`."""
  low_rank = _sums_of_rows(weights.left, pairs, values, users)
  scores = exact_matmul(low_rank, weights.right.T)
  # Added in place: a sum of two arrays [B, I] would read and write both once more.
  return _with_neighbors(scores, weights, pairs, values, users)


def _with_neighbors(
  scores: Array, weights: SpectralWeights, pairs: Histories, values: Array, users: Array
) -> Array:
  """[B, I] float32, `scores` plus what the neighbors of each user's history add."""
  row = jnp.arange(users.shape[0])[:, None]

  def add(total: Array, items: Array, entries: Array) -> Array:
    added = sum(
      one[:, :, None] * of[items] for one, of in zip(entries, weights.values, strict=True)
    )
    neighbors = weights.neighbors[items].reshape(len(users), -1)
    return total.at[row, neighbors].add(added.reshape(neighbors.shape))

  return _over_histories(add, scores, pairs, values, users, step=_SCATTERED)


def _sums_of_rows(tables: Array, pairs: Histories, values: Array, users: Array) -> Array:
  """[B, C] float32, of each user the sum of value · row of the table over their history.

  Args: tables: [m, I, C] float32. The others as in `low_rank_and_neighbors`.
  """

  def add(sums: Array, items: Array, entries: Array) -> Array:
    # One rating after another: all rows at once would be written to memory and read again.
    for number in range(_ADDED):
      for one, table in zip(entries, tables, strict=True):
        sums += one[:, number, None] * table[items[:, number]]
    return sums

  zeros = jnp.zeros((users.shape[0], tables.shape[2]))
  return _over_histories(add, zeros, pairs, values, users, step=_ADDED)


def _over_histories(
  add: Callable[[Array, Array, Array], Array],
  zeros: Array,
  pairs: Histories,
  values: Array,
  users: Array,
  *,
  step: int,
) -> Array:
  """`add` over the histories of [B] users, `step` entries at a time, from `zeros` on.

  Args: add: (sum, items [B, step] int32, values [m, B, step] float32) -> the next sum; the values
    of places beyond a history are 0.
  """
  first, last = pairs.start[users], pairs.start[users + 1]
  places = jnp.arange(step, dtype=jnp.int32)

  def unfinished(state: tuple[Array, Array]) -> Array:
    return jnp.any(first + state[0] < last)

  def added(state: tuple[Array, Array]) -> tuple[Array, Array]:
    done, total = state
    place = (first + done)[:, None] + places
    inside = place < last[:, None]
    place = jnp.minimum(place, pairs.item.shape[0] - 1)
    entries = jnp.where(inside, values[:, place], 0.0)
    return done + step, add(total, pairs.item[place], entries)

  return jax.lax.while_loop(unfinished, added, (jnp.int32(0), zeros))[1]
