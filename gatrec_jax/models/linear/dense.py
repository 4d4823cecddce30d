"""Ridge regression of every item on all the others in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gatrec_jax.models.baselines.item_item import inverse

Array = jax.Array


def ridge_weights(together: Array, penalties: Array) -> Array:
  """The weights of EASE for m relations, of which the first is predicted.

  With P = (Zᵀ Z + penalties)⁻¹, the column of item j is e_j − Σ_s c_sj P_sj, where P_sj is the
  column of item j in relation s. The multipliers c of the weights that must be 0 solve, with the
  m × m block of item j in P, block · c = (1, 0, …). For m = 1 this is eq. 8 of Steck 2019.

  Args: together: Zᵀ Z, [m I, m I] float32. penalties: [m] float32, > 0.
  Returns: [m, I, I] float32, diagonals 0.
  """
  count = penalties.shape[0]
  num_items = together.shape[0] // count
  precision = inverse(together + jnp.diag(jnp.repeat(penalties, num_items)))
  precision = precision.reshape(count, num_items, count, num_items)
  blocks = jnp.moveaxis(jnp.diagonal(precision, axis1=1, axis2=3), 2, 0)
  multipliers = _first_columns_of_inverses(blocks)
  weights = -sum(precision[:, :, s] * multipliers[s] for s in range(count))
  return jnp.where(jnp.eye(num_items, dtype=bool), 0.0, weights)


def _first_columns_of_inverses(blocks: Array) -> Array:
  """[m, I] from symmetric [I, m, m] of one or two relations."""
  own = blocks[:, 0, 0]
  if blocks.shape[1] == 1:
    return 1 / own[None]
  across, other = blocks[:, 1, 0], blocks[:, 1, 1]
  return jnp.stack([other, -across]) / (own * other - across**2)
