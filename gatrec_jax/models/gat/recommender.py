"""The graph attention recommender as a method: trained on ratings, served as dot products, with a
linear item–item channel and scores of unrated items beside them where these are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.feedback import DISLIKE, JudgedRatings
from gatrec_jax.data.graph import add_users, bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines import ease_rated
from gatrec_jax.models.gat.network import GatNetwork
from gatrec_jax.models.gat.unrated_items import Unrated, fill_unrated, make_unrated, mean_and_spread
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers
from gatrec_jax.ops.attention.selection import make_layout
from gatrec_jax.ops.losses import hybrid_loss_of_scores
from gatrec_jax.ops.negatives import draw_negatives
from gatrec_jax.ops.neighbors import draw_subgraph
from gatrec_jax.ops.scores import Pair, dot_product_scores, pair_scores
from gatrec_jax.ops.softmax_loss import Targets, make_targets, softmax_loss

Array = jax.Array


class Own(NamedTuple):
  """Attributes:
  graph: of all training ratings, or of the likes.
  layout: of its edges for the implementation of attention (`models.attention.layout`).
  start: [U + I + 1] int32, where each node's incoming edges begin.
  targets: of the softmax; None for the pairwise loss.
  rated: [I] bool, items with a training rating, which the softmax is over: the others are to be
    judged by their text, not pushed away.
  ratings: [U] float32, ratings of each user.
  likes: [I] float32, training positives of each item, the score of users without ratings.
  linear: tables of the linear channel; None without one. Like the graph it follows from the
    training ratings alone, so it is made here and is no parameter.
  """

  graph: jraph.GraphsTuple
  layout: Any
  start: Array
  targets: Targets | None
  rated: Array
  ratings: Array
  likes: Array
  linear: ease_rated.ServingState | None


class Channels(NamedTuple):
  """Attributes:
  vectors: ([U, D], [I, D]).
  linear: of the linear channel; None without one. weight: [] of it.
  rated, likes: as in `Own`.
  known: [U] bool, users with ratings.
  prior: [U] float32, weights of popularity beside the users' scores.
  unrated: what fills in the scores of the others; None where the network's stay.
  """

  vectors: Pair
  linear: ease_rated.ServingState | None
  weight: Array
  rated: Array
  known: Array
  likes: Array
  prior: Array
  unrated: Unrated | None


@dataclasses.dataclass(frozen=True)
class GatRecommender:
  """Ebrat et al. 2025, with the variants that `ModelConfig` names."""

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
    return GatNetwork(self.settings, self.num_users, self.num_items)

  @property
  def _linear(self) -> ease_rated.EaseRatedRecommender | None:
    settings = self.settings
    if not settings.linear_weight:
      return None
    linear = EaseRatedConfig(settings.linear_l2, settings.linear_rated_l2, settings.relevance)
    return ease_rated.EaseRatedRecommender(linear, self.num_users, self.num_items)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Own:
    settings, linear, targets = self.settings, None, None
    edges = np.ones(len(train), bool) if settings.graph == "rated" else judged.liked
    graph = bipartite_graph(
      train.take(edges),
      edge_features=settings.edge_features,
      self_loops=settings.self_loops,
      relevance=judged.relevance[edges],
    )
    if settings.loss == "softmax":
      targets = make_targets(train, judged, relevance=settings.relevance, propagation="auto")
    if (recommender := self._linear) is not None:
      rated = recommender.own_inputs(train, judged)
      linear = (jax.jit(recommender.fit_rated)(rated), rated)
    nodes = np.arange(self.num_users + self.num_items + 1)
    start = np.searchsorted(graph.receivers, nodes).astype(np.int32)
    rated_items = np.bincount(train.item, minlength=self.num_items) > 0
    ratings = np.bincount(train.user, minlength=self.num_users).astype(np.float32)
    likes = np.bincount(train.item[judged.liked], minlength=self.num_items).astype(np.float32)
    heads, width = max(
      zip(settings.heads, settings.layer_widths, strict=True), key=math.prod, default=(1, 1)
    )
    layout = make_layout(
      settings.attention_impl,
      graph,
      heads=heads,
      width=width,
      platform=jax.default_backend(),
      chunk=settings.edge_chunk,
    )
    return Own(graph, layout, start, targets, rated_items, ratings, likes, linear)

  def num_rows(self, inputs: Inputs) -> int:
    """P positives, or U users for `softmax`."""
    return self.num_users if self.settings.loss == "softmax" else inputs.user.shape[0]

  def init(self, inputs: Inputs, key: Array) -> Any:
    return self.module.init(key, inputs.text, inputs.own.graph)["params"]

  def loss(
    self, params: Any, batch: Batch, key: Array, *, inputs: Inputs, train: TrainConfig
  ) -> Array:
    """The hybrid objective of eq. 1 over positives, or `softmax_loss` over users."""
    rows, where, _ = batch
    key, negative_key = jax.random.split(key)
    if self.settings.loss == "softmax":
      pair, users, _ = self._in_step(params, inputs, rows, None, key, fanouts=train.fanouts)
      pair = (pair[0][users], pair[1])
      return softmax_loss(
        pair,
        pair,
        inputs.own.targets,
        rows,
        temperature=self.settings.temperature,
        l2_weight=train.l2_weight,
        user_power=self.settings.user_power,
        where=where,
        candidates=inputs.own.rated,
      )
    user, positive = inputs.user[rows], inputs.item[rows]
    negative, possible = draw_negatives(
      negative_key, inputs.sampler, user, num=train.negatives_per_positive
    )
    items = jnp.concatenate([positive[:, None], negative], axis=1)
    pair, user, items = self._in_step(params, inputs, user, items, key, fanouts=train.fanouts)
    scores = pair_scores(pair, user, items)
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in pair)
    losses = hybrid_loss_of_scores(
      scores[:, 0],
      scores[:, 1:],
      squares=(of_user[user], of_item[items[:, 0]], of_item[items[:, 1:]]),
      negative_where=possible,
      where=where,
      bpr_weight=train.bpr_weight,
      cosine_weight=train.cosine_weight,
      l2_weight=train.l2_weight,
    )
    return jnp.sum(losses) / jnp.maximum(where.sum(), 1)

  def _in_step(
    self,
    params: Any,
    inputs: Inputs,
    users: Array,
    items: Array | None,
    key: Array,
    *,
    fanouts: tuple[int, ...],
  ) -> tuple[Pair, Array, Array]:
    """Vectors in a training step, with its dropout, and where to find those of `users` [B] and
    `items` [B, K] (None for all) among them.

    They come from the whole graph, or from up to `fanouts` edges a node drawn around these users
    and items. `key` is consumed.
    """
    text, own = inputs.text, inputs.own
    every = jnp.arange(self.num_items, dtype=jnp.int32)
    if not fanouts:
      vectors = self.module.apply(
        {"params": params},
        text,
        own.graph,
        layout=own.layout,
        deterministic=False,
        rngs={"dropout": key},
      )
      return self._pair(vectors), users, every if items is None else items
    key, drawing_key = jax.random.split(key)
    items = every if items is None else items
    seeds = jnp.concatenate([users, self.num_users + items.ravel()])
    part = draw_subgraph(drawing_key, own.graph, own.start, seeds, fanouts=fanouts)
    vectors = self.module.apply(
      {"params": params}, text, own.graph, part=part, deterministic=False, rngs={"dropout": key}
    )
    pair = vectors[: len(users)], vectors[len(users) :]
    return pair, jnp.arange(len(users)), jnp.arange(items.size).reshape(items.shape)

  def serving_state(self, params: Any, inputs: Inputs) -> Pair | Channels:
    """[U, D] and [I, D] float32 final vectors, without dropout; and what is beside them."""
    vectors = self._pair(
      self.module.apply({"params": params}, inputs.text, inputs.own.graph, layout=inputs.own.layout)
    )
    if self.scores_by == "vectors":
      return vectors
    own, settings, unrated = inputs.own, self.settings, None
    if settings.unrated_l2:
      text = inputs.text[self.num_users :]
      unrated = make_unrated(
        text,
        inputs.attributes,
        own.rated,
        l2=settings.unrated_l2,
        shift=jnp.where(inputs.new, 0.0, settings.unrated_shift),
      )
    weight = jnp.float32(settings.linear_weight)
    prior = jnp.where(inputs.later, self.prior_of(own.ratings), 0.0)
    return Channels(
      vectors, own.linear, weight, own.rated, own.ratings > 0, own.likes, prior, unrated
    )

  def prior_of(self, ratings: Array) -> Array:
    """Weights of popularity for users who came after training, by their numbers of ratings."""
    left = jnp.maximum(1 - ratings / self.settings.prior_ratings, 0.0)
    return self.settings.prior_weight * left**2

  @property
  def score(self) -> Callable[[Any, Array], Array]:
    """tables, users [B] -> [B, I] float32."""
    return dot_product_scores if self.scores_by == "vectors" else channel_scores

  @property
  def scores_by(self) -> str:
    """By dot products of vectors, unless another channel is added to them."""
    settings = self.settings
    channels = settings.linear_weight or settings.unrated_l2 or settings.prior_weight
    return "scores" if channels else "vectors"

  def score_new(
    self, params: Any, inputs: Inputs, serving_state: Pair | Channels, users: NewUsers
  ) -> Array:
    """The users become nodes that receive from their items; nothing is retrained (inductive)."""
    values = {
      "rating": (users.top_rating, users.low_rating),
      "time": (1.0, 1.0),
      "relevance": (0.0, float(np.log(DISLIKE))),
    }
    columns = [values[name] for name in self.settings.edge_features]
    disliked = users.disliked
    if self.settings.graph == "liked":
      disliked = [items[:0] for items in disliked]
    features = [
      np.concatenate(
        [
          np.tile(np.float32([high for high, _ in columns]), (len(good), 1)),
          np.tile(np.float32([low for _, low in columns]), (len(bad), 1)),
        ]
      )
      for good, bad in zip(users.liked, disliked, strict=True)
    ]
    graph = add_users(
      jax.tree.map(np.asarray, inputs.own.graph),
      num_users=self.num_users,
      items=[np.concatenate(pair) for pair in zip(users.liked, disliked, strict=True)],
      features=features,
      self_loops=self.settings.self_loops,
    )
    vectors = self.module.apply(
      {"params": params},
      inputs.text,
      jax.tree.map(jnp.asarray, graph),
      new_text=jnp.asarray(users.text),
    )
    new = vectors[-len(users.text) :]
    if self.scores_by == "vectors":
      return products(new, serving_state[1])
    of_linear = None
    if (linear := self._linear) is not None:
      of_linear = linear.score_new(serving_state.linear[0], inputs, serving_state.linear, users)
    ratings = jnp.array(
      [len(good) + len(bad) for good, bad in zip(users.liked, users.disliked, strict=True)],
      jnp.float32,
    )
    graph = products(new, serving_state.vectors[1])
    return together(serving_state, graph, of_linear, ratings > 0, self.prior_of(ratings))

  def grown(
    self, params: Any, inputs: Inputs, *, former: Inputs, num_users: int, num_items: int
  ) -> Any:
    """The parameters of a model of U' users and I' items, for this larger one.

    Args: params: of the smaller model. inputs: of this one; known users and items come first.
      former: inputs of the smaller one. num_users, num_items: U' and I'.
    Returns: the same parameters, with rows for the nodes that had no edge: of the table their
      texts, of the ids the mean of their kind.
    """
    name = next((name for name in ("table", "ids") if name in params), None)
    if name is None:
      return params
    graph, rows, text = former.own.graph, params[name], inputs.text
    heard = np.asarray(graph.receivers)[np.asarray(graph.senders != graph.receivers)]
    known = np.bincount(heard, minlength=num_users + num_items)[:, None] > 0
    kinds = [
      _grown_rows(rows[:num_users], known[:num_users], text[: self.num_users], kind=name),
      _grown_rows(rows[num_users:], known[num_users:], text[self.num_users :], kind=name),
    ]
    return params | {name: jnp.concatenate(kinds)}

  def _pair(self, vectors: Array) -> Pair:
    return vectors[: self.num_users], vectors[self.num_users :]


def _grown_rows(rows: Array, known: np.ndarray, text: Array, *, kind: str) -> Array:
  """[n', W] from [n, W]: the `known` rows [n, 1] as they are; elsewhere the text [n', D] of a
  `table`, of `ids` the mean of the known ones."""
  stand_in = text
  if kind == "ids":
    mean = jnp.sum(known * rows, axis=0) / max(known.sum(), 1)
    stand_in = jnp.broadcast_to(mean, (len(text), rows.shape[1]))
  former = jnp.where(known, rows, stand_in[: len(rows)])
  return jnp.concatenate([former, stand_in[len(rows) :]])


def channel_scores(serving_state: Channels, users: Array) -> Array:
  """[B, I] float32 for `users` [B] int32; of one without training ratings, popularity."""
  linear = None if serving_state.linear is None else linear_scores(serving_state, users)
  graph = dot_product_scores(serving_state.vectors, users)
  return together(
    serving_state, graph, linear, serving_state.known[users], serving_state.prior[users]
  )


def linear_scores(serving_state: Channels, users: Array) -> Array:
  """[B, I] float32 of the linear channel alone."""
  return ease_rated.EaseRatedRecommender.score(serving_state.linear, users)


def together(
  serving_state: Channels, graph: Array, linear: Array | None, known: Array, prior: Array
) -> Array:
  """[B, I] from the channels' scores of all items. Args: known, prior: [B], as in `Channels`."""
  scores = graph
  if linear is not None:
    scores = add_channels(graph, linear, weight=serving_state.weight, rated=serving_state.rated)
  scores += prior_scores(serving_state, scores, prior)
  scores = jnp.where(known[:, None], scores, serving_state.likes)
  return scores if serving_state.unrated is None else fill_unrated(scores, serving_state.unrated)


def prior_scores(serving_state: Channels, scores: Array, prior: Array) -> Array:
  """[B, I]: what popularity adds to scores [B, I]: the items' likes, as logarithms and in standard
  deviations, times the spread of the user's scores and her weight `prior` [B]. Of somebody with few
  ratings, for whom nothing was learned, little is known, and most people like what most like."""
  _, spread = mean_and_spread(scores, serving_state.rated)
  return (
    prior[:, None] * spread * standard(jnp.log1p(serving_state.likes)[None], serving_state.rated)
  )


def add_channels(graph: Array, linear: Array, *, weight: Array | float, rated: Array) -> Array:
  """graph ÷ its standard deviation + weight · linear ÷ its own, [B, I], user by user.

  Means and deviations are those over the `rated` items, [I] bool. A channel that says the same of
  all of them (a user without ratings) adds 0 to all items.
  """
  return standard(graph, rated) + weight * standard(linear, rated)


def standard(scores: Array, rated: Array) -> Array:
  """[B, I] with mean 0 and standard deviation 1 over the rated items of each row; 0 where these
  have no spread."""
  mean, spread = mean_and_spread(scores, rated)
  return jnp.where(spread > 1e-9, (scores - mean) / jnp.maximum(spread, 1e-9), 0.0)


def products(users: Array, items: Array) -> Array:
  """[B, I] float32 dot products of [B, D] and [I, D]."""
  return jnp.matmul(users, items.T, precision=jax.lax.Precision.HIGHEST)
