"""x Wᵀ with W as it lies in Hugging Face files, [out, in], in the form that a device likes best."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# Up to so many rows a CPU is faster with the weights as the left factor: then the small factor is
# the one that gets packed. 8 rows of a 4864 × 896 matrix on two cores: 7 against 10 ms; from about
# a hundred rows on the order makes no difference. Only for steps of one token a row: the rounding
# of that form depends on the number of rows, that of the plain one does not, so that a text read
# whole gives the same numbers whatever stands beside it.
FEW_ROWS = 64


def linear(x: jax.Array, kernel: jax.Array, *, out_dtype: jnp.dtype | None = None) -> jax.Array:
  """x Wᵀ, summed in float32.

  Args:
    x: [..., in] float.
    kernel: [out, in] float, of the same dtype.
    out_dtype: of the result; None for that of `x`.
  Returns: [..., out].
  """
  rows = math.prod(x.shape[:-1])
  flat = x.reshape(rows, x.shape[-1])
  whole_texts = x.ndim > 2 and x.shape[-2] > 1
  if rows == 0 or rows > FEW_ROWS or whole_texts:
    product = _plain(flat, kernel)
  else:
    few = _matrix_vector if rows == 1 else _weights_first
    product = jax.lax.platform_dependent(flat, kernel, cpu=few, default=_plain)
  product = product.astype(out_dtype or x.dtype)
  return product.reshape(*x.shape[:-1], kernel.shape[0])


def _plain(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.dot_general(flat, kernel, (((1,), (1,)), ((), ())), **_exact(flat))


def _matrix_vector(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  """A true matrix–vector product, which XLA gives its own, bandwidth-bound kernel."""
  return jax.lax.dot_general(kernel, flat[0], (((1,), (0,)), ((), ())), **_exact(flat))[None]


def _weights_first(flat: jax.Array, kernel: jax.Array) -> jax.Array:
  product = jax.lax.dot_general(kernel, flat, (((1,), (1,)), ((), ())), **_exact(flat))
  # Without the barrier XLA turns the product round again.
  return jax.lax.optimization_barrier(product).T


def _exact(x: jax.Array) -> dict[str, object]:
  """float32 means float32: without this, GPUs and TPUs would multiply in fewer bits."""
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return {"precision": precision, "preferred_element_type": jnp.float32}
