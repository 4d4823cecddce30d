"""The kernel of packed products, interpreted, and lowered for GPUs."""

import jax
import numpy as np
import pytest
from helpers.packed_matrices import IN, assert_close, inputs, matrix_of

from gatrec_jax.lm.decoder import packed_kernel
from gatrec_jax.lm.decoder.linear import linear
from gatrec_jax.lm.decoder.packed_kernel import MOST_ROWS, has_kernel, kernel_product
from gatrec_jax.lm.folders.gguf_blocks import _READERS


@pytest.mark.parametrize("kind", _READERS)
def test_products_equal_those_of_the_values(kind):
  matrix, values = matrix_of(kind, out=96)
  x = inputs(2, IN)
  assert_close(kernel_product(x, matrix, interpret=True), x @ values.T)


@pytest.mark.parametrize("programs", [1, 6, 1000])
def test_any_number_of_shares(programs, monkeypatch):
  # 96 outputs are three tiles, 512 inputs sixteen blocks: in one, two or sixteen shares.
  monkeypatch.setattr(packed_kernel, "_PROGRAMS", programs)
  matrix, values = matrix_of("Q6_K", out=96)
  x = inputs(MOST_ROWS, IN)
  assert_close(kernel_product(x, matrix, interpret=True), x @ values.T)


def test_where_there_is_a_kernel():
  matrix = matrix_of("Q4_0", out=96)[0]
  assert has_kernel(1, matrix) and has_kernel(MOST_ROWS, matrix)
  assert not has_kernel(0, matrix) and not has_kernel(MOST_ROWS + 1, matrix)
  assert not has_kernel(1, matrix_of("Q4_0", out=72)[0])  # tiles of eight


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q8_0"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_products_lower_for_devices(kind, rows):
  matrix = matrix_of(kind, out=96)[0]
  x = jax.ShapeDtypeStruct((rows, IN), np.float32)
  for platform, kernel in (("cuda", rows <= MOST_ROWS), ("tpu", False)):
    lowered = jax.jit(linear).trace(x, matrix).lower(lowering_platforms=(platform,))
    assert ("packed_product" in lowered.as_text()) == kernel
