"""Training state, the inputs of a run, the optimizer, and epochs as one compiled program."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import FittedRecommender, LearnedRecommender, Recommender, make_inputs
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.negatives import make_sampler
from gatrec_jax.ops.numeric import is_off
from gatrec_jax.sharding.placement import constrain_tables
from gatrec_jax.train.hyperparameters import (
  Dynamic,
  recommender_with,
  split_dynamic,
  split_settings,
  with_dynamic,
)


class TrainState(NamedTuple):
  """What a step changes.

  Attributes:
    params: of the method.
    optimizer: optax state.
    step: [] int32, steps done; with the seed it determines every random draw that follows.
  """

  params: Any
  optimizer: Any
  step: jax.Array


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
  """Puts on device what a method learns from. Row order in `train` has no effect on the result.

  Args:
    train: training rows only.
    text: [U + I, D] float32.
    config: which negatives.
    feedback: which ratings count as liked and as disliked.
    attributes: [I, A] float32 of the items; None for none. new: [I] bool, later: [U] bool: as in
      `Inputs`.
  Raises:
    InputError: no positive among the training rows.
  """
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


def steps_per_epoch(config: TrainConfig, num_rows: int) -> int:
  """Steps in which every row (positive, or user) is seen once."""
  return -(-num_rows // config.batch_size) if config.batch_size else 1


def make_optimizer(config: TrainConfig, *, num_rows: int) -> optax.GradientTransformation:
  """AdamW with the configured schedule, warm-up and clipping.

  `plateau` lowers the rate when the mean training loss of `plateau_window` epochs has not fallen
  for more than `plateau_patience` epochs (with a window of 1, PyTorch's ReduceLROnPlateau).
  """
  per_epoch = steps_per_epoch(config, num_rows)
  total = (config.decay_epochs or config.epochs) * per_epoch
  if config.schedule == "cosine":
    rate = optax.cosine_decay_schedule(config.learning_rate, max(total - config.warmup_steps, 1))
  else:
    rate = optax.constant_schedule(config.learning_rate)
  if config.warmup_steps:
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    rate = optax.join_schedules([warmup, rate], [config.warmup_steps])
  parts = []
  if not is_off(config.gradient_clip):
    parts.append(optax.clip_by_global_norm(config.gradient_clip))
  parts.append(optax.adamw(rate, weight_decay=config.weight_decay))
  if config.schedule == "plateau":
    parts.append(
      optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor,
        # Counted in windows; Optax acts at its patience, PyTorch (and our setting) beyond it.
        patience=-(-(config.plateau_patience + 1) // config.plateau_window),
        rtol=1e-4,
        accumulation_size=per_epoch * config.plateau_window,
      )
    )
  return optax.chain(*parts)


def new_state(
  inputs: Inputs, *, recommender: LearnedRecommender, config: TrainConfig
) -> TrainState:
  """Fresh parameters and optimizer state from `config.seed`; traceable."""
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  params = recommender.init(inputs, key)
  optimizer = make_optimizer(config, num_rows=recommender.num_rows(inputs))
  return TrainState(params, optimizer.init(params), jnp.int32(0))


def init_state(
  inputs: Inputs, *, recommender: LearnedRecommender, config: TrainConfig
) -> TrainState:
  """`new_state` as a compiled program, the same for all numbers among the settings."""
  dynamic, recommender, config = split_dynamic(recommender, config)
  return _init_state(inputs, dynamic, recommender=recommender, config=config)


@partial(jax.jit, static_argnames=("recommender", "config"))
def _init_state(
  inputs: Inputs, dynamic: Dynamic, *, recommender: LearnedRecommender, config: TrainConfig
) -> TrainState:
  recommender, config = with_dynamic(recommender, config, dynamic)
  return constrain_tables(new_state(inputs, recommender=recommender, config=config))


def run_epochs(
  state: TrainState,
  inputs: Inputs,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int,
) -> tuple[TrainState, jax.Array]:
  """Whole epochs, to be traced.

  Each epoch visits the rows (positives, or users) in a new random order, `batch_size` at a time
  (the last batch of an epoch is filled up with masked rows). All randomness follows from the seed
  and the step.

  Args:
    state: where training stands.
    inputs: what a step reads.
    method, config: the seed and what a search may draw can be traced numbers.
    num_epochs: how many.
  Returns:
    The new state and the [num_epochs, steps] float32 mean losses.
  """
  num_rows = recommender.num_rows(inputs)
  steps = steps_per_epoch(config, num_rows)
  batch = config.batch_size or num_rows
  optimizer = make_optimizer(config, num_rows=num_rows)
  base_key = jax.random.key(config.seed)

  def step(state: TrainState, xs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
    rows, where = xs
    key = jax.random.fold_in(base_key, state.step)
    loss, gradient = jax.value_and_grad(recommender.loss)(
      state.params, inputs, rows, key, step=state.step, train=config, where=where
    )
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params, value=loss)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, optimizer_state, state.step + 1), loss

  def epoch(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
    rows = jnp.arange(num_rows)
    if steps > 1:
      order_key = jax.random.fold_in(jax.random.fold_in(base_key, 2**31 - 2), state.step)
      rows = jax.random.permutation(order_key, rows)
    rows = jnp.pad(rows, (0, steps * batch - num_rows))
    where = jnp.arange(steps * batch) < num_rows
    return jax.lax.scan(step, state, (rows.reshape(steps, batch), where.reshape(steps, batch)))

  return jax.lax.scan(epoch, state, None, length=num_epochs)


def train_epochs(
  state: TrainState,
  inputs: Inputs,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int,
) -> tuple[TrainState, jax.Array]:
  """`run_epochs` as one compiled program; `state` is donated.

  Another seed, learning rate, weight, dropout, … uses the program that is there (`split_numbers`);
  any other setting is static.
  """
  dynamic, recommender, config = split_dynamic(recommender, config)
  return _train_epochs(
    state, inputs, dynamic, recommender=recommender, config=config, num_epochs=num_epochs
  )


@partial(
  jax.jit, static_argnames=("recommender", "config", "num_epochs"), donate_argnames=("state",)
)
def _train_epochs(
  state: TrainState,
  inputs: Inputs,
  dynamic: Dynamic,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int,
) -> tuple[TrainState, jax.Array]:
  recommender, config = with_dynamic(recommender, config, dynamic)
  state, losses = run_epochs(
    state, inputs, recommender=recommender, config=config, num_epochs=num_epochs
  )
  return constrain_tables(state), losses


def make_serving_state(params: Any, inputs: Inputs, *, recommender: Recommender) -> Any:
  """What `method.score` needs."""
  dynamic, recommender = split_settings(recommender)
  return _make_serving_state(params, inputs, dynamic, recommender=recommender)


@partial(jax.jit, static_argnames=("recommender",))
def _make_serving_state(
  params: Any, inputs: Inputs, dynamic: Dynamic, *, recommender: Recommender
) -> Any:
  return recommender_with(recommender, dynamic).serving_state(params, inputs)


def fit_whole(inputs: Inputs, key: jax.Array, *, recommender: FittedRecommender) -> Any:
  """The parameters of a method that is fitted as a whole. `key` is consumed."""
  dynamic, recommender = split_settings(recommender)
  return _fit_whole(inputs, key, dynamic, recommender=recommender)


@partial(jax.jit, static_argnames=("recommender",))
def _fit_whole(
  inputs: Inputs, key: jax.Array, dynamic: Dynamic, *, recommender: FittedRecommender
) -> Any:
  return recommender_with(recommender, dynamic).fit(inputs, key)
