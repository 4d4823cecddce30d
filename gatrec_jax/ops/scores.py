"""Scores of many pairs of a user and an item."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array
Pair = tuple[Array, Array]  # ([U, D] of users, [I, D] of items)

# Pairs are looked up in the matrix of all scores where it has at most so many cells a pair
# (measured on two cores, D = 64: equal at 70–80), and takes at most so many bytes.
_CELLS_PER_PAIR = 64
_MATRIX_BYTES = 1 << 28


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


def dot_product_scores(vectors: tuple[Array, Array], users: Array) -> Array:
  """Scores of all items as dot products, in full float32 also where the device prefers less.

  Args: vectors: ([U, D], [I, D] float32) user and item vectors. users: [B] int32.
  Returns: [B, I] float32.
  """
  user_vectors, item_vectors = vectors
  return jnp.matmul(user_vectors[users], item_vectors.T, precision=jax.lax.Precision.HIGHEST)
