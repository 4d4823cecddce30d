"""Histories of everything that users rated, for the models that read more than positives."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import DISLIKE
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.inputs import Histories, NewUsers, histories, liked_rows

Array = jax.Array


class Rated(NamedTuple):
  """Training ratings by user.

  Attributes:
    all: every training rating.
    relevance: [R] float32, of each rating.
  """

  all: Histories
  relevance: Array


def rated_histories(train: Interactions, relevance: np.ndarray) -> Rated:
  """Every training rating with its relevance; numpy arrays.

  Args: train: rows sorted by user. relevance: [R] float or bool.
  """
  return Rated(
    histories(train.user, train.item, num_users=train.num_users), relevance.astype(np.float32)
  )


def new_relevance_rows(users: NewUsers, *, num_items: int) -> Array:
  """[B, I] float32: 1 for what a new user likes, `DISLIKE` for what they dislike, else 0."""
  liked = liked_rows(users, num_items=num_items)
  disliked = liked_rows(users._replace(liked=users.disliked), num_items=num_items)
  return jnp.maximum(liked, DISLIKE * disliked)
