"""Objectives: per-example values, unreduced, with `where=` masks and safe gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.ops.numeric import is_off, unit


def bpr_loss(
  positive: jax.Array, negative: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
  """Bayesian personalized ranking (Rendle et al. 2009): −log σ(s⁺ − s⁻), mean over negatives.

  Args:
    positive: [B] float scores of positives.
    negative: [B, M] float scores of M negatives each.
    where: [B, M] bool, negatives that count.
  Returns:
    [B] float; 0 for an example without a counted negative.

  >>> print(bpr_loss(jnp.array([0.0, 2.0]), jnp.array([[0.0], [0.0]])).round(3))
  [0.693 0.127]
  """
  losses = jax.nn.softplus(negative - positive[:, None])
  if where is None:
    return losses.mean(axis=1)
  total = jnp.sum(jnp.where(where, losses, 0.0), axis=1)
  return total / jnp.maximum(where.sum(axis=1), 1)


def cosine_distance(left: jax.Array, right: jax.Array) -> jax.Array:
  """1 − cos(left, right) for [..., D] vectors; 1, with zero gradient, where either is zero.

  >>> left, right = jnp.array([[2.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]])
  >>> cosine_distance(left, right).tolist()
  [0.0, 1.0]
  """
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

  >>> user, positive = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])
  >>> negative = jnp.array([[[0.0, 1.0]]])
  >>> loss = hybrid_loss(user, positive, negative, cosine_weight=0.5)
  >>> f"{loss[0]:.3f}"
  '0.313'
  """
  return hybrid_loss_of_scores(
    jnp.sum(user * positive, axis=-1),
    jnp.einsum("bd,bmd->bm", user, negative),
    squares=tuple(jnp.sum(v * v, axis=-1) for v in (user, positive, negative)),
    bpr_weight=bpr_weight,
    cosine_weight=cosine_weight,
    l2_weight=l2_weight,
    negative_where=negative_where,
    where=where,
  )


def hybrid_loss_of_scores(
  positive: jax.Array,
  negative: jax.Array,
  *,
  squares: tuple[jax.Array, jax.Array, jax.Array],
  bpr_weight: float | jax.Array = 1.0,
  cosine_weight: float | jax.Array = 1.0,
  l2_weight: float | jax.Array = 0.0,
  negative_where: jax.Array | None = None,
  where: jax.Array | None = None,
) -> jax.Array:
  """`hybrid_loss` from dot products and squared lengths, so that many pairs can share them.

  Args:
    positive: [B] float, user · positive. negative: [B, M] float, user · negative.
    squares: ‖user‖² [B], ‖positive‖² [B], ‖negative‖² [B, M].
    The others, and what is returned: as in `hybrid_loss`.
  """
  of_user, of_positive, of_negative = squares
  loss = bpr_weight * bpr_loss(positive, negative, where=negative_where)
  if not is_off(cosine_weight):
    loss += cosine_weight * (1.0 - positive * _inverse_length(of_user, of_positive))
  if not is_off(l2_weight):
    loss += 0.5 * l2_weight * (of_user + of_positive + jnp.mean(of_negative, axis=-1))
  return loss if where is None else jnp.where(where, loss, 0.0)


def _inverse_length(left: jax.Array, right: jax.Array) -> jax.Array:
  """1 ÷ √(left · right) of squared lengths; 0, with zero gradient, where either is 0."""
  there = (left > 0) & (right > 0)

  def safe(square: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.where(there, square, 1.0))

  return jnp.where(there, safe(left) * safe(right), 0.0)
