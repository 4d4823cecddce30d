"""XSimGCL (Yu et al. 2023): LightGCN with noise in every hop and a contrast of two layers.

"XSimGCL: Towards Extremely Simple Graph Contrastive Learning for Recommendation".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import XSimGclConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.baselines.pairwise import normal_vectors, pairwise_loss
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers, liked_rows
from gatrec_jax.ops.numeric import is_off, unit
from gatrec_jax.ops.propagation import (
  Graph,
  fold_in,
  layer_vectors,
  make_propagation,
  mean_of_layers,
)
from gatrec_jax.ops.scores import Pair, dot_product_scores

Array = jax.Array

# Most users, or items, that a step contrasts: the usual batch size; bounds the square matrix.
CONTRASTED = 2048


@dataclasses.dataclass(frozen=True)
class XSimGclRecommender:
  """The mean of the vectors after 1 … L hops. Rows of a batch are positives.

  Raises: InputError: a contrast_layer above layers.
  """

  settings: XSimGclConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = False
  explainable: ClassVar[bool] = False
  score = staticmethod(dot_product_scores)

  def __post_init__(self) -> None:
    if self.settings.contrast_layer > self.settings.layers:
      raise InputError(
        f"contrast_layer={self.settings.contrast_layer}: must be at most "
        f"layers={self.settings.layers}"
      )

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Graph:
    """The graph of the positives."""
    return make_propagation(
      train.user[judged.liked],
      train.item[judged.liked],
      self.num_users,
      self.num_items,
      self.settings.propagation,
    )

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
    """`pairwise_loss` + contrast_weight · `contrast_loss` (of users + of items).

    L2 is on the vectors before any hop, as in LightGCN. The distinct users and the distinct
    positive items of the batch are contrasted (so that none is its own negative); of more than
    2,048, a random 2,048.
    """
    settings, start = self.settings, (params["user"], params["item"])
    noise_key, negative_key, *contrast_keys = jax.random.split(key, 4)
    layers = layer_vectors(
      inputs.own, start, layers=settings.layers, noise=settings.noise, key=noise_key
    )
    final = mean_of_layers(layers[1:])
    loss = pairwise_loss(
      final, start, inputs, batch, negative_key, objective=self.settings.objective
    )
    if is_off(settings.contrast_weight):
      return loss
    both = (inputs.user[batch.rows], inputs.item[batch.rows])
    for ids, view, other, own_key in zip(
      both, final, layers[settings.contrast_layer], contrast_keys, strict=True
    ):
      chosen, present = distinct(own_key, ids, batch.where, num=view.shape[0], most=CONTRASTED)
      loss += settings.contrast_weight * contrast_loss(
        view[chosen], other[chosen], temperature=settings.contrast_temperature, where=present
      )
    return loss

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> Pair:
    """([U, D], [I, D]) float32, without noise."""
    layers = layer_vectors(
      inputs.own, (params["user"], params["item"]), layers=self.settings.layers
    )
    return mean_of_layers(layers[1:])

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: Pair, users: NewUsers
  ) -> Array:
    """[B, I] scores of new users from the vectors that propagation gives them, as in LightGCN.

    A user without likes scores 0 everywhere.
    """
    layers = layer_vectors(
      inputs.own, (params["user"], params["item"]), layers=self.settings.layers
    )
    new = fold_in(inputs.own, layers, liked_rows(users, num_items=self.num_items))
    return self.score((new / self.settings.layers, serving_state[1]), jnp.arange(len(users.liked)))


def distinct(key: Array, ids: Array, where: Array, *, num: int, most: int) -> tuple[Array, Array]:
  """Up to `most` distinct ids among those that count, in random order.

  Args: ids: [B] int32 in 0 … num − 1. where: [B] bool. key: consumed.
  Returns: [N] int32, and [N] bool, False for unused places. N = min(most, num, B).
  """
  present = jnp.zeros(num, bool).at[ids].max(where)
  draw = jnp.where(present, jax.random.uniform(key, (num,)), -1.0)
  values, chosen = jax.lax.top_k(draw, min(most, num, ids.shape[0]))
  return chosen, values >= 0


def contrast_loss(left: Array, right: Array, *, temperature: Any, where: Array) -> Array:
  """InfoNCE (van den Oord et al. 2018): matches each left vector to its own among the right ones.

  Mean of −log(exp(cos(l_n, r_n) ÷ τ) ÷ Σ_m exp(cos(l_n, r_m) ÷ τ)); m runs over all, n included.

  Args:
    left, right: [N, D] float32, two views of the same N nodes.
    temperature: τ, may be traced.
    where: [N] bool, the nodes that count, as n and as m.
  Returns:
    [] float32; 0 where none counts.
  """
  left, right = unit(left) / temperature, unit(right)
  scores = jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)
  total = jax.nn.logsumexp(jnp.where(where, scores, -1e30), axis=1)
  losses = jnp.where(where, total - jnp.sum(left * right, axis=1), 0.0)
  return jnp.sum(losses) / jnp.maximum(where.sum(), 1)
