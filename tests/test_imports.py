"""What importing the library loads, and that every public name is there."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from helpers.paths import ROOT

import gatrec_jax
from gatrec_jax import evaluate, lm, models, ops, rerank, serve, train

# Each costs a share of jax's own time, and is needed by a part of the programs only.
LATER = {
  "huggingface_hub",
  "jinja2",
  "matplotlib",
  "ml_collections",
  "orbax",
  "pandas",
  "pooch",
  "pyarrow",
  "rich",
  "safetensors",
  "scipy",
  "tensorboardX",
  "tensorstore",
  "tokenizers",
  "torch",
  "transformers",
  "gatrec_jax.lm",
  "gatrec_jax.profiles.writer",
  "gatrec_jax.rerank",
}


def modules_after(code):
  """The names of all modules that a fresh process holds after `code`."""
  done = subprocess.run(
    [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
    capture_output=True,
    text=True,
    cwd=ROOT,
    check=True,
    timeout=120,
  )
  return set(json.loads(done.stdout.splitlines()[-1]))


def test_heavy_modules_are_imported_where_they_are_used():
  loaded = modules_after("import gatrec_jax")
  assert "gatrec_jax.experiment.train_and_evaluate" in loaded
  if heavy := loaded & LATER:  # what jax, flax and optax load themselves is not ours to spare
    assert heavy <= modules_after("import jax, flax, optax")


PACKAGES = [gatrec_jax, evaluate, lm, models, ops, rerank, serve, train]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda one: one.__name__)
def test_every_public_name_is_there(package):
  assert len(set(package.__all__)) == len(package.__all__)
  assert not [name for name in package.__all__ if not hasattr(package, name)]
  names = {}
  exec(f"from {package.__name__} import *", names)
  assert set(package.__all__) <= set(names)


def test_the_namespaces_and_the_version_are_attributes():
  for name in ("ops", "models", "train", "evaluate", "serve"):
    assert name in gatrec_jax.__all__
    assert getattr(gatrec_jax, name).__name__ == f"gatrec_jax.{name}"
  assert gatrec_jax.ops.attention.__name__ == "gatrec_jax.ops.attention"
  try:
    installed = importlib.metadata.version("gatrec_jax")
  except importlib.metadata.PackageNotFoundError:
    installed = "0+unknown"
  assert gatrec_jax.__version__ == installed
