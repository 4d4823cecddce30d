"""The arrays that a model learns from and serves with, and rows made of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import DISLIKE
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.negatives import NegativeSampler
from gatrec_jax.sharding.placement import to_device

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
  """What a recommender learns from and serves with, a pytree of arrays on device.

  Attributes:
    user, item: [P] int32, the positive training pairs, by user, then by item.
    start: [U + 1] int32, where each user's positives begin.
    longest: number of positives of the user who has most; static.
    num_positives: P; static, since arrays on a mesh are padded.
    sampler: of negatives; None for recommenders that draw none.
    text: [U + I, D] float32 text vectors, users first; D = 1 and all 0 where none are read.
    attributes: [I, A] float32, of the items (`profiles.attributes`); A may be 0.
    new: [I] bool, items that nobody could rate yet, unlike those that nobody has rated.
    later: [U] bool, users whose ratings all came after training.
    own: what the recommender adds to them: a graph, buckets, …
  """

  user: Array
  item: Array
  start: Array
  sampler: NegativeSampler | None
  text: Array
  attributes: Array
  new: Array
  later: Array
  own: Any
  longest: int = dataclasses.field(metadata={"static": True})
  num_positives: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Histories:
  """Items by user, as `Inputs` holds the positives.

  Attributes: item [R], start [U + 1], longest: as there.
  """

  item: Array
  start: Array
  longest: int = dataclasses.field(metadata={"static": True})


class Batch(NamedTuple):
  """What a step of training learns from, B rows.

  Attributes:
    rows: [B] int32 in 0 … num_rows − 1: positives, or users.
    where: [B] bool, the rows that count; the others are padding.
    step: [] int32, steps done before.
  """

  rows: Array
  where: Array
  step: Array


class NewUsers(NamedTuple):
  """B users who were not in training.

  Attributes:
    liked, disliked: B arrays of item indices, int64.
    text: [B, D] float32 vectors of the texts built from them; 0 where none are read.
    top_rating, low_rating: the highest and lowest training rating as a feature of edges, what likes
      and dislikes count.
  """

  liked: list[np.ndarray]
  disliked: list[np.ndarray]
  text: np.ndarray
  top_rating: float
  low_rating: float


def histories(user: np.ndarray, item: np.ndarray, *, num_users: int) -> Histories:
  """Histories from pairs [R] that are sorted by user; numpy arrays."""
  start = np.searchsorted(user, np.arange(num_users + 1))
  return Histories(item.astype(np.int32), start.astype(np.int32), int(np.diff(start).max()))


def history_rows(inputs: Inputs | Histories, users: Array, *, num_items: int) -> Array:
  """[B, I] float32, 1 where the item is in the user's history (of `Inputs`: their positives).

  Args: users: [B] int32; an index of U or more gives a row of 0.
  """
  return valued_rows(inputs, jnp.ones(inputs.item.shape[0]), users, num_items=num_items)


def valued_rows(
  inputs: Inputs | Histories, values: Array, users: Array, *, num_items: int
) -> Array:
  """The same with values [R] float32 of the histories' entries instead of 1."""
  num_users = inputs.start.shape[0] - 1
  known = jnp.minimum(users, num_users - 1)
  place = inputs.start[known][:, None] + jnp.arange(inputs.longest, dtype=jnp.int32)
  inside = (place < inputs.start[known + 1][:, None]) & (users < num_users)[:, None]
  place = jnp.minimum(place, inputs.item.shape[0] - 1)
  item = inputs.item[place]
  rows = jnp.broadcast_to(jnp.arange(users.shape[0])[:, None], item.shape)
  out = jnp.zeros((users.shape[0], num_items), jnp.float32)
  return out.at[rows, jnp.where(inside, item, num_items)].set(values[place], mode="drop")


def liked_rows(users: NewUsers, *, num_items: int) -> Array:
  """[B, I] float32, 1 where a new user likes the item."""
  rows = np.zeros((len(users.liked), num_items), np.float32)
  for row, liked in zip(rows, users.liked, strict=True):
    row[liked] = 1.0
  return to_device(rows)


def item_counts(inputs: Inputs, *, num_items: int) -> Array:
  """[I] float32, training positives of each item."""
  return jnp.zeros(num_items, jnp.float32).at[inputs.item].add(1.0)


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
