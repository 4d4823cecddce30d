"""The interface of every recommender, for the GAT and the baselines beside it.

A recommender is a frozen dataclass of settings and sizes, so that it can be a static argument of
jitted functions. Inside a traced function a setting may be a traced number instead of a Python one
(that is how a sweep runs many settings in one program), so recommenders compare float settings with
`is_off(value)` alone, unless a setting is declared with `dynamic=False`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

import jax
import numpy as np

from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.data.feedback import Feedback, JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers, histories
from gatrec_jax.ops.negatives import NegativeSampler, make_sampler
from gatrec_jax.sharding.placement import to_device

Array = jax.Array
Kept = Callable[[Callable[[], Any]], Any]
"""Calls the function that it is given, or returns what an earlier call of it returned."""


def call(make: Callable[[], Any]) -> Any:
  """A `Kept` that keeps nothing."""
  return make()


class Recommender(Protocol):
  """A recommender. What it can do is declared here; a method that it lacks is absent.

  Attributes:
    settings: one of `gatrec_jax.config.models`, or the GAT's.
    num_users, num_items: U and I.
    learned: it is a `LearnedRecommender`, trained by gradient steps; else a `FittedRecommender`.
    seeded: another seed gives another model.
    scores_by: "vectors" where the serving state is ([U, D] users, [I, D] items), whose dot products
      are the scores, else "scores". May depend on the settings. With "scores" it has
      `vectors_of_users` and `vectors_of_items`, whose dot products are the same scores, but which
      may be wider than the catalog.
    serves_new_users: it has `score_new`. May depend on the settings.
    takes_new_ratings: it extends to new ratings, users and items without training: a fitted one by
      `fit`, a learned one by `grown`.
    explainable: `explain` can say which ratings a score depends on.
  """

  settings: Any
  num_users: int
  num_items: int
  learned: ClassVar[bool]
  seeded: ClassVar[bool]
  scores_by: Literal["vectors", "scores"]
  serves_new_users: bool
  takes_new_ratings: ClassVar[bool]
  explainable: ClassVar[bool]

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Any:
    """`Inputs.own`. Args: train: training rows, by user, then by item. judged: what they mean."""

  def serving_state(self, params: Any, inputs: Inputs) -> Any:
    """What `score` needs, made once; traceable."""

  @staticmethod
  def score(serving_state: Any, users: Array) -> Array:
    """[B, I] float32 scores of all items for `users` [B] int32; traceable."""

  @staticmethod
  def vectors_of_users(serving_state: Any, users: Array) -> Array:
    """[B, W] float32 for `users` [B] int32; traceable (`scores_by` = "scores")."""

  @staticmethod
  def vectors_of_items(serving_state: Any) -> Array:
    """[I, W] float32; traceable (`scores_by` = "scores")."""

  def score_new(self, params: Any, inputs: Inputs, serving_state: Any, users: NewUsers) -> Array:
    """[B, I] float32 scores for users who were not in training (`serves_new_users`)."""


class FittedRecommender(Recommender, Protocol):
  """A recommender that is fitted in a single step, without epochs."""

  def fit(self, inputs: Inputs, key: Array) -> Any:
    """The parameters. Traceable as a whole; `key` is consumed."""


class LearnedRecommender(Recommender, Protocol):
  """A recommender that learns by gradient steps over batches of rows."""

  def num_rows(self, inputs: Inputs) -> int:
    """The number of rows of an epoch: positives, or users; static."""

  def init(self, inputs: Inputs, key: Array) -> Any:
    """Fresh parameters. `key` is consumed."""

  def loss(self, params: Any, batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    """[] float32, the mean loss over the rows of `batch` that count. `key` is consumed.

    With `inputs` bound it is a loss for `train.train_step`.
    """

  def completed(self, own: Any, kept: Kept) -> Any:
    """`own_inputs` with what is fitted to them in closed form, which takes long (if there is any).

    Args: kept: gives it.
    """

  @staticmethod
  def on_mesh(own: Any) -> Any:
    """The part of `Inputs.own` that a step on a mesh of devices reads."""

  def grown(
    self, params: Any, inputs: Inputs, *, former: Inputs, num_users: int, num_items: int
  ) -> Any:
    """The parameters of a smaller catalog, extended to this one (`takes_new_ratings`).

    Args: params: of the smaller catalog. inputs: of this one; known users and items come first.
      former: inputs of the smaller one. num_users, num_items: its sizes.
    """


def make_inputs(
  recommender: Recommender,
  train: Interactions,
  *,
  text: np.ndarray | None = None,
  feedback: Feedback = Feedback(),
  attributes: np.ndarray | None = None,
  new: np.ndarray | None = None,
  later: np.ndarray | None = None,
  kept: Kept = call,
) -> Inputs:
  """The inputs of a recommender, on device. The order of the rows of `train` has no effect.

  Args:
    train: training rows only.
    text: [U + I, D] float32, users first; None for recommenders that read no text.
    feedback: which ratings count as liked and as disliked.
    attributes: [I, A] float32; None for none. new: [I] bool, later: [U] bool; None for none.
    kept: gives what is fitted in closed form beside the parameters, such as a linear channel.
  Raises:
    InputError: no positive among the training rows.

  >>> from gatrec_jax.config.models import EaseConfig
  >>> train = Interactions.from_indices([1, 0, 1], [0, 1, 1], [5, 4, 2], num_users=2, num_items=2)
  >>> recommender = make_recommender(EaseConfig(), num_users=2, num_items=2)
  >>> inputs = make_inputs(recommender, train)
  >>> inputs.user.tolist(), inputs.item.tolist()  # the positives, by user
  ([0, 1], [1, 0])
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
  if text is None:
    text = np.zeros((train.num_users + train.num_items, 1), np.float32)
  own = recommender.own_inputs(train, judged)
  if hasattr(recommender, "completed"):
    own = recommender.completed(own, kept)
  user, item = train.user[liked], train.item[liked]
  rows = histories(user, item, num_users=train.num_users)
  inputs = Inputs(
    user=user.astype(np.int32),
    item=rows.item,
    start=rows.start,
    longest=rows.longest,
    num_positives=len(user),
    sampler=_sampler(recommender, train, feedback),
    text=np.asarray(text, np.float32),
    attributes=np.zeros((train.num_items, 0), np.float32) if attributes is None else attributes,
    new=np.zeros(train.num_items, bool) if new is None else new,
    later=np.zeros(train.num_users, bool) if later is None else later,
    own=own,
  )
  leaves, structure = jax.tree.flatten(inputs)
  del own, user, item, rows, inputs, train, judged, liked
  for place, leaf in enumerate(leaves):  # each is freed on the host before the next one is copied
    leaves[place] = to_device(leaf)
    del leaf
  return jax.tree.unflatten(structure, leaves)


def _sampler(
  recommender: Recommender, train: Interactions, feedback: Feedback
) -> NegativeSampler | None:
  """The negatives that the recommender's objective draws; None if it draws none."""
  objective = recommender.settings.objective
  if not isinstance(objective, PairwiseObjective):
    return None
  return make_sampler(
    train,
    mode=objective.negatives,
    feedback=feedback,
    popularity_power=objective.popularity_power,
    explicit_share=objective.explicit_share,
  )
