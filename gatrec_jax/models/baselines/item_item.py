"""Base of item-item models: an item's score is the sum of its weights from a user's history."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.inputs import Inputs, NewUsers, history_rows, liked_rows

Array = jax.Array

# Values of the dense histories in memory at a time: 128 MiB.
CHUNK_VALUES = 2**25


@dataclasses.dataclass(frozen=True)
class ItemItemRecommender:
  """Base: params are {"weights": [I, I] float32}, scores are histories @ weights.

  Column j holds the weights of all items for item j.
  """

  settings: Any
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = False
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "scores"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> None:
    """None."""

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> tuple[Array, Inputs]:
    """The weights and the inputs, which hold the histories."""
    return params["weights"], inputs

  @staticmethod
  def score(serving_state: tuple[Array, Inputs], users: Array) -> Array:
    """[B, I] float32 for `users` [B] int32; a user without positives scores 0 everywhere."""
    weights, inputs = serving_state
    return exact_matmul(history_rows(inputs, users, num_items=weights.shape[0]), weights)

  @staticmethod
  def vectors_of_users(serving_state: tuple[Array, Inputs], users: Array) -> Array:
    """[B, I] float32, the users' histories."""
    weights, inputs = serving_state
    return history_rows(inputs, users, num_items=weights.shape[0])

  @staticmethod
  def vectors_of_items(serving_state: tuple[Array, Inputs]) -> Array:
    """[I, I] float32, the weights for each item."""
    return serving_state[0].T

  def score_new(
    self,
    params: dict[str, Array],
    inputs: Inputs,
    serving_state: tuple[Array, Inputs],
    users: NewUsers,
  ) -> Array:
    """[B, I] float32: the same model on the new users' likes."""
    return exact_matmul(liked_rows(users, num_items=self.num_items), params["weights"])


def exact_matmul(left: Array, right: Array) -> Array:
  """left @ right in full float32 on every device."""
  return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def user_chunks(num_users: int, num_items: int) -> Array:
  """Indices of all users in chunks of equal size, such that B dense histories fit in memory.

  Returns: [N, B] int32: 0 … num_users − 1, then larger indices as padding.
  """
  fitting = max(1, CHUNK_VALUES // num_items)
  num_chunks = math.ceil(num_users / fitting)
  size = math.ceil(num_users / num_chunks)
  return jnp.arange(num_chunks * size, dtype=jnp.int32).reshape(num_chunks, size)


def gram(inputs: Inputs, *, num_items: int) -> Array:
  """Co-occurrences of items in the users' positives, [I, I] float32."""
  return gram_of_rows(
    lambda users: history_rows(inputs, users, num_items=num_items),
    num_users=inputs.start.shape[0] - 1,
    num_features=num_items,
  )


def gram_of_rows(rows_of: Callable[[Array], Array], *, num_users: int, num_features: int) -> Array:
  """Zᵀ Z [F, F] float32; counts below 2^24 are exact.

  Args: rows_of: users [B] int32 -> rows of Z [B, F] float32, 0 for an index of U or more.
  """

  def add(total: Array, users: Array) -> tuple[Array, None]:
    rows = rows_of(users)
    return total + exact_matmul(rows.T, rows), None

  start = jnp.zeros((num_features, num_features), jnp.float32)
  return jax.lax.scan(add, start, user_chunks(num_users, num_features))[0]


def inverse(matrix: Array) -> Array:
  """The inverse of a symmetric positive definite [I, I] by Cholesky; NaN if it is not."""
  factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
  return jax.scipy.linalg.cho_solve(factor, jnp.eye(matrix.shape[0], dtype=matrix.dtype))


def without_diagonal(matrix: Array) -> Array:
  """[I, I] with 0 on the diagonal."""
  return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0.0, matrix)


def nearest(similarity: Array, neighbors: int) -> Array:
  """Keeps the `neighbors` largest values of every column, ties by lower index; the rest become 0.

  Args:
    similarity: [I, I] float32, ≥ 0, symmetric, diagonal 0.
    neighbors: static; I − 1 or more keeps all.
  """
  num_items = similarity.shape[0]
  if neighbors >= num_items - 1:
    return similarity
  # top_k works on rows, which equal the columns of a symmetric matrix.
  values, rows = jax.lax.top_k(similarity, neighbors)
  columns = jnp.broadcast_to(jnp.arange(num_items)[:, None], rows.shape)
  return jnp.zeros_like(similarity).at[rows, columns].set(values)
