"""Scores of a user as if she had not rated some of her items: what a recommendation hangs on.

Nothing is trained again. The ratings are taken out of the graph, in both directions, and out of
her history in the linear channel; the network is run on what is left. The learned parameters, the
weights of the linear channel, which items count as rated, and her text stay.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.explain.deletion import (
  Surroundings,
  can_delete,
  padded_size,
  surroundings,
  vectors_without,
)
from gatrec_jax.models.baselines.ease_rated import EaseRatedRecommender
from gatrec_jax.models.gat.channels import Channels, combined_scores, prior_weights
from gatrec_jax.models.gat.recommender import GatRecommender, products
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.scores import Pair

Array = jax.Array

_MOST_SETS = 128  # that are scored together


@dataclasses.dataclass(frozen=True)
class Rescorer:
  """(user, sets of items) -> [B, I] float32 scores without each of these sets of her ratings.

  Attributes:
    method, params, inputs, tables: of a trained GAT.
    graph: of its training ratings, numpy arrays.
    states: features and what each layer gave, where only a part must be run again; else None.
    ratings: [U] int, training ratings of each user.
  """

  recommender: GatRecommender
  params: Any
  inputs: Inputs
  serving_state: Pair | Channels
  graph: jraph.GraphsTuple
  states: tuple[Array, ...] | None
  ratings: np.ndarray

  def __call__(self, user: int, without: Sequence[Sequence[int]]) -> np.ndarray:
    """Args: user: an index. without: B sets of indices of items that she has rated in training.

    Networks of at most two light layers are run again only where the sets make a difference; others
    as a whole, for each set.
    """
    part = np.ones((len(without), self.recommender.num_items), bool)
    for row, items in zip(part, without, strict=True):
      row[list(items)] = False
    left = np.float32([self.ratings[user] - len(set(items)) for items in without])
    if self.states is None:
      return np.concatenate([self._as_a_whole(user, *one) for one in zip(part, left, strict=True)])
    around = surroundings(self.graph, user)
    found = []
    for first in range(0, len(part), _MOST_SETS):
      rows = slice(first, first + _MOST_SETS)
      count = len(part[rows])
      padding = padded_size(count) - count
      scores = _scores_nearby(
        self.params,
        self.serving_state,
        self.states,
        around,
        np.pad(part[rows], ((0, padding), (0, 0))),
        np.pad(left[rows], (0, padding)),
        self.inputs.later[user],
        recommender=self.recommender,
      )
      found.append(np.asarray(scores)[:count])
    return np.concatenate(found)

  def _as_a_whole(self, user: int, part: np.ndarray, left: np.float32) -> np.ndarray:
    """[1, I], by a run of the whole network."""
    graph, num_users = self.graph, self.recommender.num_users
    other_end = np.where(
      graph.receivers == user, graph.senders, np.where(graph.senders == user, graph.receivers, -1)
    )
    gone = (other_end >= num_users) & ~part[np.maximum(other_end - num_users, 0)]
    edges = graph.edges
    if self.recommender.settings.convolution.self_loops:
      edges = _loops_of_the_rest(graph, gone)
    return np.asarray(
      _scores_as_a_whole(
        self.params,
        self.inputs.text,
        self.serving_state,
        graph._replace(edges=edges),
        np.int32(user),
        ~gone,
        part[None],
        left[None],
        self.inputs.later[user],
        recommender=self.recommender,
      )
    )

  def first_order(self, user: int, items: Sequence[int], targets: Sequence[int]) -> np.ndarray:
    """[h, T] float32: how far the targets' scores would fall without each of a user's rated items
    if scores were linear in how often a rating is there (once, or not at all): derivatives at once.
    One run of the network forwards and one back for each target, however many ratings there are.
    The features of self-loops, means over a node's edges, stay.

    Args: user: an index. items: h of those that she has rated in training. targets: T indices.
    """
    graph, rated = self.graph, self.recommender.num_users + np.asarray(items)
    of_user = graph.receivers == user
    # In both directions, in the order of `items`.
    into = np.flatnonzero(of_user)[_places(graph.senders[of_user], rated)]
    of_user = graph.senders == user
    out = np.flatnonzero(of_user)[_places(graph.receivers[of_user], rated)]
    falls = []
    for target in targets:
      edges, part = _slopes(
        self.params,
        self.inputs.text,
        self.serving_state,
        graph,
        np.int32(user),
        np.int32(target),
        self.ratings[[user]].astype(np.float32),
        self.inputs.later[user],
        recommender=self.recommender,
      )
      edges, part = np.asarray(edges), np.asarray(part)
      falls.append(edges[into] + edges[out] + part[0, list(items)])
    return np.stack(falls, axis=1)


def make_rescorer(
  recommender: GatRecommender,
  params: Any,
  inputs: Inputs,
  serving_state: Pair | Channels,
  *,
  ratings: np.ndarray,
) -> Rescorer:
  """Args: of a trained GAT. ratings: [U] int, training ratings of each user."""
  states = None
  if can_delete(recommender.settings):
    states = _states(params, inputs, recommender=recommender)
  graph = jax.tree.map(np.asarray, inputs.own.graph)
  return Rescorer(recommender, params, inputs, serving_state, graph, states, ratings)


@functools.partial(jax.jit, static_argnames="recommender")
def _states(params: Any, inputs: Inputs, *, recommender: GatRecommender) -> tuple[Array, ...]:
  return recommender.module.apply(
    {"params": params}, inputs.text, inputs.own.graph, return_states=True
  )[1]


@functools.partial(jax.jit, static_argnames="recommender")
def _scores_nearby(
  params: Any,
  serving_state: Pair | Channels,
  states: tuple[Array, ...],
  around: Surroundings,
  part: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> Array:
  """[B, I]. Args: part: [B, I] bool, items of the user whose ratings count. left: [B] float32, how
  many of her ratings count. later: [] bool, whether she came after training."""
  vectors = serving_state.vectors if isinstance(serving_state, Channels) else serving_state
  items = around.items - recommender.num_users
  changed = vectors_without(
    params, states, around, part[:, jnp.maximum(items, 0)], settings=recommender.settings
  )
  graph = products(changed.user, vectors[1])
  own = jnp.einsum("bd,bhd->bh", changed.user, changed.items, precision=jax.lax.Precision.HIGHEST)
  place = jnp.where(around.there, items, recommender.num_items)
  graph = graph.at[:, place].set(own, mode="drop")
  return _with_channels(serving_state, graph, around.user, part, left, later, recommender)


@functools.partial(jax.jit, static_argnames="recommender")
def _scores_as_a_whole(
  params: Any,
  text: Array,
  serving_state: Pair | Channels,
  graph: jraph.GraphsTuple,
  user: Array,
  where: Array,
  part: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> Array:
  """The same for one set. Args: where: [E] bool, edges that are there (or float, how often)."""
  vectors = recommender.module.apply({"params": params}, text, graph, where=where)
  scores = products(vectors[user][None], vectors[recommender.num_users :])
  return _with_channels(serving_state, scores, user, part, left, later, recommender)


@functools.partial(jax.jit, static_argnames="recommender")
def _slopes(
  params: Any,
  text: Array,
  serving_state: Pair | Channels,
  graph: jraph.GraphsTuple,
  user: Array,
  target: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> tuple[Array, Array]:
  """[E] and [1, I] float32: derivatives of one score by how often each edge is there, and each
  rating in the linear channel."""

  def score(where: Array, part: Array) -> Array:
    return _scores_as_a_whole(
      params, text, serving_state, graph, user, where, part, left, later, recommender=recommender
    )[0, target]

  return jax.grad(score, argnums=(0, 1))(
    jnp.ones(graph.senders.shape, jnp.float32), jnp.ones((1, recommender.num_items), jnp.float32)
  )


def _with_channels(
  serving_state: Pair | Channels,
  graph: Array,
  user: Array,
  part: Array,
  left: Array,
  later: Array,
  recommender: GatRecommender,
) -> Array:
  if not isinstance(serving_state, Channels):
    return graph
  linear = None
  if serving_state.linear is not None:
    linear = EaseRatedRecommender.score_with_part(serving_state.linear, user, part)
  prior = jnp.where(later, prior_weights(recommender.settings, left), 0.0)
  return combined_scores(serving_state, graph, linear, left > 0, prior)


def _places(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Where each of the wanted ones stands among distinct values."""
  order = np.argsort(values)
  return order[np.searchsorted(values, wanted, sorter=order)]


def _loops_of_the_rest(graph: jraph.GraphsTuple, gone: np.ndarray) -> np.ndarray:
  """[E, F]: the features of self-loops are the means of those edges that stay."""
  edges, loop = graph.edges.copy(), graph.senders == graph.receivers
  for node in np.unique(graph.receivers[gone]):
    into = slice(*np.searchsorted(graph.receivers, [node, node + 1]))
    stays = ~gone[into] & ~loop[into]
    rest = graph.edges[into][stays]
    edges[into][loop[into]] = rest.mean(axis=0) if len(rest) else 0.0
  return edges
