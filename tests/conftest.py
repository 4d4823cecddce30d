"""Paths, environment and order of all tests."""

import gc
import importlib.metadata
import os
import pathlib
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tests import `helpers`
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that several tests start are compiled once per session.
_session = tempfile.TemporaryDirectory(prefix="gatrec-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(_session.name, "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most of the time is compilation, which takes two thirds with little optimization.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's newer fusion compiles half as fast, and dividing a program among threads takes a tenth more
# of their time. Other versions of XLA end the process at a flag that they do not know.
# `XLA_FLAGS= bash launch/test.sh` tests with what users have.
if importlib.metadata.version("jaxlib").startswith("0.10."):
  os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
  )
# With as many threads as cores in each process, they would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Where no byte code is kept, every program that tests start would compile all its imports again,
# which takes longer than to run it.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
  sys.dont_write_bytecode = False
  sys.pycache_prefix = str(pathlib.Path(_session.name) / "bytecode")
  os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

import jax  # noqa: E402  (reads the environment when imported)

# The longest files, which run first so that parallel processes finish at about the same time.
LONGEST = (
  "test_readme.py",
  "launch/test_rerank_program.py",
  "experiment/test_train_and_evaluate.py",
  "launch/test_programs.py",
  "lm/inference/test_generate.py",
  "launch/test_own_data.py",
  "launch/test_resume.py",
  "explain/test_rescoring.py",
  "train/test_sharded.py",
  "launch/test_processes.py",
  "train/test_sweep.py",
  "serve/test_new_ratings.py",
  "stages/test_written_profiles.py",
  "launch/test_write_profiles_program.py",
  "launch/test_soak.py",
  "sharding/test_mesh.py",
)


def pytest_collection_modifyitems(items):
  places = {name: place for place, name in enumerate(LONGEST)}
  tests = pathlib.Path(__file__).parent

  def place(item):
    return places.get(item.path.relative_to(tests).as_posix(), len(places))

  items.sort(key=place)  # stable: all other files keep their order


def pytest_collection_finish():
  """Keeps the garbage collector from searching all imported modules while JAX traces."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
  """Compiles with full optimization in modules with `AS_USERS_DO = True` (`XLA_FLAGS` stay).

  Compiled programs are dropped after each module, since thousands of them in one process would
  exhaust its memory mappings.
  """
  little = jax.config.read("jax_disable_most_optimizations")
  if getattr(request.module, "AS_USERS_DO", False):
    jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", little)
  jax.clear_caches()
