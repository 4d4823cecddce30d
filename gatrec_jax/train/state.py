"""What a training step changes: parameters, optimizer state, and the number of steps done."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
  """The state of training, a pytree.

  Attributes:
    params: any pytree of float arrays.
    opt_state: of the optax optimizer.
    step: [] int32, steps done. All randomness of the library's own training follows from the seed
      and this number.
  """

  params: Any
  opt_state: Any
  step: jax.Array


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
  """The state before the first step. Traceable, and can be vmapped over parameters.

  >>> state = init_state({"w": jnp.zeros(3)}, optax.sgd(0.1))
  >>> int(state.step)
  0
  """
  return TrainState(params, optimizer.init(params), jnp.int32(0))
