"""Scores of histories by item-item weights, dense or in two terms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.models.baselines.item_item import exact_matmul
from gatrec_jax.models.inputs import Histories
from gatrec_jax.models.linear.spectral import SpectralWeights

Array = jax.Array

_HIGHEST = jax.lax.Precision.HIGHEST
_STEP = 16  # entries of each history that are read at a time


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

  Args: pairs: R of them, by user. values: [m, R] float32. users: [B] int32.
  """
  first, last = pairs.start[users], pairs.start[users + 1]
  places = jnp.arange(_STEP, dtype=jnp.int32)
  row = jnp.arange(users.shape[0])[:, None, None]

  def unfinished(state: tuple[Array, Array, Array]) -> Array:
    return jnp.any(first + state[0] < last)

  def add(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    done, low_rank, near = state
    place = (first + done)[:, None] + places
    inside = place < last[:, None]
    place = jnp.minimum(place, pairs.item.shape[0] - 1)
    items = pairs.item[place]
    entries = jnp.where(inside, values[:, place], 0.0)
    low_rank += jnp.einsum("sbl,sblr->br", entries, weights.left[:, items], precision=_HIGHEST)
    added = jnp.einsum("sbl,sblk->blk", entries, weights.values[:, items], precision=_HIGHEST)
    return done + _STEP, low_rank, near.at[row, weights.neighbors[items]].add(added)

  num_items, rank = weights.right.shape
  zeros = jnp.zeros((users.shape[0], rank)), jnp.zeros((users.shape[0], num_items))
  return jax.lax.while_loop(unfinished, add, (jnp.int32(0), *zeros))[1:]
