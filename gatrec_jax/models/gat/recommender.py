"""The GAT as a recommender: trained on ratings, served as dot products and further channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.histories import OrderedHistory
from gatrec_jax.config.objectives import SoftmaxObjective
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import Kept
from gatrec_jax.models.events import earlier, liked_as_events
from gatrec_jax.models.gat import vectors
from gatrec_jax.models.gat.channels import (
  Channels,
  channel_scores,
  combined_scores_of_new,
  has_channels,
  linear_channel,
  make_unrated,
  prior_weights,
)
from gatrec_jax.models.gat.history import (
  HistoryAttention,
  events_loss,
  states_of_users,
  visible_edges,
)
from gatrec_jax.models.gat.network import GatNetwork
from gatrec_jax.models.gat.new_nodes import (
  grown_params,
  nodes_with_edges,
  products_of_events,
  products_of_new,
)
from gatrec_jax.models.gat.own import Own, drawn_by, make_own
from gatrec_jax.models.inputs import Batch, Histories, Inputs, NewUsers, liked_rows
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.ops import neighbors
from gatrec_jax.ops.losses import hybrid_loss_of_scores
from gatrec_jax.ops.negatives import draw_negatives
from gatrec_jax.ops.scores import Pair, dot_product_scores, pair_scores
from gatrec_jax.ops.softmax_loss import softmax_loss, temperature_of
from gatrec_jax.sharding.placement import to_device

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class GatRecommender:
  """Ebrat et al. 2025 (arXiv 2508.01514), with the variants of `ModelConfig`."""

  settings: ModelConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = True

  @property
  def module(self) -> GatNetwork:
    """The network over the graph, whose nodes are items alone where users are their events."""
    users = 0 if self._history else self.num_users
    return GatNetwork(self.settings, users, self.num_items)

  @property
  def _history(self) -> OrderedHistory | None:
    history = self.settings.history
    return history if isinstance(history, OrderedHistory) else None

  @property
  def _is_cosine(self) -> bool:
    return self.settings.score == "cosine"

  @property
  def _linear(self) -> RidgeRecommender | None:
    return linear_channel(self.settings, num_users=self.num_users, num_items=self.num_items)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Own:
    own = make_own(self.settings, train, judged)
    if (linear := self._linear) is not None:
      own = own._replace(linear=(None, linear.own_inputs(train, judged)))
    return own

  def completed(self, own: Own, kept: Kept) -> Own:
    """With the weights of the linear channel, which `kept` gives."""
    if self._linear is None:
      return own
    relations = own.linear[1]
    weights = kept(lambda: jax.block_until_ready(jax.jit(self._linear.weights)(relations)))
    return own._replace(linear=(weights, relations))

  @property
  def _drawn(self) -> int:
    return drawn_by(self.settings, num_users=self.num_users, num_items=self.num_items)

  @staticmethod
  def on_mesh(own: Own) -> Own:
    """Without the layout, which the mesh makes for itself, and what only serving reads."""
    return own._replace(layout=None, linear=None)

  def num_rows(self, inputs: Inputs) -> int:
    """P positives, or U users under a softmax, or T events to be predicted."""
    if self._history:
      return inputs.own.ordered.events.targets.shape[0]
    is_softmax = isinstance(self.settings.objective, SoftmaxObjective)
    return self.num_users if is_softmax else inputs.num_positives

  def init(self, inputs: Inputs, key: Array) -> Any:
    if self._history is None:
      return self.module.init(key, inputs.text, inputs.own.graph)["params"]
    own, (item_key, user_key) = inputs.own, jax.random.split(key)
    items, variables = self.module.init_with_output(
      item_key, self._text_of_nodes(inputs), own.graph, trained=own.rated
    )
    start = own.ordered.events.start[:1]
    found = earlier(own.ordered.events, start, start, length=self._history.history_length)
    users = HistoryAttention(self._history).init(user_key, items, found)
    # The mean of events has no parameters.
    parts = {"items": variables["params"], "users": users.get("params")}
    return {name: part for name, part in parts.items() if part}

  def loss(self, params: Any, batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    """The hybrid objective of eq. 1 over positives, `softmax_loss` over users, or the loss of
    events given what came before them."""
    if self._history:
      return self._loss_of_events(params, batch, key, inputs)
    rows, where, _ = batch
    key, negative_key = jax.random.split(key)
    objective = self.settings.objective
    if isinstance(objective, SoftmaxObjective):
      pair, users, _ = self._in_step(params, inputs, rows, None, key)
      pair = (pair[0][users], pair[1])
      return softmax_loss(
        pair,
        pair,
        inputs.own.targets,
        rows,
        temperature=temperature_of(objective.temperature, num_items=self.num_items),
        l2_weight=objective.l2_weight,
        user_power=objective.user_power,
        where=where,
        drawn=self._drawn,
        key=negative_key,
      )
    user, positive = inputs.user[rows], inputs.item[rows]
    negative, possible = draw_negatives(
      negative_key, inputs.sampler, user, num=objective.negatives_per_positive
    )
    items = jnp.concatenate([positive[:, None], negative], axis=1)
    pair, user, items = self._in_step(params, inputs, user, items, key)
    scores = pair_scores(pair, user, items)
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in pair)
    losses = hybrid_loss_of_scores(
      scores[:, 0],
      scores[:, 1:],
      squares=(of_user[user], of_item[items[:, 0]], of_item[items[:, 1:]]),
      negative_where=possible,
      where=where,
      bpr_weight=objective.bpr_weight,
      cosine_weight=objective.cosine_weight,
      l2_weight=objective.l2_weight,
    )
    return jnp.sum(losses) / jnp.maximum(where.sum(), 1)

  def _loss_of_events(self, params: Any, batch: Batch, key: Array, inputs: Inputs) -> Array:
    ordered, graph = inputs.own.ordered, inputs.own.graph
    graph_key, key = jax.random.split(key)
    items = self.module.apply(
      {"params": params["items"]},
      self._text_of_nodes(inputs),
      graph,
      trained=inputs.own.rated,
      where=visible_edges(ordered, batch.rows, batch.where, num_edges=len(graph.senders)),
      layout=inputs.own.layout,
      deterministic=False,
      rngs={"dropout": graph_key},
    )
    return events_loss(
      params.get("users", {}),
      items,
      ordered,
      batch.rows,
      batch.where,
      key,
      settings=self._history,
      objective=self.settings.objective,
      is_cosine=self._is_cosine,
      drawn=self._drawn,
    )

  def _text_of_nodes(self, inputs: Inputs) -> Array:
    """[N, D] text vectors of the graph's nodes."""
    return inputs.text[self.num_users :] if self._history else inputs.text

  def _in_step(
    self, params: Any, inputs: Inputs, users: Array, items: Array | None, key: Array
  ) -> tuple[Pair, Array, Array]:
    """Vectors in a training step, with dropout, and the rows of `users` [B] and of `items` [B, K]
    (None for all) among them.

    They are computed from the whole graph, from up to `drawn_edges` edges of every node, or from up
    to `fanouts` edges a node drawn around these users and items. `key` is consumed.
    """
    text, own, fanouts = inputs.text, inputs.own, self.settings.convolution.fanouts
    every = jnp.arange(self.num_items, dtype=jnp.int32)
    if not fanouts:
      graph, where, layout = own.graph, None, own.layout
      if own.slots is not None:
        key, drawing_key = jax.random.split(key)
        num, layout = self.settings.convolution.drawn_edges or neighbors.DRAWN_EDGES, None
        graph, where = neighbors.draw_edges(drawing_key, graph, own.start, own.slots, num=num)
      final = self.module.apply(
        {"params": params},
        text,
        graph,
        where=where,
        layout=layout,
        deterministic=False,
        rngs={"dropout": key},
      )
      return self._pair(final), users, every if items is None else items
    key, drawing_key = jax.random.split(key)
    items = every if items is None else items
    seeds = jnp.concatenate([users, self.num_users + items.ravel()])
    part = neighbors.draw_subgraph(drawing_key, own.graph, own.start, seeds, fanouts=fanouts)
    final = self.module.apply(
      {"params": params}, text, own.graph, part=part, deterministic=False, rngs={"dropout": key}
    )
    pair = final[: len(users)], final[len(users) :]
    return pair, jnp.arange(len(users)), jnp.arange(items.size).reshape(items.shape)

  def serving_state(self, params: Any, inputs: Inputs) -> Pair | Channels:
    """[U, D] and [I, D] float32 final vectors, without dropout; or `Channels` around them."""
    pair, states = self.served(params, inputs)
    if self.scores_by == "vectors":
      return pair
    own, settings, unrated = inputs.own, self.settings, None
    of_softmax = own.targets if own.ordered is None else own.ordered.candidates
    bias = None if of_softmax is None else of_softmax.popularity
    if settings.unrated_l2:
      unrated = make_unrated(
        inputs.text[self.num_users :],
        inputs.attributes,
        own.rated,
        Histories(inputs.item, inputs.start, inputs.longest),
        l2=settings.unrated_l2,
        shift=jnp.where(inputs.new, 0.0, settings.unrated_shift),
        likes_weight=settings.unrated_likes,
      )
    return Channels(
      vectors=pair,
      bias=jnp.zeros(self.num_items) if bias is None else bias,
      states=states,
      linear=own.linear,
      weight=jnp.float32(settings.linear_weight),
      rated=own.rated,
      known=own.ratings > 0,
      likes=own.likes,
      prior=jnp.where(inputs.later, prior_weights(settings, own.ratings), 0.0),
      unrated=unrated,
    )

  @property
  def score(self) -> Callable[[Any, Array], Array]:
    """(serving state, users [B]) -> [B, I] float32."""
    return dot_product_scores if self.scores_by == "vectors" else channel_scores

  @property
  def scores_by(self) -> str:
    """By dot products of vectors, unless another channel is added to them."""
    return "scores" if has_channels(self.settings) else "vectors"

  @staticmethod
  def vectors_of_users(serving_state: Channels, users: Array) -> Array:
    """As in models/gat/vectors.py, which says what the columns are."""
    return vectors.vectors_of_users(serving_state, users)

  @staticmethod
  def vectors_of_items(serving_state: Channels) -> Array:
    """As in models/gat/vectors.py."""
    return vectors.vectors_of_items(serving_state)

  def score_new(
    self, params: Any, inputs: Inputs, serving_state: Pair | Channels, users: NewUsers
  ) -> Array:
    """[B, I] float32 scores for new users, as nodes that receive from their items, untrained."""
    counts = [len(good) + len(bad) for good, bad in zip(users.liked, users.disliked, strict=True)]
    ratings = to_device(np.array(counts, np.float32))
    liked = liked_rows(users, num_items=self.num_items)
    if self._history:
      found = liked_as_events(users.liked, length=self._history.history_length)
      graph = products_of_events(params, serving_state, to_device(found), recommender=self)
    else:
      graph = products_of_new(
        params,
        inputs,
        serving_state,
        liked,
        liked_rows(users._replace(liked=users.disliked), num_items=self.num_items),
        users.text,
        (users.top_rating, users.low_rating),
        recommender=self,
      )
    if self.scores_by == "vectors":
      return graph
    of_linear = None
    if (linear := self._linear) is not None:
      of_linear = linear.score_new({}, inputs, serving_state.linear, users)
    return combined_scores_of_new(
      serving_state, graph, of_linear, ratings, liked, settings=self.settings
    )

  def grown(
    self, params: Any, inputs: Inputs, *, former: Inputs, num_users: int, num_items: int
  ) -> Any:
    """The parameters of a model of U' users and I' items, for this larger one (`grown_params`).

    Args: params: of the smaller model. inputs: of this one; known users and items come first.
      former: inputs of the smaller one. num_users, num_items: U' and I'.
    """
    text = self._text_of_nodes(inputs)
    if self._history:
      rated = np.asarray(former.own.rated)
      items = grown_params(params["items"], text, rated, former_users=0, num_users=0)
      return params | {"items": items}
    known = nodes_with_edges(former.own.graph, num_nodes=num_users + num_items)
    return grown_params(params, text, known, former_users=num_users, num_users=self.num_users)

  def served(self, params: Any, inputs: Inputs) -> tuple[Pair, tuple[Array, ...]]:
    """Final vectors, and the items' states [I, D_l] that new users' layers read."""
    if history := self._history:
      items = self.module.apply(
        {"params": params["items"]},
        self._text_of_nodes(inputs),
        inputs.own.graph,
        trained=inputs.own.rated,
        layout=inputs.own.layout,
      )
      events = inputs.own.ordered.events
      users = states_of_users(
        params.get("users", {}), items, events, settings=history, is_cosine=self._is_cosine
      )
      return (users, items), ()
    final, states = self.module.apply(
      {"params": params},
      inputs.text,
      inputs.own.graph,
      layout=inputs.own.layout,
      return_states=True,
    )
    return self._pair(final), tuple(state[self.num_users :] for state in states[:-1])

  def _pair(self, final: Array) -> Pair:
    return final[: self.num_users], final[self.num_users :]
