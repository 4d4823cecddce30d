"""LightGCN (He et al. 2020): parameter-free propagation of trainable vectors."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import LightGcnConfig
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.pairwise import normal_vectors, pairwise_loss
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers, liked_rows
from gatrec_jax.ops.numeric import unit
from gatrec_jax.ops.propagation import (
  Graph,
  fold_in,
  layer_vectors,
  make_propagation,
  mean_of_layers,
)
from gatrec_jax.ops.scores import Pair, dot_product_scores
from gatrec_jax.ops.softmax_loss import (
  Targets,
  drawn_size,
  make_targets,
  softmax_loss,
  temperature_of,
)

Array = jax.Array


class Own(NamedTuple):
  """Attributes: graph: of the positives. targets: of the softmax; None for the pairwise loss."""

  graph: Graph
  targets: Targets | None


@dataclasses.dataclass(frozen=True)
class LightGcnRecommender:
  """The mean of the vectors after 0 … L hops. Rows of a batch are positives, or users (softmax)."""

  settings: LightGcnConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  scores_by: ClassVar[str] = "vectors"
  takes_new_ratings: ClassVar[bool] = False
  explainable: ClassVar[bool] = False
  score = staticmethod(dot_product_scores)

  @property
  def _softmax(self) -> bool:
    return isinstance(self.settings.objective, SoftmaxObjective)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Own:
    """The graph of the positives, and the targets of the softmax."""
    settings = self.settings
    graph = make_propagation(
      train.user[judged.liked],
      train.item[judged.liked],
      self.num_users,
      self.num_items,
      settings.propagation,
    )
    if isinstance(settings.objective, PairwiseObjective):
      return Own(graph, None)
    targets = make_targets(
      train,
      judged,
      relevance=settings.objective.relevance,
      propagation=settings.propagation,
      drawn=self._drawn,
      popularity_weight=settings.objective.popularity_weight,
    )
    return Own(graph, targets)

  @property
  def _drawn(self) -> int:
    objective = self.settings.objective
    return drawn_size(objective.drawn_items, num_users=self.num_users, num_items=self.num_items)

  @property
  def serves_new_users(self) -> bool:
    """Whether there are layers, without which nothing is propagated to a new user."""
    return self.settings.layers > 0

  @staticmethod
  def on_mesh(own: Any) -> Any:
    """All of them."""
    return own

  def num_rows(self, inputs: Inputs) -> int:
    """P positives, or U users for `softmax`."""
    return self.num_users if self._softmax else inputs.num_positives

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
    """`pairwise_loss` or `softmax_loss`, with L2 on the vectors before any hop (as the paper)."""
    vectors, start = self._vectors(params, inputs), (params["user"], params["item"])
    objective = self.settings.objective
    if isinstance(objective, PairwiseObjective):
      return pairwise_loss(vectors, start, inputs, batch, key, objective=objective)
    vectors, start = ((user[batch.rows], item) for user, item in (vectors, start))
    return softmax_loss(
      vectors,
      start,
      inputs.own.targets,
      batch.rows,
      temperature=temperature_of(objective.temperature, num_items=self.num_items),
      l2_weight=objective.l2_weight,
      user_power=objective.user_power,
      where=batch.where,
      drawn=self._drawn,
      key=key,
    )

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> Pair:
    """([U, D], [I, D]) float32, of length 1 for `softmax` (or 0); with popularity as one more."""
    user, item = self._vectors(params, inputs)
    if (bias := self._bias(inputs)) is None:
      return user, item
    return _with_one(user), jnp.concatenate([item, bias[:, None]], axis=1)

  def _bias(self, inputs: Inputs) -> Array | None:
    """[I], what an item's score is larger by than the dot product."""
    targets = inputs.own.targets
    return None if targets is None else targets.popularity

  def _vectors(self, params: dict[str, Array], inputs: Inputs) -> Pair:
    vectors = mean_of_layers(
      layer_vectors(inputs.own.graph, (params["user"], params["item"]), layers=self.settings.layers)
    )
    return tuple(map(unit, vectors)) if self._softmax else vectors

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: Pair, users: NewUsers
  ) -> Array:
    """[B, I] scores of new users from the vectors that propagation gives them (see `fold_in`).

    A trained user with the same likes also has their own vector and what the items return of it. A
    user without likes gets 0, or popularity where it counts.
    """
    layers = layer_vectors(
      inputs.own.graph, (params["user"], params["item"]), layers=self.settings.layers
    )
    new = fold_in(inputs.own.graph, layers, liked_rows(users, num_items=self.num_items))
    new = unit(new) if self._softmax else new / (self.settings.layers + 1)
    if self._bias(inputs) is not None:
      new = _with_one(new)
    return self.score((new, serving_state[1]), jnp.arange(len(users.liked)))


def _with_one(vectors: Array) -> Array:
  """[B, D + 1] from [B, D]: a user's column for the popularity of items."""
  return jnp.concatenate([vectors, jnp.ones((len(vectors), 1))], axis=1)
