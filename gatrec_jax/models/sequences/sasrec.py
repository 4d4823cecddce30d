"""SASRec (Kang and McAuley 2018): a causal transformer over a user's events, in time order."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.sequences import SasRecConfig
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.sequences.next_event import NextEventRecommender, Params
from gatrec_jax.models.sequences.transformer import Transformer
from gatrec_jax.ops.numeric import unit

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SasRecRecommender(NextEventRecommender):
  """States are those of a causal transformer.

  Parameters: {"item": [I, D], "position": [L, D] float32, "network": of `Transformer`}; position 0
  is that of the latest event.
  """

  settings: SasRecConfig

  @property
  def _network(self) -> Transformer:
    return Transformer(self.settings.blocks, self.settings.heads)

  def init(self, inputs: Inputs, key: Array) -> Params:
    """Fresh parameters. `key` is consumed."""
    item_key, position_key, network_key = jax.random.split(key, 3)
    width, length = self.settings.width, self.settings.length
    vectors, visible = jnp.zeros((1, 1, width)), jnp.ones((1, 1, 1), bool)
    network = self._network.init(network_key, vectors, visible, dropout=0, key=network_key)
    return {
      "item": jax.random.normal(item_key, (self.num_items, width)) / np.sqrt(width),
      "position": 0.02 * jax.random.normal(position_key, (length, width)),
      "network": network["params"],
    }

  def states(
    self, params: Params, item: Array, user: Array, place: Array, *, dropout: Any, key: Array
  ) -> Array:
    """See `NextEventRecommender`."""
    length = self.settings.length
    inside = (place >= 0) & (place < length)
    vectors = jnp.sqrt(self.settings.width) * unit(params["item"])[item]
    vectors += params["position"][jnp.clip(place, 0, length - 1)]
    visible = (user[:, :, None] == user[:, None, :]) & inside[:, None, :]
    visible &= jnp.tril(jnp.ones((item.shape[1],) * 2, bool))
    network = {"params": params["network"]}
    return unit(self._network.apply(network, vectors, visible, dropout=dropout, key=key))
