"""What every recommender is to the rest of the house: one interface, for the GAT and its peers.

A method is a frozen dataclass of settings and sizes, so that it can be a static argument of jitted
functions. Inside a traced function a setting may be a traced number instead of a Python one (that
is how a sweep runs many settings in one program), so methods branch on `is_off(value)` and never on
the truth of a setting that a search may draw.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config import TrainConfig
from gatrec_jax.data.grades import Feedback, read_feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.negatives import NegativeSampler

Array = jax.Array


class Inputs(NamedTuple):
  """What a method learns from and serves with, as arrays on device.

  Attributes:
    user, item: [P] int32, the positive training pairs, by user, then by item.
    start: [U + 1] int32, where each user's positives begin.
    places: [L] int32, 0 … L − 1, L being the longest history (its shape is what counts).
    sampler: of negatives; None for methods that draw none.
    text: [U + I, D] float32 text vectors, users first; D = 1 and all 0 where none are read.
    attributes: [I, A] float32, of the items (`profiles.attributes`); A may be 0.
    new: [I] bool, items that nobody could rate yet, unlike those that nobody has rated.
    later: [U] bool, users whose ratings all came after training.
    own: what the method adds to them: a graph, buckets, …
  """

  user: Array
  item: Array
  start: Array
  places: Array
  sampler: NegativeSampler | None
  text: Array
  attributes: Array
  new: Array
  later: Array
  own: Any


class Histories(NamedTuple):
  """Items by user, as `Inputs` holds the positives.

  Attributes: item [R], start [U + 1], places [L]: as there.
  """

  item: Array
  start: Array
  places: Array


class NewUsers(NamedTuple):
  """B users who were not in training.

  Attributes:
    liked, disliked: B arrays of item indices, int64.
    text: [B, D] float32 vectors of the texts built from them; 0 where none are read.
    top_rating, low_rating: the highest and lowest training rating, what likes and dislikes count.
  """

  liked: list[np.ndarray]
  disliked: list[np.ndarray]
  text: np.ndarray
  top_rating: float
  low_rating: float


class Method(Protocol):
  """A recommender.

  Attributes:
    settings: of `gatrec_jax.model_settings`, or the GAT's.
    num_users, num_items: U and I.
    seeded: whether another seed gives another model.
  """

  settings: Any
  num_users: int
  num_items: int
  seeded: ClassVar[bool]

  def own_inputs(self, train: Interactions, feedback: Feedback) -> Any:
    """`Inputs.own`. Args: train: training rows, by user, then by item. feedback: their meaning."""

  def tables(self, params: Any, inputs: Inputs) -> Any:
    """What `score` needs, made once; traceable."""

  @staticmethod
  def score(tables: Any, users: Array) -> Array:
    """[B, I] float32 scores of all items for `users` [B] int32; traceable."""

  def score_new(self, params: Any, inputs: Inputs, tables: Any, users: NewUsers) -> Array:
    """[B, I] float32 scores for users who were not in training.

    Raises: InputError where the method cannot.
    """


class FittedMethod(Method, Protocol):
  """A method that is fitted as a whole."""

  def fit(self, inputs: Inputs, key: Array) -> Any:
    """The parameters. Traceable as a whole; `key` is consumed."""


class LearnedMethod(Method, Protocol):
  """A method that learns by gradient steps over batches of rows."""

  def num_rows(self, inputs: Inputs) -> int:
    """How many rows an epoch visits: positives, or users; known when traced."""

  def init(self, inputs: Inputs, key: Array) -> Any:
    """Fresh parameters. `key` is consumed."""

  def loss(
    self,
    params: Any,
    inputs: Inputs,
    rows: Array,
    key: Array,
    *,
    step: Array,
    train: TrainConfig,
    where: Array,
  ) -> Array:
    """[] float32, the mean loss over the rows that count.

    Args:
      rows: [B] int32 in 0 … num_rows − 1. key: consumed. step: [] int32, steps done before.
      train: weights and numbers of negatives. where: [B] bool, rows that count.
    """


def make_inputs(
  method: Method,
  train: Interactions,
  *,
  text: np.ndarray,
  sampler: NegativeSampler | None,
  positive_threshold: float,
  negative_threshold: float,
  attributes: np.ndarray | None = None,
  new: np.ndarray | None = None,
  later: np.ndarray | None = None,
) -> Inputs:
  """Puts on device what a method needs. The order of the rows of `train` has no effect.

  Args:
    train: training rows only.
    text: [U + I, D] float32.
    sampler: of negatives, None for methods that draw none.
    positive_threshold: ratings at or above it are positives.
    negative_threshold: ratings at or below it are dislikes.
    attributes: [I, A] float32; None for none. new: [I] bool, later: [U] bool; None for none.
  Raises:
    InputError: no positive among the training rows.
  """
  order = np.lexsort((train.item, train.user))
  train = train.take(order)
  feedback = read_feedback(
    train, positive_threshold=positive_threshold, negative_threshold=negative_threshold
  )
  liked = feedback.liked
  if not liked.any():
    raise InputError(
      f"positive_threshold={positive_threshold}: no training rating reaches it, so there is "
      "nothing to learn; lower it"
    )
  user, item = train.user[liked], train.item[liked]
  inputs = Inputs(
    user=user.astype(np.int32),
    **histories(user, item, num_users=train.num_users)._asdict(),
    sampler=sampler,
    text=np.asarray(text, np.float32),
    attributes=np.zeros((train.num_items, 0), np.float32) if attributes is None else attributes,
    new=np.zeros(train.num_items, bool) if new is None else new,
    later=np.zeros(train.num_users, bool) if later is None else later,
    own=method.own_inputs(train, feedback),
  )
  return jax.tree.map(jnp.asarray, inputs)


def histories(user: np.ndarray, item: np.ndarray, *, num_users: int) -> Histories:
  """Pairs [R], sorted by user, as histories; numpy arrays."""
  start = np.searchsorted(user, np.arange(num_users + 1))
  return Histories(
    item=item.astype(np.int32),
    start=start.astype(np.int32),
    places=np.arange(int(np.diff(start).max()), dtype=np.int32),
  )


def history_rows(inputs: Inputs | Histories, users: Array, *, num_items: int) -> Array:
  """[B, I] float32, 1 where the item is in the user's history (of `Inputs`: her positives).

  Args: users: [B] int32; an index of U or more gives a row of 0.
  """
  return valued_rows(inputs, jnp.ones(inputs.item.shape[0]), users, num_items=num_items)


def valued_rows(
  inputs: Inputs | Histories, values: Array, users: Array, *, num_items: int
) -> Array:
  """The same with values [R] float32 of the histories' entries instead of 1."""
  num_users = inputs.start.shape[0] - 1
  known = jnp.minimum(users, num_users - 1)
  place = inputs.start[known][:, None] + inputs.places
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
  return jnp.asarray(rows)


def item_counts(inputs: Inputs, *, num_items: int) -> Array:
  """[I] float32, training positives of each item."""
  return jnp.zeros(num_items, jnp.float32).at[inputs.item].add(1.0)


def is_off(value: Any) -> bool:
  """Whether a setting is 0 for sure; a traced one may be anything."""
  return isinstance(value, int | float) and value == 0


def drop(key: Array, values: Array, rate: Any) -> Array:
  """Dropout: each value is 0 with probability `rate` (may be traced), else ÷ (1 − rate).

  `key` is consumed.
  """
  if is_off(rate):
    return values
  kept = jax.random.bernoulli(key, 1 - rate, values.shape)
  return jnp.where(kept, values / (1 - rate), 0.0)
