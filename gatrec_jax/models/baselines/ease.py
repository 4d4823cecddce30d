"""Embarrassingly shallow autoencoders: ridge regression of every item on all the others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import EaseConfig
from gatrec_jax.models.baselines.item_item import (
  ItemItemRecommender,
  gram,
  inverse,
  without_diagonal,
)
from gatrec_jax.models.inputs import Inputs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class EaseRecommender(ItemItemRecommender):
  """Steck 2019: min ‖X − X W‖² + l2 ‖W‖² with diag(W) = 0, in closed form."""

  settings: EaseConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    return {"weights": ease_weights(gram(inputs, num_items=self.num_items), self.settings.l2)}


def ease_weights(together: Array, l2: Array | float) -> Array:
  """W = I − P ÷ diag(P) by columns with P = (G + l2 I)⁻¹, eq. 8 of Steck 2019.

  Args: together: G [I, I] float32. l2: > 0, may be traced.
  Returns: [I, I] float32, diagonal 0.
  """
  precision = inverse(together + l2 * jnp.eye(together.shape[0], dtype=together.dtype))
  return without_diagonal(-precision / jnp.diag(precision))
