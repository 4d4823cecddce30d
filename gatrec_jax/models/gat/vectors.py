"""Vectors of users and items whose inner products are the scores of a GAT with channels, exactly.

A user's scores are sums of terms, each the product of something of the user and something of the
item, as all means and deviations belong to the user. The columns, of width
D + I (with a linear channel) + 4 (+ F + 2 where unrated items are predicted):

  columns                 user                                     item
  D   network             vector ÷ deviation of its scores         vector, 0 if predicted
  1   bias of the network 1 ÷ deviation of its scores              bias, 0 if predicted
  I   linear channel      its scores · weight ÷ their deviation    1 for the item, 0 if predicted
  1   popularity          prior · deviation of the scores          standardized logarithm of likes
  1   constant            minus both channels' means               1, 0 if predicted
  1   likes               1 for a user without ratings             likes, 0 if predicted
  F   text, attributes    coefficients of the ridge regression     features, 0 unless predicted
  1   shift               deviation of the scores                  shift, 0 unless predicted
  1   mean                mean of the scores                       1 if predicted

D is the width of the network, I the number of items, F that of texts and attributes. With a linear
channel they are wider than the catalog has items: a list of top items is smaller.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.models.gat.channels import (
  Channels,
  channel_scores,
  liked_by,
  linear_scores,
  popularity_scores,
  regression,
)
from gatrec_jax.ops.scores import dot_product_scores, mean_and_spread

Array = jax.Array

_LEAST_SPREAD = 1e-9  # as in ops.scores.standardize


def vectors_of_users(state: Channels, users: Array) -> Array:
  """[B, W] float32 for `users` [B] int32; traceable."""
  known, rated = state.known[users][:, None], state.rated
  vectors, constant = state.vectors[0][users], jnp.zeros((len(users), 1))
  columns = []
  if state.linear is None:
    columns += [vectors, jnp.ones((len(users), 1))]
  else:
    graph = dot_product_scores(state.vectors, users) + state.bias
    mean, factor = _mean_and_factor(graph, rated)
    linear = linear_scores(state, users)
    linear_mean, linear_factor = _mean_and_factor(linear, rated)
    linear_factor = state.weight * linear_factor
    columns += [vectors * factor, factor, linear * linear_factor]
    constant = -mean * factor - linear_mean * linear_factor
  columns += [state.prior[users][:, None] * _spread_before_prior(state, users), constant]
  columns = [jnp.where(known, column, 0.0) for column in columns]
  columns.append(jnp.where(known, 0.0, 1.0))
  if state.unrated is not None:
    scores = channel_scores(state._replace(unrated=None), users)
    found = regression(scores, state.unrated, liked_by(state.unrated, users))
    columns += [found.spread / found.shrunk * found.coefficients, found.spread, found.mean]
  return jnp.concatenate(columns, axis=1)


def vectors_of_items(state: Channels) -> Array:
  """[I, W] float32; traceable."""
  num_items = len(state.likes)
  columns = [state.vectors[1], state.bias[:, None]]
  if state.linear is not None:
    columns.append(jnp.eye(num_items))
  columns += [popularity_scores(state).T, jnp.ones((num_items, 1)), state.likes[:, None]]
  if state.unrated is None:
    return jnp.concatenate(columns, axis=1)
  rated = state.unrated.rated[:, None]
  predicted = [state.unrated.features, state.unrated.shift[:, None], jnp.ones((num_items, 1))]
  return jnp.concatenate(
    [
      *(jnp.where(rated, column, 0.0) for column in columns),
      *(jnp.where(rated, 0.0, column) for column in predicted),
    ],
    axis=1,
  )


def _mean_and_factor(scores: Array, rated: Array) -> tuple[Array, Array]:
  """The mean of each row and 1 ÷ its deviation, [B, 1] each; 0 where it has none."""
  mean, spread = mean_and_spread(scores, rated)
  has_spread = spread > _LEAST_SPREAD
  return mean, jnp.where(has_spread, 1 / jnp.maximum(spread, _LEAST_SPREAD), 0.0)


def _spread_before_prior(state: Channels, users: Array) -> Array:
  """[B, 1], the deviation of the scores that popularity is added to."""
  everyone = jnp.ones_like(state.known)
  without = state._replace(unrated=None, known=everyone, prior=jnp.zeros_like(state.prior))
  return mean_and_spread(channel_scores(without, users), state.rated)[1]
