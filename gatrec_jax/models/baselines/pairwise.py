"""What models share that are learned from pairs: vectors of ids, scores of pairs, BPR with L2."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gatrec_jax.config import TrainConfig
from gatrec_jax.models.losses import bpr_loss
from gatrec_jax.models.method import Inputs, is_off
from gatrec_jax.models.negatives import draw_negatives

Array = jax.Array
Pair = tuple[Array, Array]  # ([U, D] of users, [I, D] of items)

# Pairs are looked up in the matrix of all scores where it has at most so many cells a pair
# (measured on two cores, D = 64: equal at 70–80), and takes at most so many bytes.
_CELLS_PER_PAIR = 64
_MATRIX_BYTES = 1 << 28


def normal_vectors(
  key: Array, *, num_users: int, num_items: int, width: int, stddev: Any
) -> dict[str, Array]:
  """{"user": [U, D], "item": [I, D]} float32, drawn from a normal distribution; consumes `key`."""
  user_key, item_key = jax.random.split(key)
  return {
    "user": stddev * jax.random.normal(user_key, (num_users, width)),
    "item": stddev * jax.random.normal(item_key, (num_items, width)),
  }


def pair_scores(vectors: Pair, users: Array, items: Array) -> Array:
  """[B, K] float32 dot products of user b with items b, 1 … K.

  Many pairs are looked up in the matrix of all scores: the gradient then is two matrix products
  over a scatter of numbers, instead of a scatter of vectors.

  Args: vectors: ([U, D], [I, D]) float32. users: [B] int32. items: [B, K] int32.
  """
  user, item = vectors
  highest = jax.lax.Precision.HIGHEST
  cells = user.shape[0] * item.shape[0]
  if cells <= min(_CELLS_PER_PAIR * items.size, _MATRIX_BYTES // 4):
    return jnp.matmul(user, item.T, precision=highest)[users[:, None], items]
  return jnp.einsum("bd,bkd->bk", user[users], item[items], precision=highest)


def pairwise_loss(
  vectors: Pair,
  regularised: Pair,
  inputs: Inputs,
  rows: Array,
  key: Array,
  *,
  train: TrainConfig,
  where: Array,
) -> Array:
  """BPR over drawn negatives plus l2_weight · ½ (‖user‖² + ‖positive‖² + mean ‖negative‖²).

  Args:
    vectors: whose dot products are the scores, ([U, D], [I, D]) float32.
    regularised: whose squares count, ([U, D], [I, D]) float32.
    rows, where: [B], positives and which of them count. key: of the negatives, consumed.
  Returns:
    [] float32, mean over the rows that count; 0 where none does.
  """
  user, positive = inputs.user[rows], inputs.item[rows]
  negative, possible = draw_negatives(
    key, inputs.sampler, user, num=train.negatives_per_positive
  )
  scores = pair_scores(vectors, user, jnp.concatenate([positive[:, None], negative], axis=1))
  losses = bpr_loss(scores[:, 0], scores[:, 1:], where=possible)
  if not is_off(train.l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularised)
    drawn = jnp.sum(jnp.where(possible, of_item[negative], 0.0), axis=1)
    squares = of_user[user] + of_item[positive] + drawn / jnp.maximum(possible.sum(axis=1), 1)
    losses += 0.5 * train.l2_weight * squares
  return jnp.sum(jnp.where(where, losses, 0.0)) / jnp.maximum(where.sum(), 1)
