"""The arrays that the GAT reads beside the common `Inputs`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jraph
import numpy as np

from gatrec_jax.config.convolutions import FullConvolution, NoConvolution
from gatrec_jax.config.objectives import SoftmaxObjective
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.graph import bipartite_graph, next_event_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.events import make_events
from gatrec_jax.models.gat.history import Ordered, make_ordered
from gatrec_jax.models.linear.ridge import ServingState
from gatrec_jax.ops import neighbors
from gatrec_jax.ops.attention.selection import make_layout
from gatrec_jax.ops.softmax_loss import Targets, drawn_size, make_targets

Array = jax.Array

_EVENTS_A_STEP = 2**15


class Own(NamedTuple):
  """Arrays that the GAT reads beside the common `Inputs`.

  Attributes:
    graph: of all training ratings, or of the likes.
    layout: of its edges, for the implementation of attention (ops/attention/selection.py).
    start: [U + I + 1] int32, where each node's incoming edges begin.
    slots: of the edges that a step draws; None where it reads all of them.
    targets: of the softmax; None for the pairwise loss, and for events.
    rated: [I] bool, items with a training rating. The softmax is over these: the others are scored
      by their texts, and are not to be pushed away.
    ratings: [U] float32, number of ratings of each user.
    likes: [I] float32, training positives of each item, the scores of users without ratings.
    linear: serving state of the linear channel; None without one. Its weights follow from the
      training ratings alone, as the graph does, and are no parameters; None until `completed`.
    ordered: the events, where users are attention over them; then the graph is one of I items.
  """

  graph: jraph.GraphsTuple
  layout: Any
  start: Array
  slots: neighbors.Slots | None
  targets: Targets | None
  rated: Array
  ratings: Array
  likes: Array
  linear: ServingState | None
  ordered: Ordered | None


def drawn_by(settings: ModelConfig, *, num_users: int, num_items: int) -> int:
  """How many items the softmax of a step draws; 0 = all of them."""
  objective = settings.objective
  if not isinstance(objective, SoftmaxObjective):
    return 0
  # A step over events is one over a batch of them, at most so many.
  rows = _EVENTS_A_STEP if settings.reads_order else num_users
  return drawn_size(objective.drawn_items, num_users=rows, num_items=num_items)


def make_own(settings: ModelConfig, train: Interactions, judged: JudgedRatings) -> Own:
  """The graph and what belongs to it, without the linear channel; numpy arrays."""
  drawn = drawn_by(settings, num_users=train.num_users, num_items=train.num_items)
  rated = np.bincount(train.item, minlength=train.num_items) > 0
  targets = ordered = slots = None
  if settings.reads_order:
    graph, ordered = _ordered(settings, train, judged, rated, drawn=drawn)
  else:
    graph = _bipartite(settings, train, judged)
  if isinstance(settings.objective, SoftmaxObjective) and not settings.reads_order:
    targets = make_targets(
      train,
      judged,
      relevance=settings.objective.relevance,
      propagation="auto",
      candidates=rated,
      drawn=drawn,
      popularity_weight=settings.objective.popularity_weight,
    )
  start = np.searchsorted(graph.receivers, np.arange(int(graph.n_node[0]) + 1)).astype(np.int32)
  of_node = neighbors.edges_a_node(settings.convolution, num_edges=len(graph.senders))
  if of_node and not settings.reads_order:
    slots = neighbors.make_slots(start, num=of_node)
  return Own(
    graph=graph,
    layout=None if slots else _layout(settings, graph),  # only ranking reads it whole then
    start=start,
    slots=slots,
    targets=targets,
    rated=rated,
    ratings=np.bincount(train.user, minlength=train.num_users).astype(np.float32),
    likes=np.bincount(train.item[judged.liked], minlength=train.num_items).astype(np.float32),
    linear=None,
    ordered=ordered,
  )


def _bipartite(
  settings: ModelConfig, train: Interactions, judged: JudgedRatings
) -> jraph.GraphsTuple:
  edges = np.ones(len(train), bool) if settings.graph == "rated" else judged.liked
  return bipartite_graph(
    dataclasses.replace(train, rating=judged.scaled).take(edges),
    edge_features=settings.convolution.edge_features,
    self_loops=settings.convolution.self_loops,
    relevance=judged.relevance[edges],
  )


def _ordered(
  settings: ModelConfig,
  train: Interactions,
  judged: JudgedRatings,
  rated: np.ndarray,
  *,
  drawn: int,
) -> tuple[jraph.GraphsTuple, Ordered]:
  events = make_events(train, judged)
  graph, later = next_event_graph(
    events.user,
    events.item,
    events.relevance,
    num_items=train.num_items,
    edge_features=settings.convolution.edge_features,
  )
  return graph, make_ordered(events, later, rated, objective=settings.objective, drawn=drawn)


def _layout(settings: ModelConfig, graph: jraph.GraphsTuple) -> Any:
  convolution, heads, width = settings.convolution, 1, settings.feature_width
  if isinstance(convolution, NoConvolution):
    return None
  if isinstance(convolution, FullConvolution):  # the layer that costs most
    layers = zip(convolution.heads, convolution.layer_widths, strict=True)
    heads, width = max(layers, key=math.prod)
  return make_layout(
    convolution.attention_impl,
    graph,
    heads=heads,
    width=width,
    platform=jax.default_backend(),
    chunk=convolution.edge_chunk,
  )
