"""Epochs of a recommender as one compiled program."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

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
  optimizer = make_optimizer(config, num_rows=recommender.num_rows(inputs))
  return constrain_tables(init_state(recommender.init(inputs, key), optimizer))


def start_training(
  inputs: Inputs, *, recommender: LearnedRecommender, config: TrainConfig
) -> TrainState:
  """`new_state` as a compiled program; another seed or rate reuses it."""
  dynamic, recommender, config = split_dynamic(recommender, config)
  return _new_state(inputs, dynamic, recommender=recommender, config=config)


def run_epochs(
  state: TrainState,
  inputs: Inputs,
  dynamic: Dynamic | Mapping[str, Any] = _NONE,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  num_epochs: int,
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
    num_epochs: how many.
  Returns:
    The new state and the [num_epochs, steps] float32 mean losses.
  """
  recommender, config = with_dynamic(recommender, config, dynamic)
  num_rows = recommender.num_rows(inputs)
  steps = steps_per_epoch(config, num_rows)
  size = config.batch_size or num_rows
  base_key = jax.random.key(config.seed)
  step = train_step(
    partial(recommender.loss, inputs=inputs), make_optimizer(config, num_rows=num_rows)
  )

  def epoch(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
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
    return state, metrics["loss"]

  state, losses = jax.lax.scan(epoch, state, None, length=num_epochs)
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
  (`hyperparameters.split_dynamic`); any other setting is static.
  """
  dynamic, recommender, config = split_dynamic(recommender, config)
  return _run_epochs(
    state, inputs, dynamic, recommender=recommender, config=config, num_epochs=num_epochs
  )


_new_state = jax.jit(new_state, static_argnames=("recommender", "config"))
_run_epochs = jax.jit(
  run_epochs, static_argnames=("recommender", "config", "num_epochs"), donate_argnames=("state",)
)
