"""x Wᵀ for kernels stored [out, in], in the form that is fastest on each device."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.decoder.packed_products import packed_product

# Up to this many rows, a CPU is faster with the weights as the left factor, because then the small
# factor is the one that gets packed: 7 instead of 10 ms for 8 rows of a 4864 × 896 matrix on two
# cores. From about a hundred rows on, the order makes no difference. This form is used only for
# steps of one token per row: its rounding depends on the number of rows, whereas that of the plain
# form does not, so that a whole text gets the same logits whatever else is in the batch.
FEW_ROWS = 64


def linear(
  x: jax.Array, kernel: jax.Array | Packed, *, out_dtype: jnp.dtype | None = None
) -> jax.Array:
  """Computes x Wᵀ, accumulated in float32.

  Args:
    x: [..., in] float.
    kernel: [out, in] float, of the same dtype, or packed.
    out_dtype: of the result; None for that of `x`.
  Returns: [..., out].
  """
  rows = math.prod(x.shape[:-1])
  flat = x.reshape(rows, x.shape[-1])
  whole_texts = x.ndim > 2 and x.shape[-2] > 1
  if isinstance(kernel, Packed):
    product = packed_product(flat, kernel, 0 < rows <= FEW_ROWS and not whole_texts)
  elif rows == 0 or rows > FEW_ROWS or whole_texts:
    product = _plain(flat, kernel)
  else:
    few = _matrix_vector if rows == 1 else _weights_first
    product = jax.lax.platform_dependent(flat, kernel, cpu=few, default=_plain)
  product = product.astype(out_dtype or x.dtype)
  return product.reshape(*x.shape[:-1], kernel.shape[0])


def _plain(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.dot_general(flat, kernel, (((1,), (1,)), ((), ())), **_exact(flat))


def _matrix_vector(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  """A matrix–vector product, for which XLA has its own, bandwidth-bound kernel."""
  return jax.lax.dot_general(kernel, flat[0], (((1,), (0,)), ((), ())), **_exact(flat))[None]


def _weights_first(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  product = jax.lax.dot_general(kernel, flat, (((1,), (1,)), ((), ())), **_exact(flat))
  # Without the barrier, XLA swaps the factors back.
  return jax.lax.optimization_barrier(product).T


def _exact(x: jax.Array) -> dict[str, object]:
  """Keeps float32 products in float32; by default, GPUs and TPUs multiply in fewer bits."""
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return {"precision": precision, "preferred_element_type": jnp.float32}
