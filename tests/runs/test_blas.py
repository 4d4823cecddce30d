"""SciPy's BLAS gets one thread and then its own number again."""

import ctypes

import numpy as np
import pytest
import scipy.linalg

from gatrec_jax.runs.blas import one_blas_thread


@pytest.fixture
def library():
  library = ctypes.CDLL(scipy.linalg.cython_blas.__file__)
  if not hasattr(library, "scipy_openblas_set_num_threads"):
    pytest.skip("SciPy was built with another library than OpenBLAS")
  before = library.scipy_openblas_get_num_threads()
  library.scipy_openblas_set_num_threads(2)
  yield library
  library.scipy_openblas_set_num_threads(before)


def test_one_thread_within_and_as_before_afterwards(library):
  with one_blas_thread():
    assert library.scipy_openblas_get_num_threads() == 1
    q, _ = scipy.linalg.qr(np.eye(3) + 1)
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-12)
  assert library.scipy_openblas_get_num_threads() == 2


def test_as_before_after_an_error(library):
  with pytest.raises(ValueError, match="planted"), one_blas_thread():
    raise ValueError("planted")
  assert library.scipy_openblas_get_num_threads() == 2
