"""Scores of items that nobody has rated: what their texts and attributes say of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.models.baselines.item_item import exact_matmul, inverse

Array = jax.Array

_ATTRIBUTE_SCALE = 0.6  # of a column beside a text vector of length 1


class Unrated(NamedTuple):
  """Attributes:
    rated: [I] bool, items with a training rating.
    features: [I, F] float32, text and attributes less their mean over the rated items.
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
    text: [I, D] float32; a row of 0 is an item without text. attributes: [I, A] float32.
    rated: [I] bool. l2: penalty. shift: [I] or one, of the predictions, in
      standard deviations.
  """
  length = jnp.linalg.norm(text, axis=1, keepdims=True)
  text = text / jnp.where(length > 0, length, 1.0)
  features = jnp.concatenate([text, _ATTRIBUTE_SCALE * attributes], axis=1)
  count = rated[:, None].astype(jnp.float32)
  features = features - jnp.sum(count * features, axis=0) / jnp.maximum(count.sum(), 1)
  known = count * features
  gram = exact_matmul(known.T, known) + l2 * jnp.eye(features.shape[1])
  shift = jnp.broadcast_to(jnp.asarray(shift, jnp.float32), rated.shape)
  return Unrated(rated, features, inverse(gram), shift)


def fill_unrated(scores: Array, unrated: Unrated) -> Array:
  """[B, I] float32: the unrated items' scores replaced, user by user; traceable.

  A user's scores of the rated items are regressed on their features (ridge; the map from attributes
  to a collaborative model's outcome of Gantner et al. 2010, with scores in the place of factors).
  Predictions are brought to the spread that her scores of the rated items have, since a regression
  shrinks: an unrated item stands where its features put it among the rated ones, moved by `shift`.
  """
  count = unrated.rated.astype(jnp.float32)
  total = jnp.maximum(count.sum(), 1)
  mean = jnp.sum(count * scores, axis=1, keepdims=True) / total
  centred = count * (scores - mean)
  wanted = exact_matmul(exact_matmul(centred, unrated.features), unrated.solve)
  predicted = exact_matmul(wanted, unrated.features.T)
  spread, shrunk = (
    jnp.sqrt(jnp.sum(count * values**2, axis=1, keepdims=True) / total)
    for values in (centred, predicted)
  )
  stretched = predicted / jnp.where(shrunk > 0, shrunk, 1.0)
  return jnp.where(unrated.rated, scores, mean + spread * (stretched + unrated.shift))
