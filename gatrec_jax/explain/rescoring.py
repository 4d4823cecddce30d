"""Scores of a user without some of their ratings, which show what a recommendation depends on.

No model is trained. The ratings are removed from the graph, in both directions, and from the
user's history in the linear channel, and the network is run on the rest. The learned parameters,
the weights of the linear channel, the set of rated items and the user's text stay the same.
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
from gatrec_jax.models.gat.channels import Channels, combined_scores, liked_by, prior_weights
from gatrec_jax.models.gat.new_nodes import products
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.ops.scores import Pair

Array = jax.Array

_MAX_SETS = 128  # scored in one batch


@dataclasses.dataclass(frozen=True)
class Rescorer:
  """(user, B sets of items) -> [B, I] float32 scores without each set of the user's ratings.

  Attributes:
    recommender, params, inputs, serving_state: of a trained GAT.
    graph: of its training ratings, as numpy arrays.
    states: input features and the output of each layer, if a partial rerun is exact; else None.
    ratings: [U] int, number of training ratings of each user.
  """

  recommender: GatRecommender
  params: Any
  inputs: Inputs
  serving_state: Pair | Channels
  graph: jraph.GraphsTuple
  states: tuple[Array, ...] | None
  ratings: np.ndarray

  def __call__(self, user: int, without: Sequence[Sequence[int]]) -> np.ndarray:
    """Scores all items without each of the sets.

    Networks of at most two light layers are rerun only where the sets make a difference, others as
    a whole for each set.

    Args: user: an index. without: B sets of indices of items that the user has rated in training.
    """
    kept = np.ones((len(without), self.recommender.num_items), bool)
    for row, items in zip(kept, without, strict=True):
      row[list(items)] = False
    left = np.float32([self.ratings[user] - len(set(items)) for items in without])
    if self.states is None:
      return np.concatenate([self._full_rerun(user, *one) for one in zip(kept, left, strict=True)])
    around = surroundings(self.graph, user)
    found = []
    for first in range(0, len(kept), _MAX_SETS):
      rows = slice(first, first + _MAX_SETS)
      count = len(kept[rows])
      padding = padded_size(count) - count
      scores = _scores_by_partial_rerun(
        self.params,
        self.serving_state,
        self.states,
        around,
        np.pad(kept[rows], ((0, padding), (0, 0))),
        np.pad(left[rows], (0, padding)),
        self.inputs.later[user],
        recommender=self.recommender,
      )
      found.append(np.asarray(scores)[:count])
    return np.concatenate(found)

  @property
  def whole(self) -> Rescorer:
    """One that runs the whole network for each set."""
    return dataclasses.replace(self, states=None)

  def _full_rerun(self, user: int, kept: np.ndarray, left: np.float32) -> np.ndarray:
    """[1, I] scores by a run of the whole network. Args: kept: [I] bool. left: ratings kept."""
    graph, num_users = self.graph, self.recommender.num_users
    other_end = np.where(
      graph.receivers == user, graph.senders, np.where(graph.senders == user, graph.receivers, -1)
    )
    gone = (other_end >= num_users) & ~kept[np.maximum(other_end - num_users, 0)]
    edges = graph.edges
    if self.recommender.settings.convolution.self_loops:
      edges = _updated_self_loops(graph, gone)
    return np.asarray(
      scores_by_full_rerun(
        self.params,
        self.inputs.text,
        self.serving_state,
        graph._replace(edges=edges),
        np.int32(user),
        ~gone,
        kept[None],
        left[None],
        self.inputs.later[user],
        recommender=self.recommender,
      )
    )

  def first_order(self, user: int, items: Sequence[int], targets: Sequence[int]) -> np.ndarray:
    """First-order estimates of the drops in score without each of a user's ratings.

    They are the derivatives of the targets' scores with respect to the weight of each rating (1 if
    present, 0 if not). The cost is one forward and one backward pass per target, for any number of
    ratings. The features of self-loops, which are means over a node's edges, are kept fixed.

    Args:
      user: an index. items: h indices of items that the user has rated in training.
      targets: T indices.
    Returns: [h, T] float32.
    """
    graph, rated = self.graph, self.recommender.num_users + np.asarray(items)
    of_user = graph.receivers == user
    # Edges in both directions, in the order of `items`.
    into = np.flatnonzero(of_user)[_places(graph.senders[of_user], rated)]
    of_user = graph.senders == user
    out = np.flatnonzero(of_user)[_places(graph.receivers[of_user], rated)]
    falls = []
    for target in targets:
      edges, kept = _derivatives(
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
      edges, kept = np.asarray(edges), np.asarray(kept)
      falls.append(edges[into] + edges[out] + kept[0, list(items)])
    return np.stack(falls, axis=1)


def make_rescorer(
  recommender: GatRecommender,
  params: Any,
  inputs: Inputs,
  serving_state: Pair | Channels,
  *,
  ratings: np.ndarray,
) -> Rescorer:
  """A Rescorer of a trained GAT.

  Args:
    recommender, params, inputs, serving_state: of the GAT.
    ratings: [U] int, number of training ratings of each user.
  """
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
def _scores_by_partial_rerun(
  params: Any,
  serving_state: Pair | Channels,
  states: tuple[Array, ...],
  around: Surroundings,
  kept: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> Array:
  """[B, I] float32 scores with the kept ratings.

  Args:
    kept: [B, I] bool, items whose ratings by the user are kept. left: [B] float32, how many are.
    later: [] bool, whether the user came after training.
  """
  vectors = serving_state.vectors if isinstance(serving_state, Channels) else serving_state
  items = around.items - recommender.num_users
  changed = vectors_without(
    params, states, around, kept[:, jnp.maximum(items, 0)], settings=recommender.settings
  )
  graph = products(changed.user, vectors[1])
  own = jnp.einsum("bd,bhd->bh", changed.user, changed.items, precision=jax.lax.Precision.HIGHEST)
  place = jnp.where(around.there, items, recommender.num_items)
  graph = graph.at[:, place].set(own, mode="drop")
  return with_channels(serving_state, graph, around.user, kept, left, later, recommender)


@functools.partial(jax.jit, static_argnames="recommender")
def scores_by_full_rerun(
  params: Any,
  text: Array,
  serving_state: Pair | Channels,
  graph: jraph.GraphsTuple,
  user: Array,
  where: Array,
  kept: Array,
  left: Array,
  later: Array,
  *,
  recommender: GatRecommender,
) -> Array:
  """[1, I] float32 scores by a run of the whole network.

  Args:
    user: [] int32. where: [E] bool, the edges that are kept, or their weights as floats.
    kept: [1, I] bool, or weights as floats, the user's ratings in the linear channel.
    left: [1] float32. later: [] bool. Both as in `_scores_by_partial_rerun`.
  """
  vectors = recommender.module.apply({"params": params}, text, graph, where=where)
  scores = products(vectors[user][None], vectors[recommender.num_users :])
  return with_channels(serving_state, scores, user, kept, left, later, recommender)


@functools.partial(jax.jit, static_argnames="recommender")
def _derivatives(
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
  """Derivatives of one score: [E] by the weight of each edge, [1, I] by the weight of each rating
  in the linear channel, float32."""

  def score(where: Array, kept: Array) -> Array:
    return scores_by_full_rerun(
      params, text, serving_state, graph, user, where, kept, left, later, recommender=recommender
    )[0, target]

  return jax.grad(score, argnums=(0, 1))(
    jnp.ones(graph.senders.shape, jnp.float32), jnp.ones((1, recommender.num_items), jnp.float32)
  )


def with_channels(
  serving_state: Pair | Channels,
  graph: Array,
  user: Array,
  kept: Array,
  left: Array,
  later: Array,
  recommender: GatRecommender,
) -> Array:
  """[B, I] scores with the linear and the popularity channel, and predictions for unrated items.

  Args:
    graph: [B, I], of the network. user: [] int32.
    kept, left, later: as in `_scores_by_partial_rerun`.
  """
  if not isinstance(serving_state, Channels):
    return graph
  linear = None
  if serving_state.linear is not None:
    linear = RidgeRecommender.score_with_part(serving_state.linear, user, kept)
  prior = jnp.where(later, prior_weights(recommender.settings, left), 0.0)
  liked = liked_by(serving_state.unrated, user[None])
  liked = None if liked is None else liked * kept
  return combined_scores(serving_state, graph, linear, left > 0, prior, liked)


def _places(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """The index of each wanted value among distinct values."""
  order = np.argsort(values)
  return order[np.searchsorted(values, wanted, sorter=order)]


def _updated_self_loops(graph: jraph.GraphsTuple, gone: np.ndarray) -> np.ndarray:
  """[E, F] edge features in which self-loops are the means of the edges that are left."""
  edges, loop = graph.edges.copy(), graph.senders == graph.receivers
  for node in np.unique(graph.receivers[gone]):
    into = slice(*np.searchsorted(graph.receivers, [node, node + 1]))
    stays = ~gone[into] & ~loop[into]
    rest = graph.edges[into][stays]
    edges[into][loop[into]] = rest.mean(axis=0) if len(rest) else 0.0
  return edges
