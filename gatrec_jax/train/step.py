"""One training step of any loss with any optimizer, as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from gatrec_jax.train.state import TrainState

Metrics = Mapping[str, jax.Array]
LossFn = Callable[[Any, Any, jax.Array], jax.Array | tuple[jax.Array, Metrics]]
"""(params, batch, key) -> [] loss, or (loss, {name: array})."""
Step = Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]
"""(state, batch, key) -> (state, metrics)."""


def train_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> Step:
  """Builds the step (state, batch, key) -> (state, metrics); the library itself trains with it.

  The step is pure: jit it, scan over batches, or vmap it over states and keys to train several
  seeds at once. The optimizer also receives the loss as `value`, which some optax transformations
  need (`reduce_on_plateau`).

  >>> def loss_fn(params, batch, key):
  ...   return ((batch @ params["w"] - 1.0) ** 2).mean()
  >>> optimizer = optax.sgd(0.1)
  >>> step = jax.jit(train_step(loss_fn, optimizer))
  >>> state = init_state({"w": jnp.zeros(3)}, optimizer)
  >>> state, metrics = step(state, jnp.ones((2, 3)), jax.random.key(0))
  >>> int(state.step), float(metrics["loss"])
  (1, 1.0)

  Args:
    loss_fn: (params, batch, key) -> [] loss, or (loss, {name: array}). It consumes the key.
    optimizer: any optax transformation.
  Returns:
    The step. Its metrics are {"loss": [] float32} and those of `loss_fn`, before the update.
  """
  optimizer = optax.with_extra_args_support(optimizer)

  def step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
    def objective(params: Any) -> tuple[jax.Array, Metrics]:
      result = loss_fn(params, batch, key)
      return result if isinstance(result, tuple) else (result, {})

    (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params, value=loss)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1), {"loss": loss, **metrics}

  return step
