"""SLIM by the alternating direction method of multipliers (ADMM)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import AdmmSlimConfig
from gatrec_jax.models.baselines.item_item import ItemItemRecommender, exact_matmul, gram, inverse
from gatrec_jax.models.inputs import Inputs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class AdmmSlimRecommender(ItemItemRecommender):
  """ADMM-SLIM (Steck et al. 2020), without centering.

  min ½ ‖X − X W‖² + ½ Σ_i l2_i ‖w_i·‖² + l1 ‖W‖₁ with diag(W) = 0 and W ≥ 0 if
  `nonnegative`;
  l2_i = l2 · (share of users who like i)^item_power.
  """

  settings: AdmmSlimConfig

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    settings = self.settings
    together = gram(inputs, num_items=self.num_items)
    share = jnp.diag(together) / self.num_users
    weights = admm(
      together,
      l1=settings.l1,
      l2=settings.l2 * share**settings.item_power,
      rho=settings.rho,
      iterations=settings.iterations,
      nonnegative=settings.nonnegative,
    )
    return {"weights": weights}


def admm(
  together: Array,
  *,
  l1: Array | float,
  l2: Array,
  rho: Array | float,
  iterations: int,
  nonnegative: bool,
) -> Array:
  """The weights by algorithm 1 of Steck et al. 2020; its multipliers are stored divided by rho.

  Args:
    together: G [I, I] float32. l1, rho: may be traced. l2: [I] float32, of each row of weights.
    iterations: number of iterations. nonnegative: static.
  Returns: [I, I] float32, the sparse copy of the weights.
  """
  ridge = l2 + rho
  solve = inverse(together + jnp.diag(ridge))
  # (G + ridge)⁻¹ G, without cancellation off the diagonal.
  unpenalized = jnp.eye(together.shape[0], dtype=together.dtype) - solve * ridge

  def advance(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
    sparse, multipliers = state
    dense = unpenalized + rho * exact_matmul(solve, sparse - multipliers)
    dense = dense - solve * (jnp.diag(dense) / jnp.diag(solve))  # the diagonal becomes 0
    target = dense + multipliers
    if nonnegative:
      sparse = jnp.maximum(target - l1 / rho, 0.0)
    else:
      sparse = jnp.sign(target) * jnp.maximum(jnp.abs(target) - l1 / rho, 0.0)
    return sparse, target - sparse

  start = jnp.zeros_like(together), jnp.zeros_like(together)
  return jax.lax.fori_loop(0, iterations, advance, start)[0]
