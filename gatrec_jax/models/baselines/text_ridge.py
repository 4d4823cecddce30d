"""Predicts the item factors of a collaborative model from the items' texts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import IalsConfig, TextRidgeConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.ials import IalsRecommender
from gatrec_jax.models.baselines.item_item import exact_matmul, gram, inverse, user_chunks
from gatrec_jax.models.inputs import Inputs, NewUsers, history_rows, item_counts, liked_rows
from gatrec_jax.models.linear.dense import ridge_weights
from gatrec_jax.ops.scores import dot_product_scores

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TextRidgeRecommender:
  """Ridge regression from text to item factors (Gantner et al. 2010), which also serves new items.

  It is fitted to the items with training positives and applied to all items.

  `ease`: an item's factor is its column of EASE's weights; params are {"coefficients": [D, I],
  "intercept": [I]}. `ials`: its factor of iALS, of width W; params are {"coefficients": [D, W],
  "intercept": [W]} and those of iALS, {"user": [U, W], "item": [I, W]}. All float32.
  """

  settings: TextRidgeConfig
  num_users: int
  num_items: int
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  @property
  def seeded(self) -> bool:
    """Whether it depends on the seed: iALS starts from random factors; EASE has one solution."""
    return self.settings.factors == "ials"

  @property
  def _ials(self) -> IalsRecommender:
    own = self.settings
    settings = IalsConfig(
      width=own.width,
      unobserved_weight=own.unobserved_weight,
      l2=own.ials_l2,
      iterations=own.iterations,
    )
    return IalsRecommender(settings, self.num_users, self.num_items)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Any:
    """The inputs of iALS; None for EASE."""
    return self._ials.own_inputs(train, judged) if self.settings.factors == "ials" else None

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    if self.settings.factors == "ials":
      collaborative = self._ials.fit(inputs, key)
      return collaborative | self._regression(inputs, collaborative["item"])
    penalties = jnp.asarray(self.settings.ease_l2, jnp.float32)[None]
    weights = ridge_weights(gram(inputs, num_items=self.num_items), penalties)
    return self._regression(inputs, weights[0].T)

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> tuple[Array, Array]:
    """[U, D + 1] and [I, D + 1] float32: the users' coefficients of a text, and the texts.

    The regression is applied on the user's side of ⟨user factor, predicted item factor⟩, so that
    EASE's predicted weights [I, I] are never computed.
    """
    items = _with_constant(inputs.text[self.num_users :])
    if self.settings.factors == "ials":
      return _coefficients_of(params, params["user"]), items

    def coefficients_of(users: Array) -> Array:
      return _coefficients_of(params, history_rows(inputs, users, num_items=self.num_items))

    users = jax.lax.map(coefficients_of, user_chunks(self.num_users, self.num_items))
    return users.reshape(-1, items.shape[1])[: self.num_users], items

  score = staticmethod(dot_product_scores)

  def score_new(
    self,
    params: dict[str, Array],
    inputs: Inputs,
    serving_state: tuple[Array, Array],
    users: NewUsers,
  ) -> Array:
    """[B, I] float32."""
    _, items = serving_state
    if self.settings.factors == "ials":
      # The regression is linear in its targets: predicting the new users' iALS scores from text
      # gives their factors times the predicted item factors.
      collaborative = {name: params[name] for name in ("user", "item")}
      pair = collaborative["user"], collaborative["item"]
      scores = self._ials.score_new(collaborative, inputs, pair, users)
      params = self._regression(inputs, scores.T)
      coefficients = jnp.column_stack([params["coefficients"].T, params["intercept"]])
    else:
      coefficients = _coefficients_of(params, liked_rows(users, num_items=self.num_items))
    return exact_matmul(coefficients, items.T)

  def _regression(self, inputs: Inputs, targets: Array) -> dict[str, Array]:
    """Ridge regression of `targets` [I, F] on the items' text, with an unpenalized intercept."""
    text = inputs.text[self.num_users :]
    warm = (item_counts(inputs, num_items=self.num_items) > 0).astype(jnp.float32)[:, None]
    text_mean, target_mean = (
      jnp.sum(warm * values, axis=0) / jnp.sum(warm) for values in (text, targets)
    )
    centered = warm * (text - text_mean)
    ridge = self.settings.text_l2 * jnp.eye(text.shape[1])
    # Wait for the targets: two independent solves in one program hang XLA on a CPU (jax 0.10.2).
    normal, targets = jax.lax.optimization_barrier((exact_matmul(centered.T, centered), targets))
    solve = inverse(normal + ridge)
    coefficients = exact_matmul(solve, exact_matmul(centered.T, targets - target_mean))
    return {
      "coefficients": coefficients,
      "intercept": target_mean - exact_matmul(text_mean, coefficients),
    }


def _with_constant(text: Array) -> Array:
  """[I, D] -> [I, D + 1], the last column 1."""
  return jnp.concatenate([text, jnp.ones((len(text), 1), text.dtype)], axis=1)


def _coefficients_of(params: dict[str, Array], factors: Array) -> Array:
  """[B, D + 1]: user factors or histories [B, F] times the regression."""
  regression = jnp.concatenate([params["coefficients"], params["intercept"][None]])
  return exact_matmul(factors, regression.T)
