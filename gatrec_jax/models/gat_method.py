"""The graph attention recommender as a method: trained on ratings, served as dot products."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config import ModelConfig, TrainConfig
from gatrec_jax.data.graph import add_users, bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.evaluate.top_items import dot_product_scores
from gatrec_jax.models.gat import GatRecommender
from gatrec_jax.models.losses import hybrid_loss
from gatrec_jax.models.method import Inputs, NewUsers
from gatrec_jax.models.negatives import draw_negatives

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class GatMethod:
  """Ebrat et al. 2025, with the variants that `ModelConfig` names. `Inputs.own` is the graph."""

  settings: ModelConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True

  @property
  def module(self) -> GatRecommender:
    return GatRecommender(self.settings, self.num_users, self.num_items)

  def own_inputs(self, train: Interactions, liked: np.ndarray) -> jraph.GraphsTuple:
    """The graph of all training ratings, not of the positives alone."""
    del liked
    return bipartite_graph(
      train, edge_features=self.settings.edge_features, self_loops=self.settings.self_loops
    )

  def num_rows(self, inputs: Inputs) -> int:
    return inputs.user.shape[0]

  def init(self, inputs: Inputs, key: Array) -> Any:
    return self.module.init(key, inputs.text, inputs.own)["params"]

  def loss(
    self, params: Any, inputs: Inputs, rows: Array, key: Array, *, step: Array,
    train: TrainConfig, where: Array,
  ) -> Array:  # fmt: skip
    """The hybrid objective of eq. 1; rows are positives."""
    del step
    dropout_key, negative_key = jax.random.split(key)
    vectors = self.module.apply(
      {"params": params}, inputs.text, inputs.own, deterministic=False,
      rngs={"dropout": dropout_key},
    )  # fmt: skip
    user, item = inputs.user[rows], inputs.item[rows]
    negative, possible = draw_negatives(
      negative_key, inputs.sampler, user, num=train.negatives_per_positive
    )
    items = vectors[self.num_users :]
    losses = hybrid_loss(
      vectors[user], items[item], items[negative], negative_where=possible, where=where,
      bpr_weight=train.bpr_weight, cosine_weight=train.cosine_weight, l2_weight=train.l2_weight,
    )  # fmt: skip
    return jnp.sum(losses) / jnp.maximum(where.sum(), 1)

  def tables(self, params: Any, inputs: Inputs) -> tuple[Array, Array]:
    """[U, D] and [I, D] float32 final vectors, without dropout."""
    vectors = self.module.apply({"params": params}, inputs.text, inputs.own)
    return vectors[: self.num_users], vectors[self.num_users :]

  score = staticmethod(dot_product_scores)

  def score_new(
    self, params: Any, inputs: Inputs, tables: tuple[Array, Array], users: NewUsers
  ) -> Array:
    """The users become nodes that receive from their items; nothing is retrained (inductive)."""
    values = {"rating": (users.top_rating, users.low_rating), "time": (1.0, 1.0)}
    columns = [values[name] for name in self.settings.edge_features]
    features = [
      np.concatenate([
        np.tile(np.float32([high for high, _ in columns]), (len(good), 1)),
        np.tile(np.float32([low for _, low in columns]), (len(bad), 1)),
      ])
      for good, bad in zip(users.liked, users.disliked, strict=True)
    ]  # fmt: skip
    graph = add_users(
      jax.tree.map(np.asarray, inputs.own),
      num_users=self.num_users,
      items=[np.concatenate(pair) for pair in zip(users.liked, users.disliked, strict=True)],
      features=features,
      self_loops=self.settings.self_loops,
    )
    vectors = self.module.apply(
      {"params": params}, inputs.text, jax.tree.map(jnp.asarray, graph),
      new_text=jnp.asarray(users.text),
    )  # fmt: skip
    _, items = tables
    new = vectors[-len(users.text) :]
    return jnp.matmul(new, items.T, precision=jax.lax.Precision.HIGHEST)
