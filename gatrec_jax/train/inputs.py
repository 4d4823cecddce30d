"""The inputs of a recommender together with the negatives that its objective draws."""

from __future__ import annotations

import numpy as np

from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import Recommender, make_inputs
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.negatives import make_sampler


def training_inputs(
  recommender: Recommender,
  train: Interactions,
  *,
  text: np.ndarray,
  config: TrainConfig,
  feedback: Feedback = Feedback(),
  attributes: np.ndarray | None = None,
  new: np.ndarray | None = None,
  later: np.ndarray | None = None,
) -> Inputs:
  """`make_inputs` with a sampler of negatives for recommenders that draw them.

  Args:
    train: training rows only; their order has no effect on the result.
    text: [U + I, D] float32.
    config: which negatives.
    feedback: which ratings count as liked and as disliked.
    attributes: [I, A] float32 of the items; None for none. new: [I] bool, later: [U] bool: as in
      `Inputs`.
  Raises:
    InputError: no positive among the training rows.
  """
  del config
  sampler, objective = None, getattr(recommender.settings, "objective", None)
  if isinstance(objective, PairwiseObjective):
    sampler = make_sampler(
      train,
      mode=objective.negatives,
      feedback=feedback,
      popularity_power=objective.popularity_power,
      explicit_share=objective.explicit_share,
    )
  return make_inputs(
    recommender,
    train,
    text=text,
    sampler=sampler,
    feedback=feedback,
    attributes=attributes,
    new=new,
    later=later,
  )
