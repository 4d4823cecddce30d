"""What the GAT's scores consist of beside the network: a linear channel, popularity, unrated items.

A user's scores are combined in this order (`combined_scores`): the scores of the network and of a
linear item–item model, each in standard deviations; popularity, for users who came after training;
and for items that nobody rated, predictions from their texts and attributes.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.models import EaseRatedConfig
from gatrec_jax.config.objectives import SoftmaxObjective
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.models.baselines.item_item import exact_matmul, inverse
from gatrec_jax.models.inputs import Histories, history_rows
from gatrec_jax.models.linear.ridge import RidgeRecommender, ServingState
from gatrec_jax.ops.numeric import unit
from gatrec_jax.ops.scores import Pair, dot_product_scores, mean_and_spread, standardize
from gatrec_jax.sharding.placement import to_device

Array = jax.Array

_ATTRIBUTE_SCALE = 0.6  # of an attribute column, beside a text vector of length 1
KNOWN_AT_A_TIME = 2**24


class Unrated(NamedTuple):
  """A ridge regression from items' texts and attributes, for any scores.

  Attributes:
    rated: [I] bool, items with a training rating.
    features: [I, F] float32, text and attributes minus their mean over the rated items; 0 where
      nothing is known of an item.
    solve: [F, F] float32, (CᵀC + l2)⁻¹ of the rated items' features C.
    shift: [I] float32, in standard deviations of a user's scores.
    likes: of the known users.
    likes_weight: [], of a user's likes beside their scores; both in standard deviations.
  """

  rated: Array
  features: Array
  solve: Array
  shift: Array
  likes: Histories
  likes_weight: Array


class KnownScores(NamedTuple):
  """Scores of some users by the linear channel, in the place of its serving state.

  Attributes: scores: [n, I] float32, possibly with rows of padding. row: [U] int32, the row of each
    of these users.
  """

  scores: Array
  row: Array


class Channels(NamedTuple):
  """The serving state of a GAT whose scores are more than dot products.

  Attributes:
    vectors: final vectors of the network, ([U, D], [I, D]) float32.
    bias: [I] float32, what an item's score by the network is larger by than its dot product.
    states: of the items, [I, D_l] float32 for the input of each layer, which new users receive.
    linear: serving state of the linear channel, or what it says of some users; None without one.
    weight: [] of that channel.
    rated: [I] bool, items with a training rating.
    known: [U] bool, users with ratings.
    likes: [I] float32, training positives of each item.
    prior: [U] float32, the weight of popularity in each user's scores.
    unrated: replaces the scores of unrated items; None keeps those of the network.
  """

  vectors: Pair
  bias: Array
  states: tuple[Array, ...]
  linear: ServingState | KnownScores | None
  weight: Array
  rated: Array
  known: Array
  likes: Array
  prior: Array
  unrated: Unrated | None


def has_channels(settings: ModelConfig) -> bool:
  """Whether scores are more than dot products of the network's vectors."""
  objective = settings.objective
  has_bias = isinstance(objective, SoftmaxObjective) and objective.popularity_weight != 0
  return bool(has_bias or settings.linear_weight or settings.unrated_l2 or settings.prior_weight)


def channel_scores(serving_state: Channels, users: Array) -> Array:
  """[B, I] float32 scores for `users` [B] int32; popularity for users without training ratings."""
  linear = None if serving_state.linear is None else linear_scores(serving_state, users)
  graph = dot_product_scores(serving_state.vectors, users)
  known, prior = serving_state.known[users], serving_state.prior[users]
  return combined_scores(
    serving_state, graph, linear, known, prior, liked_by(serving_state.unrated, users)
  )


def combined_scores(
  serving_state: Channels,
  graph: Array,
  linear: Array | None,
  known: Array,
  prior: Array,
  liked: Array | None,
) -> Array:
  """[B, I] from the network's dot products and the linear scores [B, I].

  Args:
    known, prior: [B], as in `Channels`.
    liked: [B, I] float32, 1 for what each user likes; None where no unrated item is predicted.
  """
  scores = graph + serving_state.bias
  if linear is not None:
    scores = add_channels(scores, linear, weight=serving_state.weight, rated=serving_state.rated)
  scores += prior_scores(serving_state, scores, prior)
  scores = jnp.where(known[:, None], scores, serving_state.likes)
  if serving_state.unrated is None:
    return scores
  return fill_unrated(scores, serving_state.unrated, liked)


@partial(jax.jit, static_argnames="settings")
def combined_scores_of_new(
  serving_state: Channels,
  graph: Array,
  linear: Array | None,
  ratings: Array,
  liked: Array,
  *,
  settings: ModelConfig,
) -> Array:
  """`combined_scores` of new users. Args: ratings: [B] float32, numbers of ratings."""
  prior = prior_weights(settings, ratings)
  return combined_scores(serving_state, graph, linear, ratings > 0, prior, liked)


# The linear channel


def linear_channel(
  settings: ModelConfig, *, num_users: int, num_items: int
) -> RidgeRecommender | None:
  """The model of the linear channel, or None without one."""
  if not settings.linear_weight:
    return None
  linear = EaseRatedConfig(
    l2=settings.linear_l2,
    rated_l2=settings.linear_rated_l2,
    relevance=settings.objective.relevance,
    user_power=settings.linear_user_power,
    item_power=settings.linear_item_power,
    score_power=settings.linear_score_power,
    form=settings.linear_form,
    rank=settings.linear_rank,
    neighbors=settings.linear_neighbors,
  )
  return RidgeRecommender(linear, num_users, num_items)


def linear_scores(serving_state: Channels, users: Array) -> Array:
  """[B, I] float32 scores of the linear channel alone."""
  if isinstance(serving_state.linear, KnownScores):
    return serving_state.linear.scores[serving_state.linear.row[users]]
  return RidgeRecommender.score(serving_state.linear, users)


def known_linear_scores(
  linear: ServingState, users: np.ndarray, *, num_users: int, num_items: int
) -> KnownScores:
  """The linear channel's scores of some users, for ranking them again and again.

  Args: users: [n] int32, distinct. num_users, num_items: U and I.
  """
  size = max(1, min(len(users), KNOWN_AT_A_TIME // num_items))
  padded = np.pad(users, (0, -len(users) % size), mode="edge")
  scores = jnp.zeros((len(padded), num_items), jnp.float32)
  for first in range(0, len(padded), size):
    scores = _with_linear_scores(scores, linear, padded[first : first + size], first)
  row = np.zeros(num_users, np.int32)
  row[users] = np.arange(len(users))
  return KnownScores(scores, to_device(row))


def add_channels(graph: Array, linear: Array, *, weight: Array | float, rated: Array) -> Array:
  """graph ÷ its standard deviation + weight · linear ÷ its own, [B, I], user by user.

  Means and deviations are those over the `rated` items, [I] bool. A channel whose scores are all
  equal (a user without ratings) adds 0 to every item.
  """
  return standardize(graph, rated) + weight * standardize(linear, rated)


# Popularity


def prior_weights(settings: ModelConfig, ratings: Array) -> Array:
  """[B] weights of popularity for users with `ratings` [B] ratings who came after training."""
  left = jnp.maximum(1 - ratings / settings.prior_ratings, 0.0)
  return settings.prior_weight * left**2


def prior_scores(serving_state: Channels, scores: Array, prior: Array) -> Array:
  """[B, I]: the term that popularity adds to scores [B, I].

  It is the logarithm of the items' likes in standard deviations, times the spread of the user's
  scores, times `prior` [B]. Little is known of a user with few ratings and without a trained row,
  and most users like what is popular.
  """
  # The spread alone is left out where no weight needs it: a conditional would copy all scores.
  weight = jax.lax.cond(
    jnp.any(prior != 0),
    lambda: prior[:, None] * mean_and_spread(scores, serving_state.rated)[1],
    lambda: jnp.zeros((len(prior), 1)),
  )
  return weight * popularity_scores(serving_state)


def popularity_scores(serving_state: Channels) -> Array:
  """[1, I], the logarithm of the items' likes in standard deviations."""
  return standardize(jnp.log1p(serving_state.likes)[None], serving_state.rated)


# Items that nobody rated


def make_unrated(
  text: Array,
  attributes: Array,
  rated: Array,
  likes: Histories,
  *,
  l2: float,
  shift: Array | float = 0.0,
  likes_weight: float = 0.0,
) -> Unrated:
  """Prepares the ridge regression behind `fill_unrated`; traceable.

  Args:
    text: [I, D] float32, 0 for an item without text.
    attributes: [I, A] float32, 0 for an item without any.
    rated: [I] bool.
    likes: of the known users.
    l2: penalty.
    shift: [I] or a number, added to the predictions, in standard deviations.
    likes_weight: as in `Unrated`.
  """
  parts = _centered(unit(text), rated), _centered(_ATTRIBUTE_SCALE * attributes, rated)
  features = jnp.concatenate(parts, axis=1)
  known = rated[:, None] * features
  gram = exact_matmul(known.T, known) + l2 * jnp.eye(features.shape[1])
  shift = jnp.broadcast_to(jnp.asarray(shift, jnp.float32), rated.shape)
  return Unrated(rated, features, inverse(gram), shift, likes, jnp.float32(likes_weight))


def liked_by(unrated: Unrated | None, users: Array) -> Array | None:
  """[B, I] float32, 1 for what each of `users` [B] likes; None without `unrated`."""
  if unrated is None:
    return None
  return history_rows(unrated.likes, users, num_items=len(unrated.rated))


def _centered(values: Array, rated: Array) -> Array:
  """[I, F] minus the mean of the rated items that have any values; 0 for items without values."""
  has_values = jnp.any(values != 0, axis=1)
  count = (rated & has_values)[:, None].astype(jnp.float32)
  mean = jnp.sum(count * values, axis=0) / jnp.maximum(count.sum(), 1)
  return jnp.where(has_values[:, None], values - mean, 0.0)


class Regression(NamedTuple):
  """Each user's regression of the rated items' scores on the items' features.

  Attributes:
    mean, spread: [B, 1] float32, mean and deviation of the scores.
    coefficients: [B, F] float32.
    shrunk: [B, 1] float32, the deviation of the predictions; inf where it is rounding error alone,
      which is not to be scaled up.
  """

  mean: Array
  spread: Array
  coefficients: Array
  shrunk: Array


def regression(scores: Array, unrated: Unrated, liked: Array) -> Regression:
  """Regresses scores and likes [B, I] on the items' features, user by user; traceable."""
  mean, spread = mean_and_spread(scores, unrated.rated)
  likes = unrated.likes_weight * spread * standardize(liked, unrated.rated)
  centered = jnp.where(unrated.rated, scores - mean + likes, 0.0)
  coefficients = exact_matmul(exact_matmul(centered, unrated.features), unrated.solve)
  _, shrunk = mean_and_spread(exact_matmul(coefficients, unrated.features.T), unrated.rated)
  shrunk = jnp.where(shrunk > 1e-5 * spread, jnp.maximum(shrunk, 1e-30), jnp.inf)
  return Regression(mean, spread, coefficients, shrunk)


def fill_unrated(scores: Array, unrated: Unrated, liked: Array) -> Array:
  """[B, I] float32: the unrated items' scores replaced by predictions, user by user; traceable.

  A user's scores of the rated items, and what they like among them, are regressed on the items'
  features (ridge; a map from attributes to the output of a collaborative model as in Gantner et
  al. 2010, with scores in the place of factors). Scores alone need not put a user's own likes
  first, which say most about an item that resembles them. A regression shrinks, so predictions are
  scaled to the spread of the user's scores of the rated items, and moved by `shift`. An item of
  which nothing is known gets the mean.

  Args: liked: [B, I] float32, 1 for what each user likes.
  """
  mean, spread, coefficients, shrunk = regression(scores, unrated, liked)
  stretched = exact_matmul(coefficients, unrated.features.T) / shrunk
  return jnp.where(unrated.rated, scores, mean + spread * (stretched + unrated.shift))


@partial(jax.jit, donate_argnames="scores")
def _with_linear_scores(scores: Array, linear: ServingState, users: Array, first: int) -> Array:
  """`scores` [n, I] with those of `users` [B] in the rows from `first` on; in place."""
  return jax.lax.dynamic_update_slice(scores, RidgeRecommender.score(linear, users), (first, 0))
