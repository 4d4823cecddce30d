"""Diversification of lists by maximal marginal relevance (MMR)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.rerank.fusion.rules import masked, order_of

Array = jax.Array

# Lists per batch, so that their item vectors [B, K, D] fit on the device.
_BATCH = 512


def mmr(
  scores: np.ndarray,
  vectors: np.ndarray,
  *,
  trade_off: float,
  k: int,
  valid: np.ndarray | None = None,
  items: np.ndarray | None = None,
) -> np.ndarray:
  """Orders candidates by maximal marginal relevance (Carbonell and Goldstein 1998), greedily:

  next = argmax_i  λ · score_i − (1 − λ) · max_{j chosen} cos(v_i, v_j)

  Scores are scaled to [0, 1] within each list first, so that they are comparable to cosines. The
  candidate with the best score comes first. λ = 1 gives exactly the order of the scores.

  Args:
    scores: [m, K] float, higher is better; equal scores keep their order.
    vectors: [m, K, D] float vectors of the candidates, or [I, D] of all items together with
      `items`. A zero vector is similar to nothing.
    trade_off: λ in [0, 1].
    k: length of the resulting lists, ≤ K.
    valid: [m, K] bool, False for padding; None if there is none.
    items: [m, K] int, the rows of `vectors`; any value for padding.
  Returns: [m, k] int32, positions among the candidates, best first; −1 for padding.
  Raises: InputError for inconsistent shapes, λ or k out of range, or non-finite values.
  """
  scores, vectors = np.asarray(scores), np.asarray(vectors, np.float32)
  valid = np.ones(scores.shape, bool) if valid is None else np.asarray(valid, bool)
  _check(scores, vectors, valid, items, trade_off=trade_off, k=k)
  # Sorting candidates by score first makes argmax resolve ties by their order.
  order = order_of(masked(scores, valid))
  size, found = len(scores), []
  for first in range(0, size, _BATCH):
    rows = slice(first, first + _BATCH)
    taken = order[rows]
    present = np.take_along_axis(valid[rows], taken, axis=1)
    ordered = np.take_along_axis(scores[rows], taken, axis=1)
    if items is None:
      chosen = np.take_along_axis(vectors[rows], taken[..., None], axis=1)
    else:
      chosen = vectors[np.where(present, np.take_along_axis(items[rows], taken, axis=1), 0)]
    # All batches have the same shape, so that one compiled program serves them all.
    pad = min(_BATCH, size) - len(taken)
    padded = (
      np.pad(table, ((0, pad), *((0, 0),) * (table.ndim - 1)))
      for table in (_unit_scale(ordered, present), chosen, present)
    )
    places = np.asarray(_mmr(*padded, trade_off, k=k))[: len(taken)]
    positions = np.take_along_axis(taken, np.maximum(places, 0), axis=1)
    found.append(np.where(places >= 0, positions, -1))
  return np.concatenate(found or [np.empty((0, k))]).astype(np.int32)


@functools.partial(jax.jit, static_argnames="k")
def _mmr(scores: Array, vectors: Array, valid: Array, trade_off: Array, *, k: int) -> Array:
  """[B, k] int32 chosen positions, −1 for padding.

  Args: scores: [B, K] float32 in [0, 1], descending. vectors: [B, K, D]. valid: [B, K] bool.
  """
  norm = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  unit = jnp.where(norm > 0, vectors / jnp.where(norm > 0, norm, 1.0), 0.0)

  def choose(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
    left, closest = state
    worth = jnp.where(left, trade_off * scores - (1 - trade_off) * closest, -jnp.inf)
    place = jnp.argmax(worth, axis=1)
    cosines = jnp.einsum(
      "bkd,bd->bk", unit, jnp.take_along_axis(unit, place[:, None, None], axis=1)[:, 0]
    )
    empty = ~left.any(axis=1)
    left = left & (jnp.arange(left.shape[1]) != place[:, None])
    return (left, jnp.maximum(closest, cosines)), jnp.where(empty, -1, place)

  # Cosine −1 is the minimum, and the same for all candidates before the first one is chosen.
  furthest = jnp.full(scores.shape, -1.0, scores.dtype)
  _, places = jax.lax.scan(choose, (valid, furthest), None, length=k)
  return places.T.astype(jnp.int32)


def _unit_scale(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
  """[B, K] float32, each list's scores scaled from 0 (worst) to 1 (best); 0 if all are equal."""
  known = np.where(valid, scores, 0.0).astype(np.float64)
  highest = np.where(valid, known, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
  lowest = np.where(valid, known, np.inf).min(axis=1, keepdims=True, initial=np.inf)
  varied = highest > lowest
  spread = np.where(varied, highest - np.where(varied, lowest, 0.0), 1.0)
  return np.where(valid & varied, (known - np.where(varied, lowest, 0.0)) / spread, 0.0).astype(
    np.float32
  )


def _check(
  scores: np.ndarray,
  vectors: np.ndarray,
  valid: np.ndarray,
  items: np.ndarray | None,
  *,
  trade_off: float,
  k: int,
) -> None:
  if scores.ndim != 2 or valid.shape != scores.shape:
    raise InputError(f"mmr: scores {scores.shape} and valid {valid.shape} must be [m, K] alike")
  if not 0 <= trade_off <= 1:
    raise InputError(
      f"mmr: trade_off={trade_off} must lie in [0, 1] (0: most diverse, 1: scores alone)"
    )
  if not 1 <= k <= scores.shape[1]:
    raise InputError(f"mmr: k={k} must be between 1 and the {scores.shape[1]} candidates")
  if not np.isfinite(scores[valid]).all() or not np.isfinite(vectors).all():
    raise InputError("mmr: scores and vectors must be finite")
  if items is None and (vectors.ndim != 3 or vectors.shape[:2] != scores.shape):
    raise InputError(f"mmr: vectors {vectors.shape} must be {(*scores.shape, 'D')}, or give items")
  if items is not None:
    items = np.asarray(items)
    if vectors.ndim != 2 or items.shape != scores.shape:
      raise InputError(f"mmr: with items, vectors must be [I, D] and items {scores.shape}")
    known = items[valid]
    if known.size and (known.min() < 0 or known.max() >= len(vectors)):
      raise InputError(f"mmr: items must lie in 0…{len(vectors) - 1}")
