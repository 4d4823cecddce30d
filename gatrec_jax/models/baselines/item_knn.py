"""Item-based nearest neighbors by co-occurrence in the users' likes."""

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
  """ItemKNN (Sarwar et al. 2001), with the similarity of Aiolli 2013 and shrinkage.

  The similarity of items that n_i and n_j users like, and n users both, is n ÷ (√(n_i n_j) +
  shrinkage). Each target item keeps its most similar items; its score is the sum of the
  similarities to those in the user's history.
  """

  settings: ItemKnnConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    together = gram(inputs, num_items=self.num_items)
    norm = jnp.sqrt(jnp.diag(together))
    damped = norm[:, None] * norm + self.settings.shrinkage
    similarity = jnp.where(together > 0, together / jnp.where(damped > 0, damped, 1.0), 0.0)
    return {"weights": nearest(without_diagonal(similarity), self.settings.neighbors)}
