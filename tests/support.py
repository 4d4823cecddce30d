"""What tests share: running the real programs, small catalogues."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from gatrec_jax.config import with_fields
from gatrec_jax.presets import get_preset

ROOT = pathlib.Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def launch(program, *flags, cwd, check=None, env=None):
  """Runs `python -m launch.PROGRAM`; asserts the exit code where `check` is given."""
  done = subprocess.run(
    [sys.executable, "-m", f"launch.{program}", *flags], capture_output=True, text=True, cwd=cwd,
    env=environment(cwd) | (env or {}), timeout=300,
  )
  if check is not None:
    assert done.returncode == check, done.stdout + done.stderr
  return done


def environment(cwd):
  """The caller's environment with this tree importable and the cache inside `cwd`."""
  return os.environ | {
    "PYTHONPATH": str(ROOT), "GATREC_CACHE": str(pathlib.Path(cwd) / "cache"),
    "JAX_PLATFORMS": "cpu",
  }


def quick_config(**fields):
  """The tiny preset on `demo` without a neural encoder, a few epochs."""
  return with_fields(get_preset("tiny"), {
    "encoder": "lexical", "epochs": 6, "evaluate_every": 2, "bootstrap": 50, **fields
  })


def error_line(done):
  """The one line that a failed program printed for its user."""
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1, done.stderr
  assert "Traceback" not in done.stderr
  return lines[0]


def arrays_equal(left, right):
  """Whether two lists of arrays are the same, byte for byte."""
  return len(left) == len(right) and all(
    np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(left, right, strict=True)
  )
