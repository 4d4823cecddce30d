"""EASE, and EASE with a second relation: ridge regression of every item on all the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.models import EaseConfig, EaseRatedConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.baselines.item_item import ItemItemRecommender, exact_matmul, gram_of_rows
from gatrec_jax.models.inputs import (
  Histories,
  Inputs,
  NewUsers,
  histories,
  liked_rows,
  new_relevance_rows,
)
from gatrec_jax.models.linear.dense import ridge_weights
from gatrec_jax.models.linear.in_place import PACKED_ITEMS, ridge_weights_in_place
from gatrec_jax.models.linear.scoring import (
  low_rank_and_neighbors,
  rows_of_histories,
  scores_in_two_terms,
  scores_of_histories,
  scores_of_rows,
)
from gatrec_jax.models.linear.spectral import SpectralWeights, spectral_weights

Array = jax.Array

# With more items, I × I matrices take too long to invert and to multiply by, or too much memory.
EXACT_ITEMS = 6000
# With no more users or features than this, all eigenvectors are taken, which is exact.
WHOLE_RANK = 2000
# The head of a large catalog has so much of the ratings, if so many items have.
HEAD_SHARE, HEAD_ITEMS = 0.95, 8000


class Relations(NamedTuple):
  """m histories of the same users over the same R pairs.

  Attributes:
    pairs: sorted by user, then by item.
    values: [m, R] float32, of the pairs in each history.
    user_scale: [U], item_scale: [I], float32: what values are multiplied by before a fit.
    score_scale: [I] float32, what an item's weights are multiplied by after it.
    head: [H] int32, the items with most ratings, whose weights for each other are exact in a large
      catalog; H = 0 for none.
  """

  pairs: Histories
  values: Array
  user_scale: Array
  item_scale: Array
  score_scale: Array
  head: Array


Weights = Array | SpectralWeights  # [m, I, I] float32, or in two terms
ServingState = tuple[Weights, Relations]


@dataclasses.dataclass(frozen=True)
class RidgeRecommender(ItemItemRecommender):
  """EASE (Steck 2019), and the same with a second relation.

  `ease`: min ‖X − X W‖² + l2 ‖W‖² with diag(W) = 0, where X is 1 for a positive, or the relevance
  of every rating (`settings.relevance`). `ease_rated` adds the history A of all ratings, which are
  1 each, likes included: min ‖X − X W − A V‖² + l2 ‖W‖² + rated_l2 ‖V‖² with
  diag(W) = diag(V) = 0. If every rating is a like of relevance 1, this is EASE with the penalty
  l2 · rated_l2 ÷ (l2 + rated_l2). Both histories are first multiplied by powers of the numbers of
  ratings, (ratings of the user)^−user_power · (of the item)^−item_power, and by what makes the mean
  of the squared factors 1. An item's scores are multiplied by (its ratings)^score_power: where the
  fit is of normalized values, this returns to it some of its popularity, as the outer factors of
  GF-CF do (Shen et al. 2021).

  Params are {"weights": [m, I, I] float32}, or `SpectralWeights` for large catalogs; they apply to
  histories that are not multiplied.
  """

  settings: EaseConfig | EaseRatedConfig

  @property
  def is_exact(self) -> bool:
    form = self.settings.form
    return form == "exact" or (form == "auto" and self.num_items <= EXACT_ITEMS)

  def widths(self, head: int) -> tuple[int, int, bool]:
    """Of the spectral form: eigenvectors (of the head, singular vectors), the width of both terms,
    and whether the head is exact. With all eigenvectors everything is.

    Args: head: H.
    """
    count = 1 + isinstance(self.settings, EaseRatedConfig)
    smaller = min(self.num_users, count * self.num_items)
    if smaller <= WHOLE_RANK:
      return smaller, smaller, False
    rank = self.settings.rank
    if not head:
      return rank, min(rank, smaller), False
    return rank, min(rank, head) + 2 * min(-(-rank // 4), smaller), True

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Relations:
    """The histories; of EASE with `relevance=binary`, the positives alone."""
    settings = self.settings
    graded = settings.relevance == "graded"
    second = isinstance(settings, EaseRatedConfig)
    rows = np.ones(len(train), bool) if graded or second else judged.liked
    user, item = train.user[rows], train.item[rows]
    first = (judged.relevance if graded else judged.liked)[rows].astype(np.float32)
    values = np.stack([first, np.ones_like(first)] if second else [first])
    user_scale = _powers(user, self.num_users, settings.user_power)
    item_scale = _powers(item, self.num_items, settings.item_power)
    mean = np.mean((user_scale[user] * item_scale[item]) ** 2, dtype=np.float64)
    pairs = histories(user, item, num_users=self.num_users)
    head = np.zeros(0, np.int32) if self.is_exact else head_of(item, self.num_items)
    return Relations(
      pairs,
      values,
      user_scale,
      item_scale / np.float32(np.sqrt(mean)),
      _powers(item, self.num_items, -settings.score_power),
      head,
    )

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Weights]:
    del key
    return {"weights": self.weights(inputs.own)}

  def weights(self, relations: Relations) -> Weights:
    """`fit` from the histories alone; traceable.

    Raises: InputError: an exact fit of two relations of more items than the host's LAPACK takes.
    """
    settings = self.settings
    penalties = [settings.l2]
    if isinstance(settings, EaseRatedConfig):
      penalties.append(settings.rated_l2)
      if self.is_exact and self.num_items > PACKED_ITEMS and jax.default_backend() == "cpu":
        raise InputError(
          f"takes up to {PACKED_ITEMS:,} items with two relations; use spectral",
          field="form",
          value=settings.form,
        )
    penalties = jnp.stack([jnp.float32(one) for one in penalties])
    return (self._exact if self.is_exact else self._spectral)(relations, penalties)

  def _exact(self, relations: Relations, penalties: Array) -> Array:
    weights = jax.lax.platform_dependent(
      relations, penalties, cpu=self._exact_on_host, default=self._exact_on_device
    )
    return weights * relations.item_scale[:, None] * relations.score_scale

  def _exact_on_host(self, relations: Relations, penalties: Array) -> Array:
    kind = jax.ShapeDtypeStruct((len(penalties), self.num_items, self.num_items), jnp.float32)
    return self._on_host(ridge_weights_in_place, kind, relations, penalties=penalties)

  def _exact_on_device(self, relations: Relations, penalties: Array) -> Array:
    pairs, scaled = relations.pairs, _scaled(relations)
    together = gram_of_rows(
      lambda users: jnp.concatenate(
        rows_of_histories(pairs, scaled, users, num_items=self.num_items), axis=1
      ),
      num_users=self.num_users,
      num_features=len(penalties) * self.num_items,
    )
    return ridge_weights(together, penalties)

  def _spectral(self, relations: Relations, penalties: Array) -> SpectralWeights:
    count, items = penalties.shape[0], self.num_items
    rank, width, has_head = self.widths(len(relations.head))
    head = relations.head if has_head else relations.head[:0]
    neighbors = min(self.settings.neighbors, items - 1)
    shape = jax.ShapeDtypeStruct
    kinds = SpectralWeights(
      left=shape((count, items, width), jnp.float32),
      right=shape((items, width), jnp.float32),
      neighbors=shape((items, neighbors), jnp.int32),
      values=shape((count, items, neighbors), jnp.float32),
      tail=shape((), jnp.float32),
      dropped=shape((), jnp.float32),
    )
    fit = partial(spectral_weights, rank=rank, neighbors=neighbors)
    weights = self._on_host(fit, kinds, relations, penalties=penalties, head=head)
    scale, of_score = relations.item_scale[:, None], relations.score_scale
    return weights._replace(
      left=weights.left * scale,
      right=weights.right * of_score[:, None],
      values=weights.values * scale * of_score[weights.neighbors],
    )

  def _on_host(
    self, fit: Callable[..., Any], kinds: Any, relations: Relations, **arrays: Array
  ) -> Any:
    """`fit` of SciPy's sparse matrices and arrays by name, as part of a traced function."""

    def call(item: Array, start: Array, values: Array, arrays: dict[str, Array]) -> Any:
      import scipy.sparse

      item, start = np.asarray(item), np.asarray(start)
      shape = len(start) - 1, self.num_items
      matrices = [scipy.sparse.csr_array((one, item, start), shape) for one in np.asarray(values)]
      return fit(matrices, **{name: np.asarray(array) for name, array in arrays.items()})

    pairs = relations.pairs
    return jax.pure_callback(
      call, kinds, pairs.item, pairs.start, _scaled(relations), arrays, vmap_method="sequential"
    )

  def serving_state(self, params: dict[str, Weights], inputs: Inputs) -> ServingState:
    """The weights and the histories."""
    return params["weights"], inputs.own

  @staticmethod
  def score(serving_state: ServingState, users: Array) -> Array:
    """[B, I] float32 for `users` [B] int32; a user without a history scores 0 everywhere."""
    weights, relations = serving_state
    if isinstance(weights, SpectralWeights):
      return scores_in_two_terms(weights, relations.pairs, relations.values, users)
    return scores_of_histories(weights, relations.pairs, relations.values, users)

  @staticmethod
  def vectors_of_users(serving_state: ServingState, users: Array) -> Array:
    """[B, W] float32: the histories, m · I wide, or both terms, R + I wide."""
    weights, relations = serving_state
    if isinstance(weights, SpectralWeights):
      both = low_rank_and_neighbors(weights, relations.pairs, relations.values, users)
      return jnp.concatenate(both, axis=1)
    pairs, values = relations.pairs, relations.values
    return jnp.concatenate(
      rows_of_histories(pairs, values, users, num_items=weights.shape[1]), axis=1
    )

  @staticmethod
  def vectors_of_items(serving_state: ServingState) -> Array:
    """[I, W] float32: the weights for each item, or those of the first term and the item itself."""
    weights, _ = serving_state
    if isinstance(weights, SpectralWeights):
      return jnp.concatenate([weights.right, jnp.eye(len(weights.right))], axis=1)
    return jnp.concatenate(weights).T

  @staticmethod
  def score_with_part(serving_state: ServingState, user: Array, part: Array) -> Array:
    """[B, I] float32 for a `user` [] int32 as if they had rated only the items in `part` [B, I]."""
    weights, relations = serving_state
    pairs, values = relations.pairs, relations.values
    rows = rows_of_histories(pairs, values, user[None], num_items=part.shape[1])
    return _scores(weights, [row * part for row in rows])

  def score_new(
    self, params: dict[str, Weights], inputs: Inputs, serving_state: ServingState, users: NewUsers
  ) -> Array:
    """[B, I] float32: the same model on what the new users like and dislike."""
    relevance = new_relevance_rows(users, num_items=self.num_items)
    graded = self.settings.relevance == "graded"
    rows = [relevance if graded else liked_rows(users, num_items=self.num_items)]
    if isinstance(self.settings, EaseRatedConfig):
      rows.append((relevance > 0).astype(jnp.float32))
    return _scores(serving_state[0], rows)


def head_of(item: np.ndarray, num_items: int) -> np.ndarray:
  """The fewest items with `HEAD_SHARE` of the ratings, sorted; none if they are too many.

  Args: item: [R] int, of each rating. Returns: [H] int32.
  """
  ratings = np.bincount(item, minlength=num_items)
  order = np.argsort(-ratings, kind="stable")
  count = 1 + int(np.searchsorted(np.cumsum(ratings[order]), HEAD_SHARE * ratings.sum()))
  return np.sort(order[:count]).astype(np.int32) if count <= HEAD_ITEMS else np.zeros(0, np.int32)


def _powers(ends: np.ndarray, count: int, power: float) -> np.ndarray:
  """[count] float32, (number of pairs)^−power; 1 without any."""
  pairs = np.bincount(ends, minlength=count)
  return np.float32(np.maximum(pairs, 1) ** -float(power))


def _scaled(relations: Relations) -> Array:
  """[m, R] float32, the values times the scales of their users and items."""
  lengths = jnp.diff(relations.pairs.start)
  of_pair = jnp.repeat(relations.user_scale, lengths, total_repeat_length=len(relations.pairs.item))
  return relations.values * of_pair * relations.item_scale[relations.pairs.item]


def _scores(weights: Weights, rows: list[Array]) -> Array:
  """[B, I] from m rows [B, I]."""
  if isinstance(weights, SpectralWeights):
    return scores_of_rows(weights, jnp.stack(rows))
  return sum(map(exact_matmul, rows, weights))
