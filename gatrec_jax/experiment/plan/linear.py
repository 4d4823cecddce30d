"""The stage that fits the linear item-item channel, or EASE as a model."""

from __future__ import annotations

import os
from typing import NamedTuple

from gatrec_jax.config.models import EaseConfig, EaseRatedConfig
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Stage
from gatrec_jax.models.linear.in_place import CHUNK_VALUES, LAPACK_ROWS, SPARSE_COST
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.models.linear.scoring import ITEMS_PER_RATING
from gatrec_jax.models.linear.spectral import OVERSAMPLING, POWER_ITERATIONS

# Float32 arrays of `CHUNK_VALUES` that are alive at a time.
_CHUNKS_EXACT, CHUNKS_SPECTRAL = 2, 9
PRODUCTS = 2 * (POWER_ITERATIONS + 1) + 1  # sparse products in the search for eigenvectors
# Of exact weights, by the number of relations: what is inverted, the weights of the host (one
# relation is inverted in their place), and those of the device, which are scaled in place. Of the
# others: those of the host, of the device, and the scaled ones.
_COPIES_EXACT, _COPIES_SPECTRAL = {1: 2, 2: 3}, 3
# Times that a multiplication takes longer than where rates are measured: of matrices by dense ones
# that no cache holds, and of two sparse matrices.
_FROM_MEMORY, _SPARSE_BY_SPARSE = 4, 80
_SPREAD = 350 << 20  # what threads of the spectral fit allocate and keep
_SELECTED = 60  # bytes of memory traffic of each cell among which neighbors are selected


class Weights(NamedTuple):
  """Attributes: choice: the form in words. bytes: of the weights. score_flops: of one score."""

  choice: str
  bytes: float
  score_flops: float


def weights_of(settings: EaseConfig | EaseRatedConfig, sizes: Sizes) -> Weights:
  """The weights of EASE, exact or in two terms."""
  items, relations = sizes.items, 1 + isinstance(settings, EaseRatedConfig)
  if is_exact(settings, sizes):
    choice = f"exact: {relations} × {items:,} × {items:,} weights"
    # Users with short histories are scored by the weights of their ratings alone.
    columns = min(float(items), ITEMS_PER_RATING * sizes.train / max(sizes.users, 1))
    return Weights(choice, 4.0 * relations * items**2, 2.0 * relations * columns)
  rank, width, has_head = _model(settings, sizes).widths(sizes.head)
  neighbors = min(settings.neighbors, max(items - 1, 0))
  count = items * (width * (relations + 1) + neighbors * (relations + 1))
  choice = f"spectral: {rank} eigenvectors, {neighbors} neighbors"
  if has_head:
    choice += f", exact for {sizes.head:,} items"
  return Weights(choice, 4.0 * count, 2.0 * width)


def is_exact(settings: EaseConfig | EaseRatedConfig, sizes: Sizes) -> bool:
  """Whether the weights are exact, as the model decides."""
  return _model(settings, sizes).is_exact


def _model(settings: EaseConfig | EaseRatedConfig, sizes: Sizes) -> RidgeRecommender:
  return RidgeRecommender(settings, sizes.users, sizes.items)


def linear(
  settings: EaseConfig | EaseRatedConfig,
  sizes: Sizes,
  rates: Rates | None,
  *,
  name: str = "linear",
  chooses: bool = False,
) -> Stage:
  """Fitting the weights, which it leaves.

  Args: name: of the stage. chooses: whether weights with other powers are fitted too, and kept
    until validation has chosen.
  """
  weights = weights_of(settings, sizes)
  exact = is_exact(settings, sizes)
  peak, work, seconds = (_exact if exact else _spectral)(settings, sizes, weights.bytes, rates)
  rows = 12.0 * sizes.train
  spread = 0 if exact else _SPREAD
  left = rows + weights.bytes + spread
  if chooses:
    peak, work = peak + weights.bytes, 2 * work
    seconds = None if seconds is None else 2 * seconds
  return Stage(name, weights.choice, rows + peak + spread, left, work, "FLOPs", seconds)


def _exact(
  settings: EaseConfig | EaseRatedConfig, sizes: Sizes, weights: float, rates: Rates | None
) -> tuple[float, float, float | None]:
  """Bytes, FLOPs and seconds: a Gram matrix, its factor and its inverse in place."""
  items, relations = float(sizes.items), 1 + isinstance(settings, EaseRatedConfig)
  grams = 1 if relations == 1 else 3
  peak = (
    _COPIES_EXACT[relations] * weights
    + 4 * _CHUNKS_EXACT * CHUNK_VALUES
    + 16.0 * relations * sizes.train
  )
  solve = (1 + (items > LAPACK_ROWS)) * (relations * items) ** 3
  dense = 2.0 * grams * sizes.users * items**2
  is_sparse = SPARSE_COST * sizes.pairs < sizes.users * items**2
  work = solve + (2.0 * grams * sizes.pairs if is_sparse else dense)
  if rates is None:
    return peak, work, None
  gram = grams * SPARSE_COST * 2 * sizes.pairs if is_sparse else dense
  return peak, work, (solve + gram) / rates.flops


def _spectral(
  settings: EaseConfig | EaseRatedConfig, sizes: Sizes, weights: float, rates: Rates | None
) -> tuple[float, float, float | None]:
  """Bytes, FLOPs and seconds: eigenvectors by subspace iteration, and the nearest of the rest."""
  items, relations = float(sizes.items), 1 + isinstance(settings, EaseRatedConfig)
  rank, _, has_head = _model(settings, sizes).widths(sizes.head)
  if has_head:
    of_head = sizes._replace(items=sizes.head)
    of_exact, work_of_head, seconds_of_head = _exact(
      settings, of_head, 4.0 * relations * sizes.head**2, rates
    )
    rank = -(-rank // 4)
  else:
    of_exact, work_of_head, seconds_of_head = 0.0, 0.0, 0.0
  width = rank + OVERSAMPLING
  pairs = float(relations) * sizes.train
  tall = 4.0 * width * (relations * items + sizes.users)
  # The relations, side by side, turned, and the targets in float64.
  matrices = 8 * pairs * 4 + 12.0 * sizes.train
  chunks = 4.0 * CHUNKS_SPECTRAL * min(CHUNK_VALUES, relations * items**2)
  peak = max(
    matrices + 3 * tall,
    matrices + 2 * weights + 8 * items * rank + chunks,
    _COPIES_SPECTRAL * weights,
    matrices + of_exact,
  )
  products = 2.0 * PRODUCTS * pairs * width
  rest = 2.0 * relations * sizes.pairs
  dense = 2.0 * relations * items**2 * rank + 12 * relations * items * width**2
  work = products + rest + dense + work_of_head
  if rates is None:
    return peak, work, None
  cells = _SELECTED * relations * items**2
  multiplications = _FROM_MEMORY * products / 2 + _SPARSE_BY_SPARSE * rest / 2
  sparse = multiplications / (rates.sparse * (os.cpu_count() or 1))
  # Half of the dense work is in float64.
  seconds = sparse + 2 * dense / rates.flops + cells / rates.bandwidth
  return peak, work, seconds + seconds_of_head
