"""What every recommender is to the rest of the house: one interface, for the GAT and its peers.

A method is a frozen dataclass of settings and sizes, so that it can be a static argument of jitted
functions. Inside a traced function a setting may be a traced number instead of a Python one (that
is how a sweep runs many settings in one program), so methods branch on `is_off(value)` and never on
the truth of a setting that a search may draw.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.data.feedback import Feedback, JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.inputs import Inputs, NewUsers, histories
from gatrec_jax.ops.negatives import NegativeSampler

Array = jax.Array


class Recommender(Protocol):
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

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Any:
    """`Inputs.own`. Args: train: training rows, by user, then by item. judged: what they mean."""

  def serving_state(self, params: Any, inputs: Inputs) -> Any:
    """What `score` needs, made once; traceable."""

  @staticmethod
  def score(serving_state: Any, users: Array) -> Array:
    """[B, I] float32 scores of all items for `users` [B] int32; traceable."""

  def score_new(self, params: Any, inputs: Inputs, serving_state: Any, users: NewUsers) -> Array:
    """[B, I] float32 scores for users who were not in training.

    Raises: InputError where the method cannot.
    """


class FittedRecommender(Recommender, Protocol):
  """A method that is fitted as a whole."""

  def fit(self, inputs: Inputs, key: Array) -> Any:
    """The parameters. Traceable as a whole; `key` is consumed."""


class LearnedRecommender(Recommender, Protocol):
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
  recommender: Recommender,
  train: Interactions,
  *,
  text: np.ndarray,
  sampler: NegativeSampler | None,
  feedback: Feedback = Feedback(),
  attributes: np.ndarray | None = None,
  new: np.ndarray | None = None,
  later: np.ndarray | None = None,
) -> Inputs:
  """Puts on device what a method needs. The order of the rows of `train` has no effect.

  Args:
    train: training rows only.
    text: [U + I, D] float32.
    sampler: of negatives, None for methods that draw none.
    feedback: which ratings count as liked and as disliked.
    attributes: [I, A] float32; None for none. new: [I] bool, later: [U] bool; None for none.
  Raises:
    InputError: no positive among the training rows.
  """
  order = np.lexsort((train.item, train.user))
  train = train.take(order)
  judged = feedback.judge(train.rating)
  liked = judged.liked
  if not liked.any():
    raise InputError(
      "no training rating reaches it, so there is nothing to learn; lower it",
      field="positive_threshold",
      value=f"{feedback.positive_threshold:g}",
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
    own=recommender.own_inputs(train, judged),
  )
  return jax.tree.map(jnp.asarray, inputs)
