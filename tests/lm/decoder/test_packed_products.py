"""Products with packed matrices: every form of them, and their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.packed_matrices import IN, OUT, assert_close, inputs, matrix_of

from gatrec_jax.lm.decoder import packed_products
from gatrec_jax.lm.decoder.linear import FEW_ROWS, linear
from gatrec_jax.lm.folders.gguf_blocks import _READERS


@pytest.mark.parametrize("kind", _READERS)
@pytest.mark.parametrize("shape", [(1, IN), (3, IN), (2, 1, IN), (2, 40, IN), (0, IN)])
def test_linear_equals_that_of_the_values(kind, shape):
  matrix, values = matrix_of(kind)
  x = inputs(*shape)
  found = jax.jit(linear)(x, matrix)
  assert found.shape == (*shape[:-1], OUT) and found.dtype == x.dtype
  if found.size:
    assert_close(found, x.astype(np.float64) @ values.T.astype(np.float64))


@pytest.mark.parametrize("few", [False, True])
def test_tiles_with_a_rest(few, monkeypatch):
  # 72 outputs in tiles of 20, and a rest of 12.
  monkeypatch.setattr(packed_products, "_TILE", 20 * IN)
  monkeypatch.setattr(packed_products, "_FEW_TILE", 20 * IN)
  matrix, values = matrix_of("Q4_K")
  x, y = inputs(3, IN), inputs(3, OUT)
  assert_close(packed_products.tiled_product(x, matrix, few=few), x @ values.T)
  assert_close(packed_products.transposed_product(y, matrix), y @ values)


@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS + 1])
def test_the_gradient_of_the_inputs(rows):
  matrix, values = matrix_of("Q6_K")
  x, y = inputs(rows, IN), inputs(rows, OUT)
  found = jax.grad(lambda x: jnp.sum(linear(x, matrix) * y))(x)
  assert_close(found, y @ values)
  half = jax.grad(lambda x: jnp.sum(linear(x, matrix).astype(jnp.float32) * y))(
    x.astype("bfloat16")
  )
  assert half.dtype == jnp.bfloat16
