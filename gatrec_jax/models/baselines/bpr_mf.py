"""Matrix factorization with the BPR loss (Rendle et al. 2009)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax

from gatrec_jax.config.models import BprMfConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.pairwise import normal_vectors, pairwise_loss
from gatrec_jax.models.inputs import Batch, Inputs
from gatrec_jax.ops.scores import Pair, dot_product_scores

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class BprMfRecommender:
  """A trainable vector for each user and each item. Rows of a batch are positives."""

  settings: BprMfConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = False
  takes_new_ratings: ClassVar[bool] = False
  explainable: ClassVar[bool] = False
  score = staticmethod(dot_product_scores)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> None:
    """None."""

  @staticmethod
  def on_mesh(own: Any) -> Any:
    """All of them."""
    return own

  def num_rows(self, inputs: Inputs) -> int:
    """P, the positives."""
    return inputs.num_positives

  def init(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    """{"user": [U, D], "item": [I, D]} float32."""
    return normal_vectors(
      key,
      num_users=self.num_users,
      num_items=self.num_items,
      width=self.settings.width,
      stddev=self.settings.init_stddev,
    )

  def loss(self, params: dict[str, Array], batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    """See `pairwise_loss`."""
    vectors = self.serving_state(params, inputs)
    return pairwise_loss(vectors, vectors, inputs, batch, key, objective=self.settings.objective)

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> Pair:
    """([U, D], [I, D]) float32."""
    return params["user"], params["item"]
