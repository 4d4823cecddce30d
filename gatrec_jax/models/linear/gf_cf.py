"""GF-CF (Shen et al. 2021): a history, filtered by the graph of users and items, in closed form.

"How Powerful is Graph Convolution for Recommendation?" With R̃ = D_U^−½ R D_I^−½, whose leading
right singular vectors are V, a history r gets the scores (their section 4.2)

  r R̃ᵀ R̃ + α r D_I^−½ V Vᵀ D_I^½,

a linear filter and an ideal low-pass filter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.models import GfCfConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.baselines.item_item import exact_matmul
from gatrec_jax.models.inputs import histories
from gatrec_jax.models.linear.ridge import Relations, RidgeRecommender, Weights
from gatrec_jax.models.linear.spectral import (
  SpectralWeights,
  largest_entries,
  leading_eigenpairs,
  rest_of_gram,
)

if TYPE_CHECKING:
  import scipy.sparse

# Searches on validation parts of MovieLens 100K and of Amazon's office products found the best
# ranks at 6.9 % and 7.3 % of the smaller side; the paper has 256 for sides of 29,858 and more.
RANK_SHARE, PAPER_RANK = 0.07, 256


@dataclasses.dataclass(frozen=True)
class GfCfRecommender(RidgeRecommender):
  """Both filters as weights of items for items, which score as those of EASE do.

  An item's weight for itself orders nothing, as what a user has rated is not recommended. Params
  are {"weights": [1, I, I] float32}, or `SpectralWeights` for large catalogs, in which the linear
  filter, like the other one, is exact on the singular vectors, and beside them it keeps each item's
  largest weights.
  """

  settings: GfCfConfig

  @property
  def width(self) -> int:
    """The number of singular vectors."""
    smaller = min(self.num_users, self.num_items)
    rank = self.settings.rank or max(1, min(PAPER_RANK, round(RANK_SHARE * smaller)))
    return min(rank, smaller)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Relations:
    """The history, and degree^−½ of users and items, degrees being sums of its values."""
    graded = self.settings.relevance == "graded"
    rows = np.ones(len(train), bool) if graded else judged.liked
    user, item = train.user[rows], train.item[rows]
    values = (judged.relevance if graded else judged.liked)[rows].astype(np.float32)
    user_scale, item_scale = (
      _inverse_root(np.bincount(ends, weights=values, minlength=count))
      for ends, count in ((user, self.num_users), (item, self.num_items))
    )
    pairs = histories(user, item, num_users=self.num_users)
    none = np.zeros(0, np.int32)
    return Relations(pairs, values[None], user_scale, item_scale, 1 / item_scale, none)

  def weights(self, relations: Relations) -> Weights:
    """`fit` from the history alone; traceable."""
    items, width, shape = self.num_items, self.width, jax.ShapeDtypeStruct
    vectors = shape((items, width), jnp.float32)
    scale = relations.item_scale[:, None]
    if self.is_exact:
      kinds = shape((items, items), jnp.float32), vectors
      fit = partial(exact_filter, rank=width)
      weights, vectors = self._on_host(fit, kinds, relations)
      passed = exact_matmul(scale * vectors, (vectors / scale).T)
      return (weights + self.settings.low_pass_weight * passed)[None]
    neighbors = min(self.settings.neighbors, items - 1)
    kinds = SpectralWeights(
      left=shape((1, items, width), jnp.float32),
      right=vectors,
      neighbors=shape((items, neighbors), jnp.int32),
      values=shape((1, items, neighbors), jnp.float32),
      tail=shape((), jnp.float32),
      dropped=shape((), jnp.float32),
    )
    fit = partial(filter_in_two_terms, rank=width, neighbors=neighbors)
    weights = self._on_host(fit, kinds, relations)
    vectors = weights.right
    low_pass = self.settings.low_pass_weight * scale * vectors
    return weights._replace(
      left=jnp.concatenate([weights.left, low_pass[None]], axis=2),
      right=jnp.concatenate([vectors, vectors / scale], axis=1),
    )


def exact_filter(
  matrices: Sequence[scipy.sparse.csr_array], *, rank: int
) -> tuple[np.ndarray, np.ndarray]:
  """The linear filter R̃ᵀ R̃ [I, I] float32, and V [I, R] float32.

  Args: matrices: R̃ alone, [U, I] float32. rank: R, at most min(U, I).
  """
  (normalized,) = matrices
  return (normalized.T @ normalized).toarray(), _passed(normalized, rank)[1]


def filter_in_two_terms(
  matrices: Sequence[scipy.sparse.csr_array], *, rank: int, neighbors: int
) -> SpectralWeights:
  """The linear filter without I × I matrices: V w Vᵀ, w being the eigenvalues of R̃ᵀ R̃, and each
  item's largest entries of the rest.

  Args: neighbors: entries of each item. The others: as in `exact_filter`.
  Returns: `right` is V; `tail` is 0.
  """
  (normalized,) = matrices
  values, vectors = _passed(normalized, rank)
  left = (vectors * values)[None]
  one = np.ones((1, len(vectors)), np.float32)
  rest = rest_of_gram([normalized], left, vectors, one, np.ones(1, np.float32))
  nearest, kept, dropped = largest_entries(rest, neighbors, shape=one.shape)
  return SpectralWeights(left, vectors, nearest, kept, np.float32(0), np.float32(dropped))


def _passed(normalized: scipy.sparse.csr_array, rank: int) -> tuple[np.ndarray, np.ndarray]:
  """Eigenvalues and vectors [I, R], which are 0 where there are fewer than R above 0."""
  values, vectors = leading_eigenpairs(normalized, rank=rank)
  return values, vectors * (values > 0)


def _inverse_root(degree: np.ndarray) -> np.ndarray:
  """[N] float32, degree^−½; 1 without any."""
  return np.where(degree > 0, degree, 1.0).astype(np.float32) ** np.float32(-0.5)
