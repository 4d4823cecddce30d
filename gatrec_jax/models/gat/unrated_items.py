"""Scores of items that nobody has rated: what their texts and attributes say of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.models.baselines.item_item import exact_matmul, inverse
from gatrec_jax.ops.numeric import unit

Array = jax.Array

_ATTRIBUTE_SCALE = 0.6  # of a column beside a text vector of length 1


class Unrated(NamedTuple):
  """Attributes:
  rated: [I] bool, items with a training rating.
  features: [I, F] float32, text and attributes less their mean over the rated items; 0 for what
    is not known of an item.
  solve: [F, F] float32, (CᵀC + l2)⁻¹ of the rated items' features C.
  shift: [I] float32, in standard deviations of a user's scores.
  """

  rated: Array
  features: Array
  solve: Array
  shift: Array


def make_unrated(
  text: Array, attributes: Array, rated: Array, *, l2: float, shift: Array | float = 0.0
) -> Unrated:
  """What a ridge regression on items needs, whatever is to be predicted; traceable.

  Args:
    text: [I, D] float32; a row of 0 is an item without text. attributes: [I, A] float32; a row of
      0 is one without any.
    rated: [I] bool. l2: penalty. shift: [I] or one, of the predictions, in standard deviations.
  """
  parts = _centered(unit(text), rated), _centered(_ATTRIBUTE_SCALE * attributes, rated)
  features = jnp.concatenate(parts, axis=1)
  known = rated[:, None] * features
  gram = exact_matmul(known.T, known) + l2 * jnp.eye(features.shape[1])
  shift = jnp.broadcast_to(jnp.asarray(shift, jnp.float32), rated.shape)
  return Unrated(rated, features, inverse(gram), shift)


def _centered(values: Array, rated: Array) -> Array:
  """[I, F] less the mean of the rated items of which something is known; 0 where nothing is."""
  something = jnp.any(values != 0, axis=1)
  count = (rated & something)[:, None].astype(jnp.float32)
  mean = jnp.sum(count * values, axis=0) / jnp.maximum(count.sum(), 1)
  return jnp.where(something[:, None], values - mean, 0.0)


def fill_unrated(scores: Array, unrated: Unrated) -> Array:
  """[B, I] float32: the unrated items' scores replaced, user by user; traceable.

  A user's scores of the rated items are regressed on their features (ridge; the map from attributes
  to a collaborative model's outcome of Gantner et al. 2010, with scores in the place of factors).
  Predictions are brought to the spread that her scores of the rated items have, since a regression
  shrinks: an unrated item stands where its features put it among the rated ones, moved by `shift`;
  one of which nothing is known at the mean.
  """
  mean, spread = mean_and_spread(scores, unrated.rated)
  centered = jnp.where(unrated.rated, scores - mean, 0.0)
  wanted = exact_matmul(exact_matmul(centered, unrated.features), unrated.solve)
  predicted = exact_matmul(wanted, unrated.features.T)
  _, shrunk = mean_and_spread(predicted, unrated.rated)
  # Rounding errors are no prediction.
  stretched = jnp.where(shrunk > 1e-5 * spread, predicted / jnp.maximum(shrunk, 1e-30), 0.0)
  return jnp.where(unrated.rated, scores, mean + spread * (stretched + unrated.shift))


def mean_and_spread(scores: Array, rated: Array) -> tuple[Array, Array]:
  """[B, 1] each, the mean and the standard deviation of a row [B, I] over the `rated` items [I]."""
  count = rated.astype(jnp.float32)
  total = jnp.maximum(count.sum(), 1)
  mean = jnp.sum(count * scores, axis=1, keepdims=True) / total
  return mean, jnp.sqrt(jnp.sum(count * (scores - mean) ** 2, axis=1, keepdims=True) / total)
