"""Sparse linear methods: an elastic net of every item on all the others, with weights ≥ 0."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import SlimConfig
from gatrec_jax.models.baselines.item_item import (
  ItemItemRecommender,
  exact_matmul,
  gram,
  without_diagonal,
)
from gatrec_jax.models.inputs import Inputs

Array = jax.Array

_POWER_ITERATIONS = 30
# Power iteration approaches from below, and steps above 1 ÷ the largest eigenvalue may diverge.
_CURVATURE_MARGIN = 1.01


@dataclasses.dataclass(frozen=True)
class SlimRecommender(ItemItemRecommender):
  """SLIM (Ning and Karypis 2011) as an elastic net with penalties per training user (`SlimConfig`).

  Column j minimizes ‖x_j − X w‖² ÷ (2 U) + alpha · l1_ratio · ‖w‖₁ +
  ½ · alpha · (1 − l1_ratio) · ‖w‖² over w ≥ 0 with w_j = 0.
  """

  settings: SlimConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    alpha = self.num_users * self.settings.alpha
    weights = nonnegative_elastic_net(
      gram(inputs, num_items=self.num_items),
      l1=alpha * self.settings.l1_ratio,
      l2=alpha * (1 - self.settings.l1_ratio),
      iterations=self.settings.iterations,
      tolerance=self.settings.tolerance,
    )
    return {"weights": weights}


class _State(NamedTuple):
  """weights: W; ahead: the point of the next gradient; momentum: [I], t of each column;
  change: the largest change of a weight in the last iteration; step: iterations done."""

  weights: Array
  ahead: Array
  momentum: Array
  change: Array
  step: Array


def nonnegative_elastic_net(
  together: Array,
  *,
  l1: Array | float,
  l2: Array | float,
  iterations: int,
  tolerance: Array | float,
) -> Array:
  """Minimizes ½ tr(WᵀGW) − tr(GW) + l1 ‖W‖₁ + ½ l2 ‖W‖² over W ≥ 0 with diag(W) = 0.

  Accelerated proximal gradient (Beck and Teboulle 2009) for all columns at once; the momentum of
  a column restarts when it points uphill (O'Donoghue and Candès 2015).

  Args:
    together: G [I, I] float32. l1, l2, tolerance: ≥ 0, may be traced.
    iterations: at most. tolerance: stops when no weight changes by more.
  Returns: [I, I] float32.
  """
  num_items = together.shape[0]
  curvature = _CURVATURE_MARGIN * _largest_eigenvalue(together) + l2

  def advance(state: _State) -> _State:
    gradient = exact_matmul(together, state.ahead) - together + l2 * state.ahead + l1
    weights = without_diagonal(jnp.maximum(state.ahead - gradient / curvature, 0.0))
    move = weights - state.weights
    uphill = jnp.sum((state.ahead - weights) * move, axis=0) > 0
    momentum = jnp.where(uphill, 1.0, state.momentum)
    following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
    return _State(
      weights,
      weights + (momentum - 1) / following * move,
      following,
      jnp.max(jnp.abs(move)),
      state.step + 1,
    )

  def unfinished(state: _State) -> Array:
    return (state.step < iterations) & (state.change > tolerance)

  zeros = jnp.zeros((num_items, num_items), jnp.float32)
  start = _State(zeros, zeros, jnp.ones(num_items), jnp.float32(jnp.inf), jnp.int32(0))
  return jax.lax.while_loop(unfinished, advance, start).weights


def _largest_eigenvalue(together: Array) -> Array:
  """[] float32, by power iteration from a vector of ones (no entry is negative)."""

  def advance(_: int, vector: Array) -> Array:
    vector = exact_matmul(together, vector)
    return vector / jnp.linalg.norm(vector)

  num_items = together.shape[0]
  vector = jnp.full(num_items, num_items**-0.5, jnp.float32)
  vector = jax.lax.fori_loop(0, _POWER_ITERATIONS, advance, vector)
  return vector @ exact_matmul(together, vector)
