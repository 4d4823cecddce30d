"""Item-based nearest neighbors: items that the same users like."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import ItemKnnConfig
from gatrec_jax.models.baselines.item_item import (
  ItemItemRecommender,
  gram,
  nearest,
  without_diagonal,
)
from gatrec_jax.models.inputs import Inputs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ItemKnnRecommender(ItemItemRecommender):
  """Sarwar et al. 2001, similarity as in Aiolli 2013 with shrinkage.

  Two items that n_i and n_j users like, n of them both, are n ÷ (√(n_i n_j) + shrinkage) similar.
  Each target item keeps its most similar ones; its score is the sum of their similarities.
  """

  settings: ItemKnnConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    together = gram(inputs, num_items=self.num_items)
    norm = jnp.sqrt(jnp.diag(together))
    damped = norm[:, None] * norm + self.settings.shrinkage
    similarity = jnp.where(together > 0, together / jnp.where(damped > 0, damped, 1.0), 0.0)
    return {"weights": nearest(without_diagonal(similarity), self.settings.neighbors)}
