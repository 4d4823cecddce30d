"""Implicit alternating least squares: matrix factorization over all pairs, by conjugate gradients.

Hu, Koren and Volinsky 2008; in the form of Rendle et al. 2022, "Revisiting the Performance of iALS
on Item Recommendation Benchmarks". With user factors w, item factors h, observed pairs S and their
confidence c:

  Σ_(u,i)∈S c_ui (1 − ⟨w_u, h_i⟩)² + α₀ Σ_(u,i) ⟨w_u, h_i⟩²
    + λ Σ_u (c_u + α₀ I)^ν ‖w_u‖² + λ Σ_i (c_i + α₀ U)^ν ‖h_i‖²

c_u and c_i are the sums of confidence of a user and of an item. `binary`: S are the positives and
c = 1. `graded`: S are all ratings and c is their relevance. With one side fixed, each row of the
other is the solution of its own D × D system. Conjugate gradients (Takács, Pilászy and Tikk 2011)
read it only through products with the factors of the row's pairs. Turning both sides alike changes
no score, so they are turned into the eigenbasis of the fixed side's Gram matrix Σ hhᵀ, in which all
that the unobserved pairs and the penalty add to a system is diagonal. That is the preconditioner; n
pairs differ from it by a matrix of rank n.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.models import IalsConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.ials_buckets import Bucket, Layout, by_row, layout, padded_rows
from gatrec_jax.models.baselines.item_item import exact_matmul
from gatrec_jax.models.inputs import Inputs, NewUsers, liked_rows, new_relevance_rows
from gatrec_jax.ops.numeric import is_off
from gatrec_jax.ops.scores import dot_product_scores
from gatrec_jax.sharding.placement import to_device

Array = jax.Array
_EXACT = jax.lax.Precision.HIGHEST

# A system is solved where the residual, in the norm of the preconditioner, is this share of the
# factor. Exact arithmetic needs at most D steps; rounding may need some more.
_TOLERANCE = 1e-6
_MOST_STEPS = 4
UNOBSERVED_A_POSITIVE = 24.0
"""What the pairs of a user weigh beside the positives of one on average, if nothing else is set."""


@dataclasses.dataclass(frozen=True)
class IalsRecommender:
  """Implicit ALS. Users and items without observed pairs have the factor 0.

  Params are {"user": [U, D] float32, "item": [I, D] float32}. Users are solved last, and without
  regard to `cg_steps`, so that a new user with the same ratings as a trained one gets the same
  factor.
  """

  settings: IalsConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Layout:
    user, item, weight = train.user, train.item, judged.relevance
    if self.settings.relevance == "binary":
      user, item, weight = user[judged.liked], item[judged.liked], None
    return layout(
      by_row(item, user, weight, num_rows=self.num_items),
      by_row(user, item, weight, num_rows=self.num_users),
      width=self.settings.width,
    )

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    """`settings.iterations` passes over items, then users. `key` is consumed."""
    own: Layout = inputs.own
    width, alpha = self.settings.width, self._alpha(inputs)
    user = jax.random.normal(key, (self.num_users, width)) * (
      self.settings.init_stddev / np.sqrt(width)
    )
    slots = sum(bucket.totals.size for bucket in own.buckets)
    # Rows without pairs are never solved. The last slot stays 0, for them and for padding.
    table = jnp.zeros((slots + 1, width)).at[own.user_slot].set(user).at[slots].set(0.0)
    of_items = jnp.zeros(slots + 1, bool).at[own.item_slot].set(True)
    last = 2 * self.settings.iterations - 1

    def half(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
      """Solves one side. Carries factors by slot, and what turns the first basis into theirs."""
      table, basis = carry
      users = number % 2 == 1
      spectrum, turn = self._unobserved(table * (of_items == users)[:, None], alpha)
      table = exact_matmul(table, turn)
      limit = jnp.where(number == last, _MOST_STEPS * width, self.settings.cg_steps)
      solved, first = [], 0
      for bucket in own.buckets:
        size = bucket.totals.size
        start = table[first : first + size].reshape(*bucket.totals.shape, width)
        part = self._solved(bucket, table, spectrum, start, alpha, users=users, limit=limit)
        solved.append(part.reshape(size, width))
        first += size
      return jnp.concatenate([*solved, table[slots:]]), exact_matmul(basis, turn)

    table, basis = jax.lax.fori_loop(0, last + 1, half, (table, jnp.eye(width)))
    table = exact_matmul(table, basis.T)
    return {"user": table[own.user_slot], "item": table[own.item_slot]}

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> tuple[Array, Array]:
    return params["user"], params["item"]

  score = staticmethod(dot_product_scores)

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: Any, users: NewUsers
  ) -> Array:
    """[B, I] float32: the new users' factors are solved for the fixed items."""
    graded = self.settings.relevance == "graded"
    relevance = np.asarray(
      (new_relevance_rows if graded else liked_rows)(users, num_items=self.num_items)
    )
    row, item = np.nonzero(relevance)
    pairs = by_row(row, item, relevance[row, item] if graded else None, num_rows=len(relevance))
    bucket = padded_rows(pairs, num_items=self.num_items, width=self.settings.width)
    factors = _new_factors(params["item"], to_device(bucket), self._alpha(inputs), recommender=self)
    return dot_product_scores((factors, params["item"]), jnp.arange(len(relevance)))

  def _alpha(self, inputs: Inputs | None) -> Any:
    """α₀, the weight of every pair; inputs are read where the settings leave it open."""
    asked = self.settings.unobserved_weight
    if not is_off(asked):
      return asked
    return unobserved_weight(inputs.num_positives, self.num_users * self.num_items)

  def _unobserved(self, others: Array, alpha: Any) -> tuple[Array, Array]:
    """α₀ Σ hhᵀ over the other side [N, D]: its eigenvalues [D] and eigenvectors [D, D]."""
    spectrum, turn = jnp.linalg.eigh(alpha * exact_matmul(others.T, others))
    return jnp.maximum(spectrum, 0.0), turn

  def _solved(
    self,
    bucket: Bucket,
    table: Array,
    spectrum: Array,
    start: Array,
    alpha: Any,
    *,
    users: Array | bool,
    limit: Array | int,
  ) -> Array:
    """[C, B, D] float32, the factors of a bucket's rows; only one side's change.

    Args:
      table: [N + 1, D], the other side by what the lists hold, in the eigenbasis. spectrum: [D].
      start: [C, B, D], the factors to start from. alpha: α₀.
      users: the side to solve. limit: the most steps.
    """
    settings = self.settings
    others = jnp.where(users, self.num_items, self.num_users)
    mass = bucket.totals + alpha * others
    l2 = settings.l2 * mass**settings.l2_power

    def of_chunk(values: Array, chunk: Array) -> Array:
      return jax.lax.dynamic_index_in_dim(values, chunk, keepdims=False)

    def solve_chunk(chunk: Array, factors: Array) -> Array:
      weights = None if bucket.weights is None else of_chunk(bucket.weights, chunk)
      solved = _solve(
        table.at[of_chunk(bucket.lists, chunk)].get(mode="promise_in_bounds"),
        weights,
        # Where nothing is observed and α₀ is 0, so is this.
        jnp.maximum(spectrum + of_chunk(l2, chunk)[:, None], 1e-20),
        of_chunk(factors, chunk),
        limit=limit,
      )
      return jax.lax.dynamic_update_index_in_dim(factors, solved, chunk, 0)

    first = jnp.where(users, bucket.item_chunks, 0)
    end = jnp.where(users, len(bucket.totals), bucket.item_chunks)
    return jax.lax.fori_loop(first, end, solve_chunk, start)


def unobserved_weight(num_positives: int, num_pairs: int) -> float:
  """α₀ by the share of the pairs of users and items that are positives.

  >>> unobserved_weight(num_positives=100, num_pairs=4800)
  0.5
  """
  return UNOBSERVED_A_POSITIVE * num_positives / num_pairs


def _solve(
  factors: Array, weights: Array | None, diagonal: Array, start: Array, *, limit: Array | int
) -> Array:
  """[B, D] float32: x of (diagonal + Σ c hhᵀ) x = Σ c h, row by row, by conjugate gradients.

  Args:
    factors: [B, L, D], h of each row's pairs, 0 for padding. weights: [B, L], c; None if 1.
    diagonal: [B, D] > 0, which is also the preconditioner. start: [B, D].
    limit: the most steps.
  """

  def products(target: Array, x: Array) -> Array:
    """[B, D]: Σ c (target − ⟨h, x⟩) h − diagonal · x."""
    values = target - jnp.einsum("bld,bd->bl", factors, x, precision=_EXACT)
    values = values if weights is None else values * weights
    return jnp.einsum("bl,bld->bd", values, factors, precision=_EXACT) - diagonal * x

  def unsolved(state: tuple[Array, ...]) -> Array:
    step, x, _, _, energy = state
    solved = energy <= _TOLERANCE**2 * jnp.sum(diagonal * x * x, axis=-1)
    return (step <= limit) & ~jnp.all(solved)

  def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
    step, x, residual, direction, energy = state
    # The first advance goes from 0 to `start` and finds the residual there, so that the products,
    # which are most of what has to be compiled, are there once.
    first = step == 0
    change = products(jnp.where(first, 1.0, 0.0), direction)
    curvature = -jnp.sum(direction * change, axis=-1)
    length = jnp.where(first, 1.0, jnp.where(curvature > 0, energy / curvature, 0.0))[:, None]
    x, residual = x + length * direction, residual + length * change
    scaled = residual / diagonal
    left = jnp.sum(residual * scaled, axis=-1)
    kept = jnp.where(first | (energy == 0), 0.0, left / energy)[:, None]
    return step + 1, x, residual, scaled + kept * direction, left

  zero = jnp.zeros_like(start)
  state = 0, zero, zero, start, jnp.ones(len(start))
  return jax.lax.while_loop(unsolved, advance, state)[1]


@partial(jax.jit, static_argnames="recommender")
def _new_factors(
  items: Array, bucket: Bucket, alpha: Any, *, recommender: IalsRecommender
) -> Array:
  """[C · B, D] float32: users solved for the items [I, D]; those after the last are padding."""
  width = items.shape[1]
  spectrum, turn = recommender._unobserved(items, alpha)
  table = exact_matmul(jnp.concatenate([items, jnp.zeros((1, width))]), turn)
  # The bucket has one side, which it counts as items.
  start = jnp.zeros((*bucket.totals.shape, width))
  limit = _MOST_STEPS * width
  solved = recommender._solved(bucket, table, spectrum, start, alpha, users=True, limit=limit)
  return exact_matmul(solved.reshape(-1, width), turn.T)
