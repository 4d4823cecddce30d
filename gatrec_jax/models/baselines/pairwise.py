"""Shared by the baselines that learn from pairs: initial vectors and the pairwise loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.models.inputs import Batch, Inputs
from gatrec_jax.ops.losses import hybrid_loss_of_scores
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
  vectors: Pair,
  regularized: Pair,
  inputs: Inputs,
  batch: Batch,
  key: Array,
  *,
  objective: PairwiseObjective,
) -> Array:
  """BPR over drawn negatives and a cosine term, plus L2, possibly of other vectors.

  The L2 term is l2_weight · ½ (‖user‖² + ‖positive‖² + mean ‖negative‖²).

  Args:
    vectors: ([U, D], [I, D]) float32; their dot products are the scores.
    regularized: ([U, D], [I, D]) float32, the vectors in the L2 term.
    batch: its rows are positives.
    key: for drawing negatives; consumed.
    objective: weights, and the number of negatives.
  Returns:
    [] float32, the mean over the rows that count; 0 where none does.
  """
  user, positive = inputs.user[batch.rows], inputs.item[batch.rows]
  num = objective.negatives_per_positive
  negative, possible = draw_negatives(key, inputs.sampler, user, num=num)
  scores = pair_scores(vectors, user, jnp.concatenate([positive[:, None], negative], axis=1))
  of_user, of_item = (jnp.sum(v * v, axis=1) for v in vectors)
  losses = hybrid_loss_of_scores(
    scores[:, 0],
    scores[:, 1:],
    squares=(of_user[user], of_item[positive], of_item[negative]),
    negative_where=possible,
    bpr_weight=objective.bpr_weight,
    cosine_weight=objective.cosine_weight,
  )
  if not is_off(objective.l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularized)
    drawn = jnp.sum(jnp.where(possible, of_item[negative], 0.0), axis=1)
    squares = of_user[user] + of_item[positive] + drawn / jnp.maximum(possible.sum(axis=1), 1)
    losses += 0.5 * objective.l2_weight * squares
  return jnp.sum(jnp.where(batch.where, losses, 0.0)) / jnp.maximum(batch.where.sum(), 1)
