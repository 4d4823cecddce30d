"""What models share that are learned from pairs: vectors of ids, scores of pairs, BPR with L2."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.inputs import Batch, Inputs
from gatrec_jax.ops.losses import bpr_loss
from gatrec_jax.ops.negatives import draw_negatives
from gatrec_jax.ops.numeric import is_off
from gatrec_jax.ops.scores import Pair, pair_scores

Array = jax.Array


def normal_vectors(
  key: Array, *, num_users: int, num_items: int, width: int, stddev: Any
) -> dict[str, Array]:
  """{"user": [U, D], "item": [I, D]} float32, drawn from a normal distribution; consumes `key`."""
  user_key, item_key = jax.random.split(key)
  return {
    "user": stddev * jax.random.normal(user_key, (num_users, width)),
    "item": stddev * jax.random.normal(item_key, (num_items, width)),
  }


def pairwise_loss(
  vectors: Pair, regularized: Pair, inputs: Inputs, batch: Batch, key: Array, *, train: TrainConfig
) -> Array:
  """BPR over drawn negatives plus l2_weight · ½ (‖user‖² + ‖positive‖² + mean ‖negative‖²).

  Args:
    vectors: whose dot products are the scores, ([U, D], [I, D]) float32.
    regularized: whose squares count, ([U, D], [I, D]) float32.
    batch: rows are positives. key: of the negatives, consumed.
  Returns:
    [] float32, mean over the rows that count; 0 where none does.
  """
  user, positive = inputs.user[batch.rows], inputs.item[batch.rows]
  negative, possible = draw_negatives(key, inputs.sampler, user, num=train.negatives_per_positive)
  scores = pair_scores(vectors, user, jnp.concatenate([positive[:, None], negative], axis=1))
  losses = bpr_loss(scores[:, 0], scores[:, 1:], where=possible)
  if not is_off(train.l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularized)
    drawn = jnp.sum(jnp.where(possible, of_item[negative], 0.0), axis=1)
    squares = of_user[user] + of_item[positive] + drawn / jnp.maximum(possible.sum(axis=1), 1)
    losses += 0.5 * train.l2_weight * squares
  return jnp.sum(jnp.where(batch.where, losses, 0.0)) / jnp.maximum(batch.where.sum(), 1)
