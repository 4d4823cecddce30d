"""Running the launch programs, and small configurations and catalogs."""

import contextlib
import io
import logging
import os
import pathlib
import runpy
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
from helpers.paths import ROOT

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.interactions import Interactions

# One light layer without dropout compiles in a third of the time of the preset's two. Programs that
# are trained with the same flags on the same data share what was compiled.
TINY = (
  "--preset=tiny",
  "--encoder=lexical",
  "--set=epochs=2",
  "--set=convolution=light",
  "--set=layers=1",
  "--set=feature_dropout=0",
  "--set=edge_dropout=0",
)


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
  """The same as `launch`, but within this process, without starting Python and importing JAX.

  The program runs as `__main__`, so its flags go through `launch.cli.run`, which turns errors into
  one line and an exit code. An error that the program would not catch is raised. One refusal of
  each program is tested by `launch` too.
  """
  out, err, code = io.StringIO(), io.StringIO(), 0
  absl_level, formatwarning = logging.getLogger("absl").level, warnings.formatwarning
  with (
    mock.patch.dict(os.environ, environment(cwd) | (env or {})),
    contextlib.chdir(cwd),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(sys, "argv", [program, *flags]),
    _no_flags(),
  ):
    sys.modules.pop(f"launch.{program}", None)  # `runpy` warns of modules that are imported already
    try:
      runpy.run_module(f"launch.{program}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
      code = stop.code
    finally:  # `run` sets these for the whole process
      logging.captureWarnings(False)
      logging.getLogger("absl").setLevel(absl_level)
      warnings.formatwarning = formatwarning
  assert check in (None, code), out.getvalue() + err.getvalue()
  return subprocess.CompletedProcess(flags, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _no_flags():
  """Removes the flags of other programs before and after; absl has one set of flags per process."""
  from launch.cli import flags

  def forget():
    for name in flags.defined():
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()

  forget()
  try:
    yield
  finally:
    forget()


def environment(cwd):
  """The caller's environment with this tree importable and the cache inside `cwd`.

  Programs compile with little optimization, in half the time, since tests check what they read,
  write, print and keep.
  """
  return os.environ | {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": str(ROOT),
    "GATREC_CACHE": str(pathlib.Path(cwd) / "cache"),
    "JAX_PLATFORMS": "cpu",
  }


def environment_of_devices(number=8):
  """An environment in which the CPU is so many devices; other flags of XLA stay."""
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
  tests = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": tests}


def quick_config(**fields):
  """The preset tiny on `demo` with the lexical encoder and a few epochs."""
  return with_fields(
    get_preset("tiny"),
    {"encoder": "lexical", "epochs": 6, "evaluate_every": 2, "bootstrap": 50, **fields},
  )


def error_line(done):
  """The single error line that a failed program printed."""
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1, done.stderr
  assert "Traceback" not in done.stderr
  return lines[0]


def arrays_equal(left, right):
  """Whether two lists of arrays are equal byte for byte."""
  return len(left) == len(right) and all(
    np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(left, right, strict=True)
  )


def toy_ratings(num_users=12, num_items=9):
  """Interactions of half of all pairs, with ratings from 1 to 5."""
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
