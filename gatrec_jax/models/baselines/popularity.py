"""Recommends items by their number of positives, the same to everyone."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import PopularityConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.inputs import Inputs, NewUsers, item_counts
from gatrec_jax.ops.scores import dot_product_scores

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class PopularityRecommender:
  """Params are {"count": [I] float32}, the training positives of each item."""

  settings: PopularityConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = False
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> None:
    """None."""

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    return {"count": item_counts(inputs, num_items=self.num_items)}

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> tuple[Array, Array]:
    """[U, 1] ones and [I, 1] counts, float32."""
    return jnp.ones((self.num_users, 1), jnp.float32), params["count"][:, None]

  score = staticmethod(dot_product_scores)

  def score_new(
    self,
    params: dict[str, Array],
    inputs: Inputs,
    serving_state: tuple[Array, Array],
    users: NewUsers,
  ) -> Array:
    """[B, I] float32, the counts in every row."""
    return jnp.broadcast_to(params["count"], (len(users.liked), self.num_items))
