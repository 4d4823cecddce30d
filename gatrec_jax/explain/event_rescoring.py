"""Scores of a user without some of their events, where users are attention over them.

The events are removed from the history that is attended to and from that of the linear channel. The
vectors of items, to which the user's events contribute as one of many, stay the same, as do the
learned parameters, the weights of the linear channel and the gaps between the events that are left.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gatrec_jax.explain.rescoring import with_channels
from gatrec_jax.models.events import Earlier, Events
from gatrec_jax.models.gat.channels import Channels
from gatrec_jax.models.gat.new_nodes import products_of_events
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.scores import Pair

Array = jax.Array

_MOST_SETS = 64  # scored in one batch


@dataclasses.dataclass(frozen=True)
class EventRescorer:
  """(user, B sets of items) -> [B, I] float32 scores without each set of the user's events.

  Attributes: as in `Rescorer`; events: as numpy arrays.
  """

  recommender: GatRecommender
  params: Any
  inputs: Inputs
  serving_state: Pair | Channels
  events: Events
  ratings: np.ndarray

  def __call__(self, user: int, without: Sequence[Sequence[int]]) -> np.ndarray:
    """Scores all items without each of the sets.

    Args: user: an index. without: B sets of indices of items that the user has rated in training.
    """
    found = []
    for first in range(0, len(without), _MOST_SETS):
      sets = without[first : first + _MOST_SETS]
      padding = [()] * (min(_MOST_SETS, 2 ** (len(sets) - 1).bit_length()) - len(sets))
      scores = self._scores(user, [*sets, *padding])
      found.append(np.asarray(scores)[: len(sets)])
    return np.concatenate(found)

  def first_order(self, user: int, items: Sequence[int], targets: Sequence[int]) -> np.ndarray:
    """The drops in score without each of a user's ratings, which are exact here.

    Args: items: h indices of items that the user has rated in training. targets: T indices.
    Returns: [h, T] float32.
    """
    scores = self(user, [(), *((item,) for item in items)])[:, list(targets)]
    return scores[0] - scores[1:]

  @property
  def whole(self) -> EventRescorer:
    """Itself, since nothing is computed in part."""
    return self

  def _scores(self, user: int, without: Sequence[Sequence[int]]) -> Array:
    kept = np.ones((len(without), self.recommender.num_items), bool)
    for row, items in zip(kept, without, strict=True):
      row[list(items)] = False
    left = np.float32([self.ratings[user] - len(set(items)) for items in without])
    return _scores_of_events(
      self.params,
      self.serving_state,
      self._histories(user, kept),
      np.int32(user),
      kept,
      left,
      self.inputs.later[user],
      recommender=self.recommender,
    )

  def _histories(self, user: int, kept: np.ndarray) -> Earlier:
    """The latest events that are kept, B rows. Args: kept: [B, I] bool."""
    events, length = self.events, self.recommender.settings.history.history_length
    own = slice(events.start[user], events.start[user + 1])
    item, time, relevance = (one[own][::-1] for one in (events.item, events.time, events.relevance))
    out = Earlier(
      item=np.zeros((len(kept), length), np.int32),
      inside=np.zeros((len(kept), length), bool),
      gap=np.zeros((len(kept), length), np.float32),
      relevance=np.ones((len(kept), length), np.float32),
    )
    for row, there in enumerate(kept[:, item]):
      place = np.flatnonzero(there)[:length]
      out.item[row, : len(place)] = item[place]
      out.inside[row, : len(place)] = True
      out.gap[row, : len(place)] = time[place[:1]] - time[place]
      out.relevance[row, : len(place)] = relevance[place]
    return out


def make_event_rescorer(
  recommender: GatRecommender,
  params: Any,
  inputs: Inputs,
  serving_state: Pair | Channels,
  *,
  ratings: np.ndarray,
) -> EventRescorer:
  """An EventRescorer of a trained GAT. Args: as of `make_rescorer`."""
  events = jax.tree.map(np.asarray, inputs.own.ordered.events)
  return EventRescorer(recommender, params, inputs, serving_state, events, ratings)


@functools.partial(jax.jit, static_argnames="recommender")
def _scores_of_events(
  params: Any,
  serving_state: Pair | Channels,
  found: Earlier,
  user: Array,
  kept: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> Array:
  """[B, I] float32 scores with the kept events.

  Args:
    found: the latest of these, B rows. kept: [B, I] bool. left: [B] float32, how many are.
    user: [] int32. later: [] bool, whether the user came after training.
  """
  scores = products_of_events(params, serving_state, found, recommender=recommender)
  return with_channels(serving_state, scores, user, kept, left, later, recommender)
