"""Recommends items whose texts are similar to those of the items that a user liked."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import ContentKnnConfig
from gatrec_jax.models.baselines.item_item import (
  ItemItemRecommender,
  exact_matmul,
  nearest,
  without_diagonal,
)
from gatrec_jax.models.inputs import Inputs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ContentKnnRecommender(ItemItemRecommender):
  """Similarity max(cosine of the text vectors, 0)^power.

  Ratings do not affect it, so items without ratings are recommended like all others. An item
  without text is similar to none.
  """

  settings: ContentKnnConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    text = inputs.text[self.num_users :]
    length = jnp.linalg.norm(text, axis=1, keepdims=True)
    text = text / jnp.where(length > 0, length, 1.0)
    cosine = jnp.maximum(exact_matmul(text, text.T), 0.0)
    neighbors = self.settings.neighbors or self.num_items
    return {"weights": nearest(without_diagonal(cosine**self.settings.power), neighbors)}
