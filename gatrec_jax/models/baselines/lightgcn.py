"""LightGCN (He et al. 2020): propagation without parameters over trainable vectors of ids."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config import TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.top_items import dot_product_scores
from gatrec_jax.model_settings import LightGcnConfig
from gatrec_jax.models.baselines.pairwise import Pair, normal_vectors, pairwise_loss
from gatrec_jax.models.baselines.propagation import (
  Graph,
  fold_in,
  layer_vectors,
  make_propagation,
  mean_of_layers,
  sum_of_liked,
)
from gatrec_jax.models.gat import unit
from gatrec_jax.models.method import Inputs, NewUsers, is_off, liked_rows

Array = jax.Array

# Scores that the full softmax holds at a time; larger blocks are no quicker.
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class LightGcnMethod:
  """The mean of the vectors after 0 … L hops; rows are positives (`bpr`) or users (`softmax`)."""

  settings: LightGcnConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  score = staticmethod(dot_product_scores)

  def own_inputs(self, train: Interactions, liked: np.ndarray) -> Graph:
    """The graph of the positives."""
    return make_propagation(
      train.user[liked], train.item[liked], self.num_users, self.num_items,
      self.settings.propagation,
    )

  def num_rows(self, inputs: Inputs) -> int:
    """P positives, or U users for `softmax`."""
    return self.num_users if self.settings.loss == "softmax" else inputs.user.shape[0]

  def init(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    """{"user": [U, D], "item": [I, D]} float32."""
    return normal_vectors(
      key, num_users=self.num_users, num_items=self.num_items, width=self.settings.width,
      stddev=self.settings.init_stddev,
    )

  def loss(
    self,
    params: dict[str, Array],
    inputs: Inputs,
    rows: Array,
    key: Array,
    *,
    step: Array,
    train: TrainConfig,
    where: Array,
  ) -> Array:
    """`pairwise_loss` or `softmax_loss`, with L2 on the vectors before any hop (as the paper)."""
    vectors, start = self.tables(params, inputs), (params["user"], params["item"])
    if self.settings.loss == "bpr":
      return pairwise_loss(vectors, start, inputs, rows, key, train=train, where=where)
    return softmax_loss(
      vectors, start, inputs, rows,
      temperature=self.settings.temperature, l2_weight=train.l2_weight, where=where,
    )

  def tables(self, params: dict[str, Array], inputs: Inputs) -> Pair:
    """([U, D], [I, D]) float32, of length 1 for `softmax` (or 0)."""
    vectors = mean_of_layers(
      layer_vectors(inputs.own, (params["user"], params["item"]), layers=self.settings.layers)
    )
    return tuple(map(unit, vectors)) if self.settings.loss == "softmax" else vectors

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, tables: Pair, users: NewUsers
  ) -> Array:
    """[B, I] scores from what the propagation brings to new users, with 0 as their own vector.

    A trained user with the same likes has her own vector and its echo from the items beside it;
    this is the rest (see `fold_in`). A user without likes scores 0 everywhere.

    Raises: InputError: no layers, so nothing is propagated.
    """
    if not self.settings.layers:
      raise InputError(
        "lightgcn with layers=0: has no vector for users who were not in training; use layers=1 "
        "or more"
      )
    layers = layer_vectors(
      inputs.own, (params["user"], params["item"]), layers=self.settings.layers
    )
    new = fold_in(inputs.own, layers, liked_rows(users, num_items=self.num_items))
    new = unit(new) if self.settings.loss == "softmax" else new / (self.settings.layers + 1)
    return self.score((new, tables[1]), jnp.arange(len(users.liked)))


def softmax_loss(
  vectors: Pair,
  regularised: Pair,
  inputs: Inputs,
  users: Array,
  *,
  temperature: Any,
  l2_weight: Any,
  where: Array,
  block: int = _BLOCK,
) -> Array:
  """Cross-entropy of the users' positives under a softmax over all items.

  Mean over the positives (u, i) of the counted users of log Σ_j exp(s_uj) − s_ui + l2_weight · ½
  (‖user‖² + ‖item‖²), s = score ÷ temperature. (The objective of MultiVAE, Liang et al. 2018, with
  every positive of weight 1.)

  Args:
    vectors: whose dot products are the scores, ([U, D], [I, D]) float32.
    regularised: whose squares count, ([U, D], [I, D]) float32.
    inputs: `own` is the graph.
    users, where: [B], which users, and which of them count.
    temperature, l2_weight: numbers, may be traced.
    block: scores held at a time; more are computed in parts, and again for the gradient.
  Returns:
    [] float32; 0 where no positive counts.
  """
  user, item = vectors[0][users] / temperature, vectors[1]
  count = jnp.where(where, (inputs.start[users + 1] - inputs.start[users]), 0)
  # The scores of the positives need no scores of pairs: Σ_i u · v_i = u · Σ_i v_i.
  positive = jnp.sum(user * sum_of_liked(inputs.own, item)[users], axis=1)
  losses = count * _log_normaliser(user, item, block=block) - positive
  if not is_off(l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularised)
    squares = count * of_user[users] + sum_of_liked(inputs.own, of_item[:, None])[users, 0]
    losses += 0.5 * l2_weight * squares
  return jnp.sum(jnp.where(where, losses, 0.0)) / jnp.maximum(count.sum(), 1)


def _log_normaliser(user: Array, item: Array, *, block: int) -> Array:
  """[B]: log Σ_i exp(user · item_i) for [B, D] users and [I, D] items."""

  def of_part(user: Array) -> Array:
    scores = jnp.matmul(user, item.T, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.logsumexp(scores, axis=1)

  size = user.shape[0]
  parts = min(size, -(-size * item.shape[0] // block))
  if parts <= 1:
    return of_part(user)
  each = -(-size // parts)
  padded = jnp.pad(user, ((0, parts * each - size), (0, 0))).reshape(parts, each, -1)
  return jax.lax.map(jax.checkpoint(of_part), padded).reshape(-1)[:size]
