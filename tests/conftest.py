"""Paths and defaults of all tests."""

import os
import pathlib
import sys
import tempfile

import pytest

# What tests share: support.py, and the small decoders of tests/lm for other rooms' tests.
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parent / "lm")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that the tests start several times are compiled once a session.
_compiled = tempfile.TemporaryDirectory(prefix="gatrec-compiled-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402  (reads these)


@pytest.fixture(autouse=True, scope="module")
def _fresh_programs():
  """Thousands of compiled programs in one process would exhaust its memory mappings."""
  yield
  jax.clear_caches()
