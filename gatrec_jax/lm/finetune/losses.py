"""Losses of fine-tuning: per-example values with a `where` mask and finite gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Value of masked logits. Its exponential is 0 next to any real logit, but unlike with -inf, a fully
# masked row has finite values and gradients.
_MASKED = float(jnp.finfo(jnp.float32).min) / 2


def target_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Cross-entropy of target tokens, −log p(target), unreduced.

  Args:
    logits: [..., V] float.
    targets: [...] int32 token ids.
  Returns:
    [...] float32.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


def label_loss(label_logits: jax.Array, label: jax.Array, *, where: jax.Array) -> jax.Array:
  """Cross-entropy of the correct label among the allowed ones.

  Args:
    label_logits: [B, L] float.
    label: [B] int32, index of the correct label.
    where: [B, L] bool, allowed labels.
  Returns:
    [B] float32; 0 for a row whose correct label is not allowed.
  """
  log_p = jnp.take_along_axis(_log_softmax(label_logits, where), label[:, None], axis=1)[:, 0]
  allowed = jnp.take_along_axis(where, label[:, None], axis=1)[:, 0]
  return jnp.where(allowed, -log_p, 0.0)


def listwise_softmax_loss(
  label_logits: jax.Array, relevance: jax.Array, *, where: jax.Array
) -> jax.Array:
  """Cross-entropy against relevance / Σ relevance (the softmax loss of RankT5, normalized).

  Suited to binary relevance, for which the target of `listnet_loss` is almost flat. With one
  relevant label it equals `label_loss`.

  Args:
    label_logits: [B, L] float.
    relevance: [B, L] float, ≥ 0.
    where: [B, L] bool, labels that count.
  Returns:
    [B] float32; 0 for a row without a relevant label that counts.
  """
  relevance = jnp.where(where, relevance, 0.0)
  total = relevance.sum(axis=1, keepdims=True)
  target = relevance / jnp.where(total > 0, total, 1.0)
  return _cross_entropy(target, label_logits, where)


def listnet_loss(label_logits: jax.Array, relevance: jax.Array, *, where: jax.Array) -> jax.Array:
  """Top-one ListNet (Cao et al. 2007): cross-entropy of softmax(relevance) and softmax(scores).

  Only differences of relevance matter: relevance 0 and 1 give a target with odds of e to 1. For a
  sharper target scale the relevance, or use `listwise_softmax_loss`.

  Args:
    label_logits: [B, L] float, the scores.
    relevance: [B, L] float.
    where: [B, L] bool, labels that count.
  Returns:
    [B] float32; 0 for a row without labels that count.
  """
  return _cross_entropy(jnp.exp(_log_softmax(relevance, where)), label_logits, where)


def ranknet_loss(label_logits: jax.Array, relevance: jax.Array, *, where: jax.Array) -> jax.Array:
  """RankNet (Burges et al. 2005): mean of −log σ(sᵢ − sⱼ) over pairs with relevanceᵢ > relevanceⱼ.

  Args:
    label_logits: [B, L] float, the scores s.
    relevance: [B, L] float.
    where: [B, L] bool, labels that count.
  Returns:
    [B] float32; 0 for a row without such pairs.
  """
  scores = jnp.where(where, label_logits.astype(jnp.float32), 0.0)
  pairs = where[:, :, None] & where[:, None, :]
  pairs &= relevance[:, :, None] > relevance[:, None, :]
  losses = jax.nn.softplus(scores[:, None, :] - scores[:, :, None])
  total = jnp.sum(jnp.where(pairs, losses, 0.0), axis=(1, 2))
  return total / jnp.maximum(pairs.sum(axis=(1, 2)), 1)


def _log_softmax(scores: jax.Array, where: jax.Array) -> jax.Array:
  """[B, L] float32 log-probabilities over the labels that count; very negative elsewhere."""
  scores = jnp.where(where, scores.astype(jnp.float32), _MASKED)
  return jax.nn.log_softmax(scores, axis=-1)


def _cross_entropy(target: jax.Array, label_logits: jax.Array, where: jax.Array) -> jax.Array:
  """[B] float32 −Σ target · log softmax(scores) over the labels that count."""
  log_p = _log_softmax(label_logits, where)
  return -jnp.sum(jnp.where(where, target * log_p, 0.0), axis=1)
