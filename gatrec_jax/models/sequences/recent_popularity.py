"""Recommends items by their number of recent positives, the same to everyone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.sequences import RecentPopularityConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.popularity import PopularityRecommender
from gatrec_jax.models.inputs import Inputs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class RecentPopularityRecommender(PopularityRecommender):
  """Params are {"count": [I] float32}, where a positive counts ½ for every half-life of its age.

  The age is that at the time of the last positive, as a share of the time since the first one.
  """

  settings: RecentPopularityConfig

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> np.ndarray:
    """[P] float32 in [0, 1], the age of each positive; 0 where all times are equal."""
    time = train.timestamp[judged.liked]
    span = np.ptp(time) if len(time) else 0
    return ((time.max(initial=0) - time) / max(span, 1)).astype(np.float32)

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    weight = 2.0 ** (-inputs.own / self.settings.half_life)
    return {"count": jnp.zeros(self.num_items).at[inputs.item].add(weight)}
