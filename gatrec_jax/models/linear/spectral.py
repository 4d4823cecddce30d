"""Ridge regression of every item on all the others, for catalogs whose I × I matrix is too large.

EASE (Steck 2019) needs the inverse of a Gram matrix. With features Y (a user a row, each column
divided by the root of its penalty) and the eigenvalues w and eigenvectors V of YᵀY,

  (1 + YᵀY)⁻¹ = 1 − V f(w) Vᵀ,  f(w) = w ÷ (1 + w).

The leading eigenvalues are taken as they are. On the others, which are at most w_r, f is close to
the line a · w with a = 1 ÷ (1 + w_r), so that together they are a · (YᵀY − V w Vᵀ): a multiple of
what the leading ones leave of the co-occurrences. Of that rest each item keeps its largest entries.
A low-pass filter beside item-to-item neighbors is also the form of GF-CF (Shen et al. 2021) and of
BSPM (Choi et al. 2023); here both terms follow from the ridge regression. The eigenvectors come
from randomized subspace iteration (Halko, Martinsson and Tropp 2011).

Where few items have nearly all ratings, the line is far from f on eigenvalues that matter. The
weights of these items among themselves, the head, are then the exact solution for them alone, again
in two terms: its leading singular vectors, and the largest entries of what these leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from gatrec_jax.models.linear.in_place import CHUNK_VALUES, ridge_weights_in_place

if TYPE_CHECKING:
  import scipy.sparse

Array = np.ndarray | jax.Array
# Rows of what the leading eigenvectors leave of the weights: of some items, [m, C, I] float32.
Rest = Callable[[slice], np.ndarray]

OVERSAMPLING = 16
POWER_ITERATIONS = 2
# Eigenvalues below this share of the largest are rounding error.
_LEAST_SHARE = 1e-6


class SpectralWeights(NamedTuple):
  """Weights of m relations (histories of the same users) for I items, in two terms.

  The weight of item i in relation s for item j is ⟨left_si, right_j⟩, plus values_sin if j is the
  n-th neighbor of i.

  Attributes:
    left: [m, I, R] float32. right: [I, R] float32.
    neighbors: [I, K] int32, distinct. values: [m, I, K] float32.
    tail: [] float32, the largest error of f on the eigenvalues that were not taken, at most 1.
    dropped: [] float32, share of the squared entries of the rest that are no neighbors.
  """

  left: Array
  right: Array
  neighbors: Array
  values: Array
  tail: Array
  dropped: Array


def spectral_weights(
  relations: Sequence[scipy.sparse.csr_array],
  penalties: Sequence[float],
  *,
  rank: int,
  neighbors: int,
  head: np.ndarray | None = None,
  seed: int = 0,
) -> SpectralWeights:
  """The weights of EASE, or of EASE with several relations, in two terms.

  They minimize ‖Z_0 − Σ_s Z_s W_s‖² + Σ_s penalty_s ‖W_s‖² with diag(W_s) = 0, up to the error that
  they state. With as many eigenvectors as there are users or features they are the exact solution.

  Args:
    relations: Z, m matrices [U, I] float32; the first one is predicted.
    penalties: m numbers > 0.
    rank: R, at least 1; more than there are users or features count as so many.
    neighbors: K, from 0 to I − 1.
    head: [H] int, items whose weights for each other are exact up to `dropped`; None for none. With
      a head, R is the number of its singular vectors, and a quarter of it that of eigenvectors.
    seed: of the random start.
  Returns: two terms of R numbers; with a head, of R + 2 ⌈R ÷ 4⌉ or fewer.
  """
  import scipy.sparse  # heavy, and only this form needs it

  count, (num_users, num_items) = len(relations), relations[0].shape
  roots = np.sqrt(np.float32(penalties))
  features = [one * np.float32(1 / root) for one, root in zip(relations, roots, strict=True)]
  has_head = head is not None and len(head)
  values, vectors = leading_eigenpairs(
    scipy.sparse.hstack(features, format="csr"), rank=-(-rank // 4) if has_head else rank, seed=seed
  )
  is_whole = len(values) == min(num_users, count * num_items)
  largest_left = 0.0 if is_whole else float(values[-1])
  slope = 0.0 if is_whole else 1 / (1 + largest_left)
  parts = vectors.reshape(count, num_items, -1)
  filtered = values / (1 + values)
  scale = np.sqrt(penalties[0]) * _constraints(features, parts, filtered - slope * values, slope)
  right = sum(part * one[:, None] for part, one in zip(parts, scale, strict=True))
  rest = None if is_whole else rest_of_gram(features, parts * values, right, scale, slope / roots)
  left = parts * filtered / roots[:, None, None]
  if has_head:
    exact = ridge_weights_in_place([one[:, head] for one in relations], penalties)
    own = _leading_singular(exact, rank=rank, seed=seed)
    left, right = _beside_head(left, right, *own, head)
    rest = rest and _with_exact_rest(rest, exact, *own, head)
  nearest, kept, dropped = largest_entries(rest, neighbors, shape=(count, num_items))
  # f(w) − a w, with a = 1 ÷ (1 + w_r), is largest at 1 + w = √(1 + w_r).
  tail = (np.sqrt(1 + largest_left) - 1) ** 2 / (1 + largest_left)
  return SpectralWeights(
    left.astype(np.float32),
    right.astype(np.float32),
    nearest,
    kept,
    np.float32(tail),
    np.float32(dropped),
  )


def leading_eigenpairs(
  features: scipy.sparse.csr_array, *, rank: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """The largest eigenvalues of YᵀY and their eigenvectors.

  Args: features: Y [U, F] float32. rank: R; at most min(U, F) are returned. seed: of the start.
  Returns: [R] float32, falling, and [F, R] float32.
  """
  import scipy.linalg

  transposed = features.T.tocsr()
  rank = min(rank, *features.shape)
  width = min(rank + OVERSAMPLING, *features.shape)
  basis = np.random.default_rng(seed).standard_normal((features.shape[1], width), np.float32)
  for _ in range(POWER_ITERATIONS + 1):
    basis = _product(transposed, _product(features, basis))
    basis = scipy.linalg.qr(basis, mode="economic", overwrite_a=True, check_finite=False)[0]
  projected = _product(features, basis).astype(np.float64)
  values, rotation = np.linalg.eigh(projected.T @ projected)
  values, rotation = values[::-1][:rank], rotation[:, ::-1][:, :rank]
  values = np.where(values > _LEAST_SHARE * values[0], values, 0.0)
  return values.astype(np.float32), basis @ rotation.astype(np.float32)


def _leading_singular(
  matrices: np.ndarray, *, rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Two terms [m, H, R] and [H, R] whose products are near m matrices [m, H, H], stacked."""
  import scipy.linalg

  count, size = matrices.shape[:2]
  stacked = matrices.reshape(count * size, size)
  rank = min(rank, size)
  width = min(rank + OVERSAMPLING, size)
  basis = np.random.default_rng(seed).standard_normal((size, width), np.float32)
  for _ in range(POWER_ITERATIONS + 1):
    basis = stacked.T @ (stacked @ basis)
    basis = scipy.linalg.qr(basis, mode="economic", overwrite_a=True, check_finite=False)[0]
  left, values, rotation = np.linalg.svd(stacked @ basis, full_matrices=False)
  left = (left[:, :rank] * values[:rank]).reshape(count, size, rank)
  return left, basis @ rotation[:rank].T


def _beside_head(
  left: np.ndarray,
  right: np.ndarray,
  head_left: np.ndarray,
  head_right: np.ndarray,
  head: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Both terms of all items: those of the head between its items, elsewhere those of the others."""
  count, num_items, width = left.shape
  rank = head_right.shape[1]
  in_head = np.isin(np.arange(num_items), head)[:, None]
  all_left = np.zeros((count, num_items, rank + 2 * width), np.float32)
  all_right = np.zeros((num_items, rank + 2 * width), np.float32)
  all_left[:, head, :rank], all_right[head, :rank] = head_left, head_right
  first, second = slice(rank, rank + width), slice(rank + width, None)
  all_left[:, :, first], all_right[:, first] = np.where(in_head, 0, left), right
  all_left[:, :, second] = np.where(in_head, left, 0)
  all_right[:, second] = np.where(in_head, 0, right)
  return all_left, all_right


def _with_exact_rest(
  rest: Rest, exact: np.ndarray, left: np.ndarray, right: np.ndarray, head: np.ndarray
) -> Rest:
  """The rows of `rest`, with what singular vectors leave of the exact weights within the head."""
  place = np.argsort(head)
  ordered = head[place]

  def rows_of(items: slice) -> np.ndarray:
    rows = rest(items)
    start, stop = np.searchsorted(ordered, (items.start, items.stop))
    own = place[start:stop]
    for one, of_exact, of_left in zip(rows, exact, left, strict=True):
      one[np.ix_(head[own] - items.start, head)] = of_exact[own] - of_left[own] @ right.T
    return rows

  return rows_of


def _product(left: scipy.sparse.csr_array, right: np.ndarray) -> np.ndarray:
  """left @ right [N, R] float32, its columns divided among the cores: SciPy uses one."""
  parts = np.array_split(right, min(os.cpu_count() or 1, right.shape[1]), axis=1)
  with ThreadPoolExecutor(len(parts)) as cores:
    products = cores.map(lambda part: left @ np.ascontiguousarray(part), parts)
    return np.concatenate(list(products), axis=1)


def _constraints(
  features: Sequence[scipy.sparse.csr_array],
  parts: np.ndarray,
  beyond_line: np.ndarray,
  slope: float,
) -> np.ndarray:
  """[m, I] float64: for each item the first column of the inverse of its own block of (1 + YᵀY)⁻¹.

  These are the multipliers of diag(W_s) = 0. Args: beyond_line: [R], f(w) − a w.
  """
  count, num_items = parts.shape[:2]
  block = np.zeros((num_items, count, count))
  for first in range(count):
    for second in range(count):
      together = features[first].multiply(features[second]).sum(axis=0)
      low_rank = np.einsum("ir,ir,r->i", parts[first], parts[second], beyond_line)
      block[:, first, second] = (first == second) - slope * np.asarray(together) - low_rank
  wanted = np.broadcast_to(np.eye(count)[:, :1], (num_items, count, 1))
  return np.linalg.solve(block, wanted)[..., 0].T


def rest_of_gram(
  features: Sequence[scipy.sparse.csr_array],
  weighted: np.ndarray,
  right: np.ndarray,
  scale: np.ndarray,
  factors: np.ndarray,
) -> Rest:
  """Rows of the co-occurrences of relations without those of the leading eigenvectors.

  Args:
    features: m matrices [U, I]. weighted: [m, I, R], V w. right: [I, R].
    scale: [m, I], of the targets. factors: [m], of the relations.
  """
  targets = sum(one.multiply(row[None]) for one, row in zip(features, scale, strict=True)).tocsr()
  transposed = [one.T.tocsr() for one in features]

  def rows_of(items: slice) -> np.ndarray:
    rows = np.empty((len(features), items.stop - items.start, len(right)), np.float32)
    for out, one, part, factor in zip(rows, transposed, weighted, factors, strict=True):
      out[:] = factor * ((one[items] @ targets).toarray() - part[items] @ right.T)
    return rows

  return rows_of


def largest_entries(
  rest: Rest | None, neighbors: int, *, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, float]:
  """The columns with the largest entries of each row, over all relations, its own one excepted.

  Args: rest: None where nothing is left. shape: m and I.
  Returns: [I, K] int32; their entries [m, I, K] float32; the share of all squares left out.
  """
  count, num_items = shape
  nearest = np.tile(np.arange(neighbors, dtype=np.int32), (num_items, 1))
  kept = np.zeros((count, num_items, neighbors), np.float32)
  if rest is None:
    return nearest, kept, 0.0

  def take(items: slice) -> tuple[float, float]:
    """Of these rows the squares that are kept, and all of them."""
    rows = rest(items)
    size = np.square(rows).sum(axis=0)
    own = np.arange(items.start, items.stop)
    size[np.arange(len(own)), own] = 0
    total = float(size.sum())
    if not neighbors:
      return 0.0, total
    found = np.argpartition(size, num_items - neighbors, axis=1)[:, num_items - neighbors :]
    nearest[items] = np.sort(found, axis=1)
    kept[:, items] = np.take_along_axis(rows, nearest[None, items], axis=2)
    kept[:, items][:, nearest[items] == own[:, None]] = 0
    return float(np.take_along_axis(size, nearest[items], axis=1).sum()), total

  # A product of two sparse matrices takes most of the time, on one core.
  cores = os.cpu_count() or 1
  step = max(1, CHUNK_VALUES // (cores * count * num_items))
  chunks = [slice(one, min(one + step, num_items)) for one in range(0, num_items, step)]
  with ThreadPoolExecutor(cores) as threads:
    squares, total = np.sum(list(threads.map(take, chunks)), axis=0)
  return nearest, kept, float(1 - squares / total) if total else 0.0
