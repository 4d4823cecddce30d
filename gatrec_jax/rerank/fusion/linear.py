"""The weights of a linear fusion, trained by a listwise softmax loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.rerank.fusion.rules import ScaledScores

Array = jax.Array

RIDGE_USERS = 20.0
"""Strength of the regularization toward the base alone, as a number of users."""

# Maximum weight of a feature relative to the base, even if the base is uninformative.
_MAX_WEIGHT = 10.0
_NEWTON_STEPS = 10
_STEP_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.01, 0.0)


def fit_linear(
  scores: ScaledScores, relevant: np.ndarray, *, valid: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, float]:
  """Learns weights of features relative to a base of weight 1, by a listwise softmax loss.

  The fused scores are θ_0 · b + Σ θ_f · feature. First b is fitted to the base alone: it is the
  mixture of the base's standardized scores and its standardized −log rank, with weights ≥ 0 (so
  that b keeps the base's order), that minimizes mean_u CE_u. CE_u is the cross-entropy between the
  uniform distribution over the user's relevant candidates and the softmax of the scores over the
  user's list (ListNet's top-one loss, Cao et al. 2007). Then θ minimizes
  mean_u CE_u + (RIDGE_USERS / 2n) · ‖θ − θ_b‖² over n users, where θ_b is (the best θ_0 of the base
  alone, 0, …). Both problems are convex.

  Args:
    scores: standardized base [m, K], its log_ranks [m, K] and features [F, m, K].
    relevant, valid: [m, K] bool.
    rows: [m] bool, the users to learn from; those without a relevant candidate have no effect.
  Returns: θ_f ÷ θ_0, [F] float64, and the share of −log rank in b. Both are 0 without any relevant
    candidate.
  """
  target = relevant & valid
  teaches = rows & target.any(axis=1)
  if not teaches.any():
    return np.zeros(len(scores.features)), 0.0
  inputs = np.stack([scores.base, scores.log_ranks, *scores.features], axis=2).astype(np.float32)
  # Padded to a power of two, so that subsets of the users share a compiled program.
  pad = (1 << (len(target) - 1).bit_length()) - len(target)
  padded = (
    np.pad(table, ((0, pad), *((0, 0),) * (table.ndim - 1)))
    for table in (inputs, target, valid, teaches)
  )
  theta, share = (np.asarray(found, np.float64) for found in _minimize(*padded))
  largest = np.abs(theta[1:]).max(initial=0.0)
  return theta[1:] / max(theta[0], largest / _MAX_WEIGHT, 1e-6), float(share)


@jax.jit
def _minimize(inputs: Array, target: Array, valid: Array, teaches: Array) -> tuple[Array, Array]:
  """θ [1 + F] and the share of −log rank [].

  Args: inputs: [m, K, 2 + F] float32. target, valid: [m, K] bool. teaches: [m] bool.
  """
  target = target / jnp.maximum(target.sum(axis=1, keepdims=True), 1)

  def descend(inputs: Array, anchor: Array) -> tuple[Array, Array]:
    return _newton(inputs, anchor, target, valid, teaches)

  both = descend(inputs[..., :2], jnp.zeros(2))[0]
  # If the weight of one would be negative, which reverses the base, the other is used alone.
  single = [descend(inputs[..., n : n + 1], jnp.zeros(1)) for n in (0, 1)]
  by_rank = single[1][1] < single[0][1]
  alone = jnp.where(by_rank, single[1][0][0], single[0][0][0])
  alone = jnp.stack([jnp.where(by_rank, 0.0, alone), jnp.where(by_rank, alone, 0.0)])
  mixture = jnp.maximum(jnp.where((both >= 0).all(), both, alone), 0.0)
  total = mixture.sum()
  share = jnp.where(total > 0, mixture[1] / jnp.where(total > 0, total, 1.0), 0.0)
  calibrated = (1 - share) * inputs[..., :1] + share * inputs[..., 1:2]
  inputs = jnp.concatenate([calibrated, inputs[..., 2:]], axis=2)
  return descend(inputs, jnp.zeros(inputs.shape[2]).at[0].set(total))[0], share


def _newton(
  inputs: Array, anchor: Array, target: Array, valid: Array, teaches: Array
) -> tuple[Array, Array]:
  """Minimizes the loss by Newton's method, starting at the anchor: θ [F] and its loss []."""
  num_users = jnp.maximum(teaches.sum(), 1)
  counted = teaches.astype(inputs.dtype) / num_users
  wanted = jnp.einsum("u,uk,ukf->f", counted, target, inputs)
  ridge = RIDGE_USERS / num_users
  # Rows of padding have no valid item; a finite floor avoids NaN in their softmax.
  floor = jnp.finfo(inputs.dtype).min

  def scores(theta: Array) -> Array:
    return jnp.where(valid, inputs @ theta, floor)

  def loss(theta: Array) -> Array:
    log_total = jnp.where(teaches, jax.nn.logsumexp(scores(theta), axis=1), 0.0)
    return counted @ log_total - wanted @ theta + 0.5 * ridge * ((theta - anchor) ** 2).sum()

  def step(_: int, theta: Array) -> Array:
    chance = jax.nn.softmax(scores(theta), axis=1)
    mean = jnp.einsum("uk,ukf->uf", chance, inputs)
    gradient = counted @ mean - wanted + ridge * (theta - anchor)
    curvature = (
      jnp.einsum("uk,ukf,ukg->fg", counted[:, None] * chance, inputs, inputs)
      - jnp.einsum("uf,ug->fg", counted[:, None] * mean, mean)
      + ridge * jnp.eye(len(theta))
    )
    tries = theta - jnp.array(_STEP_LENGTHS)[:, None] * jnp.linalg.solve(curvature, gradient)
    losses = jax.vmap(loss)(tries)
    return tries[jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))]

  theta = jax.lax.fori_loop(0, _NEWTON_STEPS, step, anchor)
  return theta, loss(theta)
