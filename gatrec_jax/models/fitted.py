"""Fits a baseline directly: takes interactions and returns a model that scores."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from gatrec_jax.config.fields import check_values, entries, replaced
from gatrec_jax.config.models import MODELS
from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.models.base import FittedRecommender, make_inputs
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.top_k import top_items_by

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class FittedModel:
  """A model that was fitted to interactions, and what it was fitted to.

  Attributes:
    recommender: its kind and settings.
    train: the interactions, R rows.
    params: what was fitted, a pytree of arrays.
    inputs, serving_state: what scoring reads.
  """

  recommender: FittedRecommender
  train: Interactions
  params: Any
  inputs: Inputs
  serving_state: Any

  def score(self, users: np.ndarray) -> Array:
    """[B, I] float32 scores of all items. Args: users: [B] int, user indices."""
    users = np.asarray(require_list(users, field="users"), np.int32)
    return jax.jit(self.recommender.score)(self.serving_state, users)

  def top_items(
    self, users: np.ndarray, *, k: int = 10, exclude_seen: bool = True
  ) -> tuple[np.ndarray, np.ndarray]:
    """The k items with the highest scores for each user.

    Args: users: [B] int, user indices. k: how many. exclude_seen: leave out what they rated.
    Returns: items [B, k] int32, best first, −1 where fewer are left; their scores [B, k] float32.
    """
    return top_items_by(
      self.recommender.score,
      self.serving_state,
      np.asarray(require_list(users, field="users"), np.int32),
      num_items=self.recommender.num_items,
      seen=self.train if exclude_seen else None,
      k=k,
    )


def fit(
  model: str | ModelSettings,
  interactions: Interactions,
  *,
  text: np.ndarray | None = None,
  feedback: Feedback = Feedback(),
  seed: int = 0,
  **settings: Any,
) -> FittedModel:
  """Fits a baseline to interactions as a whole, without epochs.

  Args:
    model: popularity, recent_popularity, markov, item_knn, ease, ease_rated, gf_cf, slim,
      admm_slim, ials, content_knn or text_ridge; or its settings (a class of
      gatrec_jax.config.models).
    interactions: training rows, R of them.
    text: [U + I, D] float32 text vectors, users first, for the models that read text.
    feedback: which ratings are positives and which are explicit negatives.
    seed: of models that start from random factors.
    **settings: the model's settings by name; the others keep their defaults.
  Raises:
    InputError: an unknown model or setting, a value out of range, a model that learns by gradient
      steps or that reads text without it, or no positive rating.

  >>> train = Interactions.from_indices([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], num_users=3, num_items=3)
  >>> model = fit("ease", train, l2=1.0, feedback=Feedback(1.0, 0.0))
  >>> model.score([2]).round(3).tolist()
  [[0.0, 0.5, 0.0]]
  >>> model.top_items([2], k=2)[0].tolist()
  [[1, 2]]
  """
  chosen = _settings(model, settings)
  if chosen.reads_text and text is None:
    raise InputError(f"{chosen.kind} reads text vectors; give `text`", field="text")
  num_users, num_items = interactions.num_users, interactions.num_items
  recommender = make_recommender(chosen, num_users=num_users, num_items=num_items)
  if recommender.learned:
    raise InputError(
      f"{chosen.kind} learns by gradient steps; gatrec_jax.train has functions for it",
      field="model",
    )
  inputs = make_inputs(recommender, interactions, text=text, feedback=feedback)
  params, serving_state = _fitted(inputs, jax.random.key(seed), recommender=recommender)
  return FittedModel(recommender, interactions, params, inputs, serving_state)


def _settings(model: str | ModelSettings, changed: dict[str, Any]) -> ModelSettings:
  if isinstance(model, str):
    if model not in MODELS:
      raise InputError(f"unknown; there are {', '.join(MODELS)}", field="model", value=model)
    model = MODELS[model]()
  names = entries(model)
  if unknown := [name for name in changed if name not in names]:
    has = ", ".join(names) or "no settings"
    raise InputError(f"{model.kind} has no such setting; it has {has}", field=unknown[0])
  chosen = replaced(model, changed)
  check_values(chosen)
  return chosen


@partial(jax.jit, static_argnames="recommender")
def _fitted(inputs: Inputs, key: Array, *, recommender: FittedRecommender) -> tuple[Any, Any]:
  params = recommender.fit(inputs, key)
  return params, recommender.serving_state(params, inputs)
