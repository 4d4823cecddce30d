"""How a user's vector is made of their history: one settings class each, chosen by `history`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gatrec_jax.config.fields import Option, setting


@dataclasses.dataclass(frozen=True)
class WholeHistory(Option):
  """A user is a node of the graph, with one vector for all times; order means nothing."""

  selector: ClassVar[str] = "history"
  word: ClassVar[str] = "whole"


@dataclasses.dataclass(frozen=True)
class OrderedHistory(Option):
  """A user's vector at a time is formed by attention over their events before it.

  The graph is then one of items alone, or `graph=next`. A row of a batch is an event to be
  predicted.

  Attributes:
    history_attention: `v2` (Brody et al. 2022), or `none` (the mean of the events).
    history_query: what attends: the `latest` event, or the `mean` of them, which knows no order.
    history_latest: a linear map of the latest event's vector is added to what is attended to.
    history_features: columns of the edge features: `position` (how many events ago, a trained
      vector each), `gap` (the logarithm of the time since, in typical gaps, until the latest
      event), `relevance` (its logarithm).
    history_length: events that are read, the latest ones.
    history_heads: heads; they divide `feature_width`.
    history_dropout: share of the numbers of an event's vector dropped in training.
  """

  selector: ClassVar[str] = "history"
  word: ClassVar[str] = "ordered"
  history_attention: str = setting("v2", choices=("v2", "none"))
  history_query: str = setting("latest", choices=("latest", "mean"))
  history_latest: bool = setting(True)
  history_features: tuple[str, ...] = setting(("position", "gap", "relevance"))
  history_length: int = setting(20, low=1, high=1000)
  history_heads: int = setting(1, low=1)
  history_dropout: float = setting(0.4, low=0, high=0.99)


HISTORY_FEATURES = ("position", "gap", "relevance")
History = WholeHistory | OrderedHistory
