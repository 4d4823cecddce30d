"""Paths and defaults of all tests."""

import os
import pathlib
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tests import `helpers`
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that the tests start several times are compiled once a session.
_compiled = tempfile.TemporaryDirectory(prefix="gatrec-compiled-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most of the time goes into compiling; with little optimization it takes two thirds.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# With as many threads as cores in each process, they wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax  # noqa: E402  (reads these)


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
  """A module compiles as users do where it says `AS_USERS_DO = True`. Programs are dropped at its
  end: thousands of them in one process would exhaust its memory mappings."""
  little = jax.config.read("jax_disable_most_optimizations")
  if getattr(request.module, "AS_USERS_DO", False):
    jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", little)
  jax.clear_caches()
