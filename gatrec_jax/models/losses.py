"""Objectives: per-example values, unreduced, with `where=` masks and safe gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.models.gat import unit
from gatrec_jax.models.method import is_off


def bpr_loss(
  positive: jax.Array, negative: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
  """Bayesian personalised ranking (Rendle et al. 2009): −log σ(s⁺ − s⁻), mean over negatives.

  Args:
    positive: [B] float scores of positives.
    negative: [B, M] float scores of M negatives each.
    where: [B, M] bool, negatives that count.
  Returns:
    [B] float; 0 for an example without a counted negative.
  """
  losses = jax.nn.softplus(negative - positive[:, None])
  if where is None:
    return losses.mean(axis=1)
  total = jnp.sum(jnp.where(where, losses, 0.0), axis=1)
  return total / jnp.maximum(where.sum(axis=1), 1)


def cosine_distance(left: jax.Array, right: jax.Array) -> jax.Array:
  """1 − cos(left, right) for [..., D] vectors; 1, with zero gradient, where either is zero."""
  return 1.0 - jnp.sum(unit(left) * unit(right), axis=-1)


def hybrid_loss(
  user: jax.Array,
  positive: jax.Array,
  negative: jax.Array,
  *,
  bpr_weight: float | jax.Array = 1.0,
  cosine_weight: float | jax.Array = 1.0,
  l2_weight: float | jax.Array = 0.0,
  negative_where: jax.Array | None = None,
  where: jax.Array | None = None,
) -> jax.Array:
  """BPR plus a cosine term plus L2, per example (Ebrat et al. 2025, eq. 1, with weights).

  bpr_weight · BPR + cosine_weight · (1 − cos(user, positive)) + l2_weight · ½ (‖user‖² +
  ‖positive‖² + mean ‖negative‖²).

  Args:
    user, positive: [B, D] float vectors.
    negative: [B, M, D] float vectors.
    bpr_weight, cosine_weight, l2_weight: ≥ 0, may be traced.
    negative_where: [B, M] bool, negatives that count.
    where: [B] bool, examples that count.
  Returns:
    [B] float, 0 where masked out.
  """
  scores = jnp.einsum("bd,bmd->bm", user, negative)
  positive_score = jnp.sum(user * positive, axis=-1)
  loss = bpr_weight * bpr_loss(positive_score, scores, where=negative_where)
  if not is_off(cosine_weight):
    loss += cosine_weight * cosine_distance(user, positive)
  if not is_off(l2_weight):
    squares = jnp.sum(user**2 + positive**2, axis=-1)
    squares += jnp.mean(jnp.sum(negative**2, axis=-1), axis=-1)
    loss += 0.5 * l2_weight * squares
  return loss if where is None else jnp.where(where, loss, 0.0)
