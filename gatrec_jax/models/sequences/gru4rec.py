"""GRU4Rec (Hidasi and Karatzoglou 2018): a recurrent network over a user's latest events."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.sequences import Gru4RecConfig
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.sequences.gru import GatedRecurrence
from gatrec_jax.models.sequences.next_event import NextEventRecommender, Params
from gatrec_jax.ops.numeric import drop, unit

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Gru4RecRecommender(NextEventRecommender):
  """States are those of gated recurrent units, which begin at 0 with each user.

  Items have one vector, as what is read and as what is predicted (the paper's constrained
  embeddings). Parameters: {"item": [I, D] float32, "network": of `GatedRecurrence`}.
  """

  settings: Gru4RecConfig

  @property
  def _network(self) -> GatedRecurrence:
    return GatedRecurrence(self.settings.layers)

  def init(self, inputs: Inputs, key: Array) -> Params:
    """Fresh parameters. `key` is consumed."""
    item_key, network_key = jax.random.split(key)
    width = self.settings.width
    network = self._network.init(network_key, jnp.zeros((1, 1, width)), jnp.ones((1, 1), bool))
    return {
      "item": jax.random.normal(item_key, (self.num_items, width)) / np.sqrt(width),
      "network": network["params"],
    }

  def states(
    self, params: Params, item: Array, user: Array, place: Array, *, dropout: Any, key: Array
  ) -> Array:
    """See `NextEventRecommender`. Dropout is of what is read and of the states."""
    read_key, state_key = jax.random.split(key)
    length, width = self.settings.length, self.settings.width
    inside = (place >= 0) & (place < length)
    same = jnp.pad(user[:, 1:] == user[:, :-1], ((0, 0), (1, 0)))
    before = jnp.pad(inside[:, :-1], ((0, 0), (1, 0)))
    vectors = drop(read_key, jnp.sqrt(width) * unit(params["item"])[item], dropout)
    network = {"params": params["network"]}
    states = self._network.apply(network, vectors, same & before)
    return unit(drop(state_key, states, dropout))
