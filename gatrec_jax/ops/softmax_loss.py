"""Softmax cross-entropy over all items: the targets of the users, and the loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.numeric import is_off
from gatrec_jax.ops.propagation import DenseEdges, SparseEdges, make_edges, sum_over_items
from gatrec_jax.ops.scores import Pair

Array = jax.Array

# Scores held in memory at a time; larger blocks are no faster.
_BLOCK = 1 << 22


class Targets(NamedTuple):
  """The users' target distributions over items, unnormalized.

  Attributes:
    edges: the pairs with a weight above 0, and their weights.
    total: [U] float32, the sum of each user's weights.
  """

  edges: DenseEdges | SparseEdges
  total: Array


def make_targets(
  train: Interactions, judged: JudgedRatings, *, relevance: str, propagation: str
) -> Targets:
  """The targets of every user; numpy arrays.

  Args:
    relevance: `binary`, where positives weigh 1 and others nothing, or `graded`, where every rating
      weighs its relevance.
    propagation: as in `make_edges`.

  >>> train = Interactions.from_indices([0, 0], [0, 1], [5, 4], num_users=1, num_items=3)
  >>> judged = Feedback().judge(train.rating)
  >>> targets = make_targets(train, judged, relevance="graded", propagation="dense")
  >>> print(targets.edges.adjacency, targets.total)
  [[1.  0.8 0. ]] [1.8]
  """
  rows = judged.liked if relevance == "binary" else np.ones(len(train), bool)
  weight = None if relevance == "binary" else judged.relevance
  edges = make_edges(
    train.user[rows], train.item[rows], train.num_users, train.num_items, propagation, weight=weight
  )
  total = np.bincount(train.user[rows], weights=weight, minlength=train.num_users)
  return Targets(edges, total.astype(np.float32))


def softmax_loss(
  vectors: Pair,
  regularized: Pair,
  targets: Targets,
  users: Array,
  *,
  temperature: Any,
  l2_weight: Any = 0.0,
  user_power: Any = 0.0,
  where: Array,
  candidates: Array | None = None,
  block: int = _BLOCK,
) -> Array:
  """Cross-entropy of the users' targets under a softmax over all items.

  Weighted mean over the targets (u, i) of the counted users of log Σ_j exp(s_uj) − s_ui + l2_weight
  · ½ (‖user‖² + ‖item‖²), s = score ÷ temperature. The weight of a target is its weight in
  `targets` times (its user's total)^−user_power. (Weights of 1 and a power of 0 give the objective
  of Mult-VAE, Liang et al. 2018.)

  Args:
    vectors: of these users and of all items, ([B, D], [I, D]) float32; their dot products are the
      scores.
    regularized: the vectors in the L2 term, ([B, D], [I, D]) float32.
    targets: of all users.
    users: [B] int32. where: [B] bool, which of them count.
    temperature, l2_weight, user_power: may be traced.
    candidates: [I] bool, items that the softmax includes; None for all.
    block: scores held at a time; beyond that they are computed in parts, and again for the
      gradient.
  Returns:
    [] float32; 0 where no target counts.

  >>> train = Interactions.from_indices([0], [0], num_users=1, num_items=2)
  >>> judged = Feedback(1.0, 0.0).judge(train.rating)
  >>> targets = make_targets(train, judged, relevance="binary", propagation="dense")
  >>> vectors = jnp.zeros((1, 3)), jnp.zeros((2, 3))  # of one user and two items
  >>> one = {"users": jnp.array([0]), "where": jnp.array([True])}
  >>> print(softmax_loss(vectors, vectors, targets, **one, temperature=1.0).round(3))  # log 2
  0.693
  """
  user, item = vectors[0] / temperature, vectors[1]
  num_users = targets.total.shape[0]
  total = jnp.where(where, targets.total[users], 0.0)
  # Σ_i w_i u · v_i = u · Σ_i w_i v_i, so the targets need no scores of single pairs.
  wanted = sum_over_items(targets.edges, item, num_users=num_users, users=users)
  losses = total * _log_normalizer(user, item, candidates, block=block)
  losses -= jnp.sum(user * wanted, axis=1)
  if not is_off(l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularized)
    of_wanted = sum_over_items(targets.edges, of_item[:, None], num_users=num_users, users=users)
    losses += 0.5 * l2_weight * (total * of_user + of_wanted[:, 0])
  if not is_off(user_power):
    factor = jnp.where(total > 0, jnp.maximum(total, 1e-9) ** -user_power, 0.0)
    losses, total = losses * factor, total * factor
  counted = total.sum()
  return jnp.where(
    counted > 0, jnp.sum(jnp.where(where, losses, 0.0)) / jnp.where(counted > 0, counted, 1.0), 0.0
  )


def _log_normalizer(user: Array, item: Array, candidates: Array | None, *, block: int) -> Array:
  """[B]: log Σ_i exp(user · item_i) for [B, D] users and [I, D] items, those of `candidates`."""

  def of_part(user: Array) -> Array:
    scores = jnp.matmul(user, item.T, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.logsumexp(scores, axis=1, where=candidates)

  size = user.shape[0]
  parts = min(size, -(-size * item.shape[0] // block))
  if parts <= 1:
    return of_part(user)
  each = -(-size // parts)
  padded = jnp.pad(user, ((0, parts * each - size), (0, 0))).reshape(parts, each, -1)
  return jax.lax.map(jax.checkpoint(of_part), padded).reshape(-1)[:size]
