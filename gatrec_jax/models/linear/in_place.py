"""Ridge regression of every item on all the others, exact, in LAPACK's arrays on the host.

For one or two relations, (Zᵀ Z + penalties)⁻¹ is symmetric, so that only half of it is stored: for
two relations of I items, two I × I arrays in LAPACK's rectangular full packed format (Gustavson et
al. 2010), which hold the Gram matrix, its Cholesky factor and the inverse in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import scipy.sparse

# Values of dense histories and of blocks of a Gram matrix that are alive at a time: 64 MiB.
CHUNK_VALUES = 2**24
# One multiplication of a sparse product takes as long as so many of a dense one (two cores).
SPARSE_COST = 500
# Items of the largest matrices that SciPy's LAPACK is given: of one relation (it ends the process
# on 29,000 rows), and of two in packed format (it refuses 23,500 items).
LAPACK_ROWS, PACKED_ITEMS = 23_000, 20_000
_SWEPT = 2048  # rows that are eliminated at a time from larger ones
# Largest residual of the normal equations in float32, relative to their right side.
_LARGEST_RESIDUAL = 1e-3
_CHECKED_ITEMS = 8


def ridge_weights_in_place(
  relations: Sequence[scipy.sparse.csr_array], penalties: Sequence[float]
) -> np.ndarray:
  """The weights of `linear.dense.ridge_weights` from the histories themselves.

  One relation of more than `LAPACK_ROWS` items is inverted block by block, in twice as many
  operations.

  It works in float32, and a second time in float64 if the normal equations of some columns are not
  fulfilled within a thousandth.

  Args: relations: Z, one or two matrices [U, I] float32; the first one is predicted. penalties: as
    many numbers > 0.
  Returns: [m, I, I] float32, diagonals 0; NaN where the Gram matrix is not positive definite.
  """
  solve = _of_one if len(relations) == 1 else _of_two
  weights = solve(relations, penalties, np.float32)
  if not residual(weights, relations, penalties) <= _LARGEST_RESIDUAL:
    weights = solve(relations, penalties, np.float64).astype(np.float32)
  return weights


def residual(
  weights: np.ndarray, relations: Sequence[scipy.sparse.csr_array], penalties: Sequence[float]
) -> float:
  """How far some columns are from fulfilling the normal equations, the largest relative norm.

  Zᵀ(Z w − z_j) + penalties · w is 0 but for the entries whose weights have to be 0.
  """
  num_items = relations[0].shape[1]
  items = np.linspace(0, num_items - 1, min(_CHECKED_ITEMS, num_items)).astype(int)
  wanted = relations[0][:, items].toarray().astype(np.float64)
  error = sum(
    one @ own[:, items].astype(np.float64) for one, own in zip(relations, weights, strict=True)
  )
  error -= wanted
  squares = right = 0.0
  for one, own, penalty in zip(relations, weights, penalties, strict=True):
    gradient = one.T @ error + penalty * own[:, items]
    gradient[items, np.arange(len(items))] = 0
    squares = squares + np.square(gradient).sum(axis=0)
    right = right + np.square(one.T @ wanted).sum(axis=0)
  return float(np.sqrt(np.max(squares / np.maximum(right, 1e-30))))


def _of_one(
  relations: Sequence[scipy.sparse.csr_array], penalties: Sequence[float], dtype: type
) -> np.ndarray:
  num_items = relations[0].shape[1]
  matrix = np.zeros((num_items, num_items), dtype, order="F")
  _add_gram(matrix, relations[0], relations[0])
  np.einsum("ii->i", matrix)[:] += penalties[0]
  invert = _eliminate if num_items > LAPACK_ROWS else _invert_lower
  if not invert(matrix):
    return np.full((1, num_items, num_items), np.nan, dtype)
  scale = -1 / np.diagonal(matrix)
  matrix = matrix.T  # symmetric, and now by rows
  matrix *= scale
  np.fill_diagonal(matrix, 0)
  return matrix[None]


def _invert_lower(matrix: np.ndarray) -> bool:
  """Inverts a symmetric [I, I] in the order of Fortran by its Cholesky factor, in place.

  Returns: whether it was positive definite.
  """
  import scipy.linalg

  factorize, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
  _, failed = factorize(matrix, lower=1, clean=0, overwrite_a=1)
  if not failed:
    _, failed = invert(matrix, lower=1, overwrite_c=1)
  if failed:
    return False
  num_items = len(matrix)
  size = max(1, CHUNK_VALUES // num_items)
  for first in range(0, num_items, size):
    rows = slice(first, min(first + size, num_items))
    below = matrix[rows.stop :, rows]
    matrix[rows, rows.stop :] = below.T
    block = matrix[rows, rows]
    block[:] = np.tril(block) + np.tril(block, -1).T
  return True


def _eliminate(matrix: np.ndarray) -> bool:
  """The same by Gauss-Jordan elimination of blocks, which such a matrix needs no pivots for."""
  matrix = matrix.T  # by rows
  size = len(matrix)
  step = max(1, CHUNK_VALUES // size)
  for start in range(0, size, _SWEPT):
    block = slice(start, min(start + _SWEPT, size))
    pivot = matrix[block, block].astype(np.float64)
    try:
      np.linalg.cholesky(pivot)
    except np.linalg.LinAlgError:
      return False
    pivot = np.linalg.inv(pivot).astype(matrix.dtype)
    columns = matrix[:, block].copy()
    rows = pivot @ matrix[block]
    for first in range(0, size, step):
      part = slice(first, min(first + step, size))
      matrix[part] -= columns[part] @ rows
    matrix[:, block] = -columns @ pivot
    matrix[block] = rows
    matrix[block, block] = pivot
  return True


def _of_two(
  relations: Sequence[scipy.sparse.csr_array], penalties: Sequence[float], dtype: type
) -> np.ndarray:
  import scipy.linalg

  first, second = relations
  num_items = first.shape[1]
  packed = np.zeros((2 * num_items + 1, num_items), dtype, order="F")
  lower, upper, across = packed[1 : num_items + 1], packed[:num_items], packed[num_items + 1 :]
  _add_gram(across, second, first)
  for one, penalty, part, triangle in (
    (first, penalties[0], lower, np.tril),
    (second, penalties[1], upper, np.triu),
  ):
    _add_gram(part, one, one, kept=triangle)
    np.einsum("ii->i", part)[:] += penalty
  factorize, invert = scipy.linalg.get_lapack_funcs(("pftrf", "pftri"), (packed,))
  flat, failed = factorize(2 * num_items, packed.ravel("F"), uplo="L", overwrite_a=1)
  if not failed:
    flat, failed = invert(2 * num_items, flat, uplo="L", overwrite_a=1)
  if failed:
    return np.full((2, num_items, num_items), np.nan, dtype)
  packed = flat.reshape(packed.shape, order="F")
  lower, upper, across = packed[1 : num_items + 1], packed[:num_items], packed[num_items + 1 :]
  own, other = (np.einsum("ii->i", part).copy() for part in (lower, upper))
  mixed = np.einsum("ii->i", across).copy()
  determinant = own * other - mixed**2
  multipliers = other / determinant, -mixed / determinant
  weights = np.empty((2, num_items, num_items), dtype)
  size = max(1, CHUNK_VALUES // num_items)
  for start in range(0, num_items, size):
    rows = slice(start, min(start + size, num_items))
    for weight, parts in (
      (weights[0], (_rows_of(lower, rows, lower=True), across[:, rows].T)),
      (weights[1], (across[rows], _rows_of(upper, rows, lower=False))),
    ):
      weight[rows] = -sum(part * one for part, one in zip(parts, multipliers, strict=True))
  for weight in weights:
    np.fill_diagonal(weight, 0)
  return weights


def _rows_of(matrix: np.ndarray, rows: slice, *, lower: bool) -> np.ndarray:
  """Rows of a symmetric [I, I] of which one triangle is known."""
  out = np.empty((rows.stop - rows.start, len(matrix)), matrix.dtype)
  before, after = slice(0, rows.start), slice(rows.stop, None)
  known, mirrored = (before, after) if lower else (after, before)
  out[:, known] = matrix[rows, known]
  out[:, mirrored] = matrix[mirrored, rows].T
  block = matrix[rows, rows]
  out[:, rows] = (
    np.tril(block) + np.tril(block, -1).T if lower else np.triu(block) + np.triu(block, 1).T
  )
  return out


def _add_gram(
  out: np.ndarray,
  left: scipy.sparse.csr_array,
  right: scipy.sparse.csr_array,
  *,
  kept: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> None:
  """Adds leftᵀ right to `out` [I, I]. Args: kept: np.tril or np.triu, the part that is added."""
  num_users, num_items = left.shape
  sparse = float(np.diff(left.indptr).astype(np.float64) @ np.diff(right.indptr))
  columns = max(1, CHUNK_VALUES // num_items)
  transposed = right.T.tocsr()
  if SPARSE_COST * sparse < float(num_users) * num_items**2:
    for first in range(0, num_items, columns):
      part = slice(first, min(first + columns, num_items))
      block = (transposed[part] @ left).toarray().T  # [I, columns]
      out[:, part] += block if kept is None else kept(block, -first)
    return
  users = max(1, CHUNK_VALUES // num_items)
  for first in range(0, num_users, users):
    part = slice(first, min(first + users, num_users))
    rows = left[part].toarray(), right[part].toarray()
    block = rows[0].T @ (rows[0] if left is right else rows[1])
    out += block if kept is None else kept(block, 0)
