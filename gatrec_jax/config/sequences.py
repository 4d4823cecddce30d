"""Settings of the models that read ratings in the order of time: one frozen dataclass each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from gatrec_jax.config.fields import Choice, LogUniform, Range, Uniform, setting
from gatrec_jax.config.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class SasRecConfig(ModelSettings):
  """SASRec (Kang and McAuley 2018): a causal transformer over a user's ratings, in time order.

  Attributes:
    width: D of items and states.
    blocks: of attention and a feed-forward network.
    heads: of attention; they divide `width`.
    length: a user's state is made of the latest so many ratings.
    dropout: of vectors, while training.
    temperature: cosines are divided by it in the softmax.
    drawn_items: items that each step draws to stand for all (a sampled softmax with logQ
      correction); 0 = all items.
  """

  kind: ClassVar[str] = "sasrec"
  reads_order: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {"learning_rate": LogUniform(3e-4, 2e-2)}
  width: int = setting(64, low=1)
  blocks: int = setting(2, low=0, search=Choice((1, 2, 3)))
  heads: int = setting(1, low=1)
  length: int = setting(50, low=1)
  dropout: float = setting(0.4, low=0, high=0.95, search=Uniform(0.1, 0.7))
  temperature: float = setting(0.07, low=1e-3, search=LogUniform(0.03, 0.3))
  drawn_items: int = setting(0, low=0, high=2**20)


@dataclasses.dataclass(frozen=True)
class Gru4RecConfig(ModelSettings):
  """GRU4Rec (Hidasi and Karatzoglou 2018): a recurrent network over a user's latest ratings.

  Attributes:
    layers: of gated recurrent units.
    width, length, dropout, temperature, drawn_items: as in `SasRecConfig`.
  """

  kind: ClassVar[str] = "gru4rec"
  reads_order: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {"learning_rate": LogUniform(3e-4, 2e-2)}
  width: int = setting(64, low=1)
  layers: int = setting(1, low=1)
  length: int = setting(50, low=1)
  dropout: float = setting(0.4, low=0, high=0.95, search=Uniform(0.1, 0.7))
  temperature: float = setting(0.07, low=1e-3, search=LogUniform(0.03, 0.3))
  drawn_items: int = setting(0, low=0, high=2**20)


@dataclasses.dataclass(frozen=True)
class MarkovConfig(ModelSettings):
  """What follows the latest ratings of a user, by counts of what followed them in training.

  Attributes:
    window: how many events after one count as followers; the n-th one counts 1 ÷ n.
    neighbors: followers kept for each item, those with the largest weights.
    shrinkage: added to an item's number of followers; damps the weights from rare items.
    popularity_power: weights are divided by (how often an item followed others) to this power.
    length: a user's latest so many events are read.
    decay: each of them counts this times as much as the next one; 0 = the latest event alone.
    relevance: the events: `binary` (positives, 1 each) or `graded` (every rating, by its
      relevance; gatrec_jax/data/feedback.py).
  """

  kind: ClassVar[str] = "markov"
  reads_order: ClassVar[bool] = True
  window: int = setting(1, low=1, search=LogUniform(1, 10, whole=True))
  neighbors: int = setting(100, low=1, search=LogUniform(10, 1000, whole=True))
  shrinkage: float = setting(0.0, low=0, search=LogUniform(0.1, 100))
  popularity_power: float = setting(0.0, low=0, high=1, search=Uniform(0.0, 1.0))
  length: int = setting(20, low=1)
  # Scoring reads it, so that it is not dynamic.
  decay: float = setting(0.5, low=0, high=1, search=Uniform(0.0, 1.0), dynamic=False)
  relevance: str = setting("binary", choices=("binary", "graded"))


@dataclasses.dataclass(frozen=True)
class RecentPopularityConfig(ModelSettings):
  """Items by their number of recent training positives, the same for every user.

  Attributes: half_life: after this share of the time from the first positive to the last one, a
    positive counts half.
  """

  kind: ClassVar[str] = "recent_popularity"
  half_life: float = setting(0.1, low=1e-6, search=LogUniform(1e-3, 1))
