"""How many threads SciPy's linear algebra uses."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
  """SciPy's BLAS and LAPACK with one thread, for many calls on small arrays.

  OpenBLAS divides even those among its threads, which wait for one another: on a busy machine with
  two cores, a QR decomposition of [1000, 160] takes sixteen times as long with two threads. The
  number of threads holds for the whole process, JAX's decompositions on CPU included. Where SciPy
  was built with another library than OpenBLAS, nothing changes.
  """
  from scipy.linalg import cython_blas

  library = ctypes.CDLL(cython_blas.__file__)  # symbols of the libraries that it was linked with
  try:
    get, set_to = library.scipy_openblas_get_num_threads, library.scipy_openblas_set_num_threads
  except AttributeError:
    yield
    return
  before = get()
  set_to(1)
  try:
    yield
  finally:
    set_to(before)
