"""Epochs of a recommender as one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import LearnedRecommender
from gatrec_jax.models.inputs import Batch, Inputs
from gatrec_jax.sharding.placement import constrain_tables
from gatrec_jax.train.hyperparameters import Dynamic, split_dynamic, with_dynamic
from gatrec_jax.train.optimizer import make_optimizer, steps_per_epoch
from gatrec_jax.train.state import TrainState, init_state
from gatrec_jax.train.step import train_step

_NONE: Mapping[str, Any] = MappingProxyType({})


def new_state(
  inputs: Inputs,
  dynamic: Dynamic | Mapping[str, Any] = _NONE,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
) -> TrainState:
  """Initial parameters and optimizer state from the seed. Traceable.

  Args: dynamic: numbers that take the place of those in recommender and config, may be traced.
  """
  recommender, config = with_dynamic(recommender, config, dynamic)
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  optimizer = _optimizer(recommender, config, recommender.num_rows(inputs))
  return constrain_tables(init_state(recommender.init(inputs, key), optimizer))


def _optimizer(
  recommender: LearnedRecommender, config: TrainConfig, num_rows: int
) -> optax.GradientTransformation:
  multiple = recommender.settings.rate_multiple
  return make_optimizer(config, num_rows=num_rows, multiple=multiple)


def start_training(
  inputs: Inputs, *, recommender: LearnedRecommender, config: TrainConfig
) -> TrainState:
  """`new_state` as a compiled program; another seed or rate reuses it."""
  dynamic, recommender, config = split_dynamic(recommender, config)
  return _new_state(inputs, dynamic, recommender=recommender, config=_of_program(config))


def run_epochs(
  state: TrainState,
  inputs: Inputs,
  dynamic: Dynamic | Mapping[str, Any] = _NONE,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int | jax.Array,
  most_epochs: int,
) -> tuple[TrainState, jax.Array]:
  """Runs whole epochs. Traceable.

  Each epoch visits the rows (positives, or users) in a new random order, `batch_size` at a time
  (the last batch of an epoch is padded with masked rows). All randomness follows from the seed and
  the step.

  Args:
    state: where training stands.
    inputs: what a step reads.
    dynamic: numbers that take the place of those in recommender and config, may be traced.
    recommender, config: static settings.
    num_epochs: how many, may be traced.
    most_epochs: rows of the losses, at least `num_epochs`.
  Returns:
    The new state and the [most_epochs, steps] float32 mean losses, 0 of epochs that were not run.
  """
  recommender, config = with_dynamic(recommender, config, dynamic)
  num_rows = recommender.num_rows(inputs)
  steps = steps_per_epoch(config, num_rows)
  size = config.batch_size or num_rows
  base_key = jax.random.key(config.seed)
  optimizer = _optimizer(recommender, config, num_rows)
  step = train_step(partial(recommender.loss, inputs=inputs), optimizer)

  def epoch(number: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
    state, losses = carry
    rows = jnp.arange(num_rows)
    if steps > 1:
      order_key = jax.random.fold_in(jax.random.fold_in(base_key, 2**31 - 2), state.step)
      rows = jax.random.permutation(order_key, rows)
    rows = jnp.pad(rows, (0, steps * size - num_rows)).reshape(steps, size)
    where = (jnp.arange(steps * size) < num_rows).reshape(steps, size)
    numbers = state.step + jnp.arange(steps)
    keys = jax.vmap(partial(jax.random.fold_in, base_key))(numbers)
    state, metrics = jax.lax.scan(
      lambda state, xs: step(state, *xs), state, (Batch(rows, where, numbers), keys)
    )
    return state, losses.at[number].set(metrics["loss"])

  losses = jnp.zeros((most_epochs, steps), jnp.float32)
  state, losses = jax.lax.fori_loop(0, num_epochs, epoch, (state, losses))
  return constrain_tables(state), losses


def train_epochs(
  state: TrainState,
  inputs: Inputs,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int,
) -> tuple[TrainState, jax.Array]:
  """`run_epochs` as a compiled program; `state` is donated.

  Another seed, learning rate, weight or dropout reuses the compiled program
  (`hyperparameters.split_dynamic`), and so does another number of epochs up to `evaluate_every`, or
  another setting that only says when training stops. Any other setting is static.

  Returns: the new state and the [num_epochs, steps] float32 mean losses.
  """
  dynamic, recommender, static = split_dynamic(recommender, config)
  state, losses = _run_epochs(
    state,
    inputs,
    dynamic,
    recommender=recommender,
    config=_of_program(static),
    num_epochs=num_epochs,
    most_epochs=max(num_epochs, config.evaluate_every),
  )
  return state, losses if len(losses) == num_epochs else losses[:num_epochs]


def _of_program(config: TrainConfig) -> TrainConfig:
  """The settings with those at their defaults that no compiled program reads.

  Of the numbers of epochs, only a schedule reads the one over which it decays.
  """
  usual = TrainConfig()
  decay = config.decay_epochs or config.epochs
  return dataclasses.replace(
    config,
    epochs=decay if config.schedule == "cosine" else usual.epochs,
    decay_epochs=usual.decay_epochs,
    select_on=usual.select_on,
    select_metric=usual.select_metric,
    evaluate_every=usual.evaluate_every,
    patience=usual.patience,
  )


_new_state = jax.jit(new_state, static_argnames=("recommender", "config"))
_run_epochs = jax.jit(
  run_epochs, static_argnames=("recommender", "config", "most_epochs"), donate_argnames=("state",)
)
