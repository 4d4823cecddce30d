"""What tests share: running the real programs, small catalogs."""

import contextlib
import importlib
import io
import logging
import os
import pathlib
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
from helpers.paths import ROOT

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.interactions import Interactions


def launch(program, *flags, cwd, check=None, env=None):
  """Runs `python -m launch.PROGRAM`; asserts the exit code where `check` is given."""
  done = subprocess.run(
    [sys.executable, "-m", f"launch.{program}", *flags],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=environment(cwd) | (env or {}),
    timeout=300,
  )
  if check is not None:
    assert done.returncode == check, done.stdout + done.stderr
  return done


def call(program, *flags, cwd, check=None, env=None):
  """What `launch` gives, from within this process: for refusals, of which there are many.

  The flags go through the program's own `common.run`, which turns errors into one line and an exit
  code; what is saved is the import of JAX and what this process has compiled before. An error that
  the program would let through is raised. A refusal of each program is seen by `launch` as well.
  """
  from launch.cli import flags as common

  out, err, code = io.StringIO(), io.StringIO(), 0
  absl_level, formatwarning = logging.getLogger("absl").level, warnings.formatwarning
  with (
    mock.patch.dict(os.environ, environment(cwd) | (env or {})),
    contextlib.chdir(cwd),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    _no_flags(common),
  ):
    # Imported anew, since it is the import that defines a program's flags.
    sys.modules.pop(f"launch.{program}", None)
    module = importlib.import_module(f"launch.{program}")
    try:
      common.run(module.main, module.__doc__, [program, *flags])
    except SystemExit as stop:
      code = stop.code
    finally:  # what `run` sets for a whole process
      logging.captureWarnings(False)
      logging.getLogger("absl").setLevel(absl_level)
      warnings.formatwarning = formatwarning
  assert check in (None, code), out.getvalue() + err.getvalue()
  return subprocess.CompletedProcess(flags, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _no_flags(common):
  """No program's flags before and after: absl has one set of them for a process."""

  def forget():
    for name in [name for name in common.FLAGS if name in common._TABLE]:
      delattr(common.FLAGS, name)
    common.FLAGS.unparse_flags()

  forget()
  try:
    yield
  finally:
    forget()


def environment(cwd):
  """The caller's environment with this tree importable and the cache inside `cwd`.

  Programs compile with little optimization, in half the time: what is looked at here is what they
  read, write, say and keep.
  """
  return os.environ | {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": str(ROOT),
    "GATREC_CACHE": str(pathlib.Path(cwd) / "cache"),
    "JAX_PLATFORMS": "cpu",
  }


def quick_config(**fields):
  """The tiny preset on `demo` without a neural encoder, a few epochs."""
  return with_fields(
    get_preset("tiny"),
    {"encoder": "lexical", "epochs": 6, "evaluate_every": 2, "bootstrap": 50, **fields},
  )


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


def toy_ratings(num_users=12, num_items=9):
  """Half of all pairs, with ratings from 1 to 5."""
  rng = np.random.default_rng(0)
  user, item = np.nonzero(rng.random((num_users, num_items)) < 0.5)
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    rng.integers(1, 6, len(user)).astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(num_users))),
    tuple(map(str, range(num_items))),
  )
