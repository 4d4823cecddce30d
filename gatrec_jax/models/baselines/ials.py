"""Implicit alternating least squares: matrix factorization over all pairs, solved exactly.

Hu, Koren and Volinsky 2008; in the form of Rendle et al. 2022, "Revisiting the Performance of iALS
on Item Recommendation Benchmarks". With user factors w, item factors h, observed pairs S and their
confidence c:

  Σ_(u,i)∈S c_ui (1 − ⟨w_u, h_i⟩)² + α₀ Σ_(u,i) ⟨w_u, h_i⟩²
    + λ Σ_u (c_u + α₀ I)^ν ‖w_u‖² + λ Σ_i (c_i + α₀ U)^ν ‖h_i‖²

c_u and c_i are the sums of confidence of a user and of an item. `binary`: S are the positives and
c = 1. `graded`: S are all ratings and c is their relevance. With one side fixed, each row of the
other is the solution of its own D × D system.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.models import IalsConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.inputs import Inputs, NewUsers, liked_rows, new_relevance_rows
from gatrec_jax.ops.scores import dot_product_scores

Array = jax.Array
_EXACT = jax.lax.Precision.HIGHEST

# What a chunk may gather, in floats: 64 MB. Smaller ones mean more loops to compile and to turn.
_CHUNK_FLOATS = 16_000_000
_SHORTEST = 16


class Bucket(NamedTuple):
  """Rows of one side with histories of about one length, in C chunks of B rows.

  Attributes:
    rows: [C, B] int32, which rows; the number of rows for padding.
    lists: [C, B, L] int32, their pairs on the other side; its number of rows for padding.
    weights: [C, B, L] float32, c of these pairs, 0 for padding; None where all are 1.
  """

  rows: Array
  lists: Array
  weights: Array | None


class Sides(NamedTuple):
  """The observed pairs twice: by user and by item. Rows without any are in no bucket."""

  users: tuple[Bucket, ...]
  items: tuple[Bucket, ...]


@dataclasses.dataclass(frozen=True)
class IalsRecommender:
  """Implicit ALS. Who has no positives gets the factor 0.

  Attributes: settings; num_users, num_items: U and I. Parameters: {"user": [U, D] float32,
  "item": [I, D] float32}, the users solved last, so that a new user with the same likes as one of
  them gets her factor.
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

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Sides:
    user, item, weight = train.user, train.item, judged.relevance
    if self.settings.relevance == "binary":
      user, item, weight = user[judged.liked], item[judged.liked], None
    return Sides(
      users=self._buckets(user, item, weight, num_rows=self.num_users, num_others=self.num_items),
      items=self._buckets(item, user, weight, num_rows=self.num_items, num_others=self.num_users),
    )

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    """`settings.iterations` passes over items, then users. `key` is consumed."""
    width = self.settings.width
    user = jax.random.normal(key, (self.num_users, width)) * (
      self.settings.init_stddev / np.sqrt(width)
    )
    # Users without an observed pair are never solved, and must not weigh on the items either.
    observed = jnp.zeros(self.num_users, bool)
    for bucket in inputs.own.users:
      observed = observed.at[bucket.rows].set(True, mode="drop")
    user = jnp.where(observed[:, None], user, 0.0)

    def one_pass(_: int, factors: dict[str, Array]) -> dict[str, Array]:
      item = self._solve(inputs.own.items, factors["user"], num_rows=self.num_items)
      return {"user": self._solve(inputs.own.users, item, num_rows=self.num_users), "item": item}

    factors = {"user": user, "item": jnp.zeros((self.num_items, width))}
    return jax.lax.fori_loop(0, self.settings.iterations, one_pass, factors)

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> tuple[Array, Array]:
    return params["user"], params["item"]

  score = staticmethod(dot_product_scores)

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: Any, users: NewUsers
  ) -> Array:
    """[B, I] float32: their factors are solved once for the items as they are."""
    count = len(users.liked)
    graded = self.settings.relevance == "graded"
    relevance = (new_relevance_rows if graded else liked_rows)(users, num_items=self.num_items)
    relevance = np.asarray(relevance)
    row, item = np.nonzero(relevance)
    buckets = self._buckets(
      row, item, relevance[row, item] if graded else None, num_rows=count, num_others=self.num_items
    )
    factors = self._solve(buckets, params["item"], num_rows=count)
    return dot_product_scores((factors, params["item"]), jnp.arange(count))

  def _buckets(
    self,
    row: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray | None,
    *,
    num_rows: int,
    num_others: int,
  ) -> tuple[Bucket, ...]:
    """Rows by the next power of two of their number of pairs; of the longest, by its own.

    Args:
      row, other: [P] int, the observed pairs, each once. weight: [P] float32, None for 1 each.
      num_rows, num_others: of the sides.
    """
    order = np.lexsort((other, row))
    row, other = row[order], other[order].astype(np.int32)
    weight = None if weight is None else weight[order]
    counts = np.bincount(row, minlength=num_rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.minimum(
      2 ** np.ceil(np.log2(np.maximum(counts, _SHORTEST))).astype(np.int64), counts.max(initial=1)
    )
    buckets = []
    for length in np.unique(padded[counts > 0]).tolist():
      inside = (padded == length) & (counts > 0)
      chosen = np.flatnonzero(inside)
      # A chunk holds gathered factors and normal matrices: [B, L, D] and [B, D, D].
      fitting = _CHUNK_FLOATS // (self.settings.width * max(length, self.settings.width))
      chunks = -(-len(chosen) // max(1, fitting))
      batch = -(-len(chosen) // chunks)
      rows = np.full(chunks * batch, num_rows, np.int32)
      rows[: len(chosen)] = chosen
      lists = np.full((chunks * batch, length), num_others, np.int32)
      pairs = inside[row]
      cells = np.searchsorted(chosen, row[pairs]), place[pairs]
      lists[cells] = other[pairs]
      weights = None
      if weight is not None:
        weights = np.zeros(lists.shape, np.float32)
        weights[cells] = weight[pairs]
        weights = weights.reshape(chunks, batch, length)
      buckets.append(
        Bucket(rows.reshape(chunks, batch), lists.reshape(chunks, batch, length), weights)
      )
    return tuple(buckets)

  def _solve(self, buckets: tuple[Bucket, ...], others: Array, *, num_rows: int) -> Array:
    """[num_rows, D] float32: one side where the loss is least for the other, [N, D], as it is."""
    settings = self.settings
    num_others, width = others.shape
    of_all = settings.unobserved_weight * jnp.matmul(others.T, others, precision=_EXACT)

    def solve_chunk(table: Array, chunk: tuple[Array, Array | None]) -> Array:
      lists, weights = chunk
      # Padding gathers row N, a factor of 0, which adds nothing to any sum.
      factors = table[lists]
      weighted = factors if weights is None else factors * weights[..., None]
      counts = (lists < num_others).sum(axis=-1) if weights is None else weights.sum(axis=-1)
      l2 = settings.l2 * (counts + settings.unobserved_weight * num_others) ** settings.l2_power
      normal = jnp.einsum("bld,ble->bde", weighted, factors, precision=_EXACT)
      normal = normal + of_all + l2[:, None, None] * jnp.eye(width)
      lower = jax.lax.linalg.cholesky(normal, symmetrize_input=False)
      right = weighted.sum(axis=1)[..., None]
      return jax.scipy.linalg.cho_solve((lower, True), right)[..., 0]

    # Buckets stand in a chain, each reading the table that the one before it has written to: two
    # batched LAPACK calls that XLA runs side by side on a CPU can wait for each other for ever.
    table = jnp.concatenate([others, jnp.zeros((num_rows + 1, width))])
    for rows, lists, weights in buckets:
      solved = jax.lax.map(functools.partial(solve_chunk, table), (lists, weights))
      table = table.at[num_others + 1 + rows].set(solved, mode="drop")
    return table[num_others + 1 :]
