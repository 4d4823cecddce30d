"""Embarrassingly shallow autoencoders: ridge regression of every item on all the others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import EaseConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.item_item import (
  ItemItemRecommender,
  exact_matmul,
  gram,
  inverse,
  without_diagonal,
)
from gatrec_jax.models.inputs import (
  Inputs,
  NewUsers,
  Rated,
  history_rows,
  liked_rows,
  new_relevance_rows,
  rated_histories,
  valued_rows,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class EaseRecommender(ItemItemRecommender):
  """Steck 2019: min ‖X − X W‖² + l2 ‖W‖² with diag(W) = 0, in closed form.

  X is 1 for a positive, or the relevance of every rating (`settings.relevance`).
  """

  settings: EaseConfig

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Rated | None:
    """All training ratings with their relevance; None for `binary`, which reads positives alone."""
    if self.settings.relevance == "binary":
      return None
    return rated_histories(train, judged.relevance)

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    together = gram(inputs, num_items=self.num_items, rows=_rows)
    return {"weights": ease_weights(together, self.settings.l2)}

  @staticmethod
  def score(serving_state: tuple[Array, Inputs], users: Array) -> Array:
    """[B, I] float32 for `users` [B] int32; a user without a history scores 0 everywhere."""
    weights, inputs = serving_state
    return exact_matmul(_rows(inputs, users, num_items=weights.shape[0]), weights)

  @staticmethod
  def vectors_of_users(serving_state: tuple[Array, Inputs], users: Array) -> Array:
    """[B, I] float32, the rows of X."""
    weights, inputs = serving_state
    return _rows(inputs, users, num_items=weights.shape[0])

  def score_new(
    self,
    params: dict[str, Array],
    inputs: Inputs,
    serving_state: tuple[Array, Inputs],
    users: NewUsers,
  ) -> Array:
    """[B, I] float32: the same model on the new users' likes (and dislikes, if `graded`)."""
    graded = self.settings.relevance == "graded"
    rows = (new_relevance_rows if graded else liked_rows)(users, num_items=self.num_items)
    return exact_matmul(rows, params["weights"])


def ease_weights(together: Array, l2: Array | float) -> Array:
  """The weights of EASE: W = I − P ÷ diag(P) by columns, P = (G + l2 I)⁻¹ (Steck 2019, eq. 8).

  Args: together: G [I, I] float32. l2: > 0, may be traced.
  Returns: [I, I] float32, diagonal 0.
  """
  precision = inverse(together + l2 * jnp.eye(together.shape[0], dtype=together.dtype))
  return without_diagonal(-precision / jnp.diag(precision))


def _rows(inputs: Inputs, users: Array, *, num_items: int) -> Array:
  """[B, I] float32: the rows of X."""
  if inputs.own is None:
    return history_rows(inputs, users, num_items=num_items)
  return valued_rows(inputs.own.all, inputs.own.relevance, users, num_items=num_items)
