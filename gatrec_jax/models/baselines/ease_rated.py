"""EASE with a second relation: everything that a user has rated, besides what they like."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.item_item import (
  exact_matmul,
  inverse,
  user_chunks,
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


ServingState = tuple[dict[str, Array], Rated]


@dataclasses.dataclass(frozen=True)
class EaseRatedRecommender:
  """EASE (Steck 2019) with two histories, the likes X and all ratings A (likes included):

  min ‖X − X W − A V‖² + l2 ‖W‖² + rated_l2 ‖V‖² with diag(W) = diag(V) = 0, in closed form.

  X is 1 for a positive, or the relevance of every rating (`settings.relevance`). Params are
  {"liked": W, "rated": V}, [I, I] float32 each. If every rating is a like of relevance 1, this is
  EASE with the penalty l2 · rated_l2 ÷ (l2 + rated_l2).
  """

  settings: EaseRatedConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = False
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "scores"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Rated:
    """All training ratings, with the relevance that X has."""
    relevance = judged.relevance if self.settings.relevance == "graded" else judged.liked
    return rated_histories(train, relevance)

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    return self.fit_rated(inputs.own)

  def fit_rated(self, rated: Rated) -> dict[str, Array]:
    """`fit` from the ratings alone; traceable."""
    together = _grams(rated, num_items=self.num_items)
    weights = two_relation_weights(together, self.settings.l2, self.settings.rated_l2)
    return dict(zip(("liked", "rated"), weights, strict=True))

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> ServingState:
    """The weights and the ratings."""
    return params, inputs.own

  @staticmethod
  def score(serving_state: ServingState, users: Array) -> Array:
    """[B, I] float32 for `users` [B] int32; a user without ratings scores 0 everywhere."""
    params, rated = serving_state
    return _scores(params, *_relations(rated, users, num_items=params["liked"].shape[0]))

  @staticmethod
  def vectors_of_users(serving_state: ServingState, users: Array) -> Array:
    """[B, 2 I] float32, the rows of X and of A."""
    params, rated = serving_state
    both = _relations(rated, users, num_items=params["liked"].shape[0])
    return jnp.concatenate(both, axis=1)

  @staticmethod
  def vectors_of_items(serving_state: ServingState) -> Array:
    """[I, 2 I] float32, the weights for each item."""
    params, _ = serving_state
    return jnp.concatenate([params["liked"], params["rated"]]).T

  @staticmethod
  def score_with_part(serving_state: ServingState, user: Array, part: Array) -> Array:
    """[B, I] float32 for a `user` [] int32 as if they had rated only the items in `part` [B, I]."""
    params, rated = serving_state
    relevance, all_rated = _relations(rated, user[None], num_items=params["liked"].shape[0])
    return _scores(params, relevance * part, all_rated * part)

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: ServingState, users: NewUsers
  ) -> Array:
    """[B, I] float32: the same model, applied to the new users' likes and dislikes."""
    liked = liked_rows(users, num_items=self.num_items)
    relevance = new_relevance_rows(users, num_items=self.num_items)
    graded = self.settings.relevance == "graded"
    return _scores(params, relevance if graded else liked, (relevance > 0).astype(jnp.float32))


def two_relation_weights(
  together: Array, l2: Array | float, rated_l2: Array | float
) -> tuple[Array, Array]:
  """The weights W and V of `EaseRatedRecommender`.

  With Z = [X A], P = (Zᵀ Z + diag(l2 …, rated_l2 …))⁻¹ and the multipliers of the two forbidden
  weights of item j, column j is e_j − c_j P_j − d_j P_(I + j), where c_j and d_j solve
  P_jj c + P_(j, I+j) d = 1 and P_(I+j, j) c + P_(I+j, I+j) d = 0.

  Args: together: Zᵀ Z, [2 I, 2 I] float32. l2, rated_l2: > 0, may be traced.
  Returns: [I, I] float32 each, diagonals 0.
  """
  num_items = together.shape[0] // 2
  penalties = jnp.repeat(jnp.stack([jnp.float32(l2), jnp.float32(rated_l2)]), num_items)
  precision = inverse(together + jnp.diag(penalties))
  own = jnp.diag(precision[:num_items, :num_items])
  across = jnp.diag(precision[:num_items, num_items:])
  other = jnp.diag(precision[num_items:, num_items:])
  determinant = own * other - across**2
  first, second = other / determinant, -across / determinant
  weights = -(precision[:, :num_items] * first + precision[:, num_items:] * second)
  return without_diagonal(weights[:num_items]), without_diagonal(weights[num_items:])


def _relations(rated: Rated, users: Array, *, num_items: int) -> tuple[Array, Array]:
  """The rows of X and of A, [B, I] float32 each."""
  return (
    valued_rows(rated.all, rated.relevance, users, num_items=num_items),
    history_rows(rated.all, users, num_items=num_items),
  )


def _grams(rated: Rated, *, num_items: int) -> Array:
  """Zᵀ Z, [2 I, 2 I] float32: co-occurrences of items in both histories."""

  def add(total: Array, users: Array) -> tuple[Array, None]:
    both = jnp.concatenate(_relations(rated, users, num_items=num_items), axis=1)
    return total + exact_matmul(both.T, both), None

  chunks = user_chunks(rated.all.start.shape[0] - 1, 2 * num_items)
  return jax.lax.scan(add, jnp.zeros((2 * num_items, 2 * num_items), jnp.float32), chunks)[0]


def _scores(params: dict[str, Array], liked: Array, rated: Array) -> Array:
  return exact_matmul(liked, params["liked"]) + exact_matmul(rated, params["rated"])
