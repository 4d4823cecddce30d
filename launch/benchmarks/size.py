"""Suite `size`: a whole run of `best` on synthetic data in the shapes of public data sets.

For each shape the plan of the run and then the run itself, in processes of their own: peak memory
and seconds of each stage, as planned and as measured. Of the largest shape all users are not
ranked: it is trained for some steps without the linear channel and with vectors of 32 numbers, and
a sample of users is ranked for validation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from launch.benchmarks.peers.process import ROOT
from launch.benchmarks.size_data import SHAPES, table_of
from launch.cli.grid import Table, amount

Json = dict[str, Any]
_SAMPLED = ("1m-1m",)
# What a machine with 24 GiB has room for.
_SETTINGS = {"1m-1m": ("--set=linear_weight=0", "--set=feature_width=32")}
_HEADER = (
  "shape",
  "stage",
  "planned GiB",
  "measured GiB",
  "planned ÷ measured",
  "planned s",
  "measured s",
  "planned ÷ measured",
)


def run_size(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Plans and runs the shapes of --shapes. Raises InputError: an unknown one, a run that fails."""
  shapes = flags["shapes"]
  if unknown := [name for name in shapes if name not in SHAPES]:
    raise InputError(f"must be among {', '.join(SHAPES)}", field="shapes", value=unknown[0])
  found = {}
  for name in shapes:
    log.info(f"size: {name}: {', '.join(f'{n:,} {w}' for n, w in _counts(name))}")
    path = table_of(name, runs.cache_dir() / "size")
    with tempfile.TemporaryDirectory(prefix="gatrec-size-") as folder:
      found[name] = _measured(name, path, Path(folder), epochs=flags["epochs"])
    log.info(f"size: {name}: {found[name]['measured_mb']} MiB, {found[name]['planned_mb']} planned")
  return {"preset": "best", "epochs": flags["epochs"], "shapes": found}


def table(results: Json) -> Table:
  """A row for each stage of each shape, and one for the whole run."""
  rows = []
  for name, found in results["shapes"].items():
    memory = (found["planned_mb"], found["measured_mb"])
    times = (found["planned_seconds"], found["measured_seconds"])
    rows.append(_row(name, "together", memory, times))
    for stage, figures in found["stages"].items():
      memory = (figures["planned_mb"], figures["measured_mb"])
      times = (figures["planned_seconds"], figures["measured_seconds"])
      rows.append(_row("", stage, memory, times))
  notes = [
    f"preset {results['preset']}, {results['epochs']} epochs; memory of the whole process, seconds "
    "without starting Python; planned before, with rates measured in the same minute"
  ]
  return Table("Runs on synthetic data, planned and measured", _HEADER, rows, notes)


def _measured(name: str, path: Path, folder: Path, *, epochs: int) -> Json:
  """The plan of a run and what it took. Args: folder: empty, for the run."""
  flags = [
    f"--dataset={path}",
    f"--set=epochs={epochs}",
    f"--set=evaluate_every={min(epochs, 10)}",
    "--encoder=lexical",
    *_SETTINGS.get(name, ()),
  ]
  plan, results = folder / "plan.json", folder / "results.json"
  _run("train", [*flags, "--plan_only", f"--workdir={folder / 'run'}", f"--json_out={plan}"])
  workdir = [*flags, f"--workdir={folder / 'run'}", f"--json_out={results}"]
  _run("benchmarks.size_sample" if name in _SAMPLED else "train", workdir)
  planned = json.loads(plan.read_text())["stages"]
  measured = json.loads(results.read_text())["stages"]
  stages = {
    stage: {
      "planned_mb": planned[stage]["memory_mb"],
      "measured_mb": figures["peak_memory_mb"],
      "planned_seconds": planned[stage]["seconds"],
      "measured_seconds": figures["seconds"],
      "choice": planned[stage]["choice"],
    }
    for stage, figures in measured.items()
  }
  return {
    "planned_mb": max(stage["planned_mb"] for stage in stages.values()),
    "measured_mb": max(stage["measured_mb"] for stage in stages.values()),
    "planned_seconds": sum(stage["planned_seconds"] for stage in stages.values()),
    "measured_seconds": sum(stage["measured_seconds"] for stage in stages.values()),
    "stages": stages,
  }


def _run(program: str, flags: Sequence[str]) -> None:
  """Runs `python -m launch.PROGRAM`. Raises InputError with its last line where it fails."""
  path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
  done = subprocess.run(
    [sys.executable, "-m", f"launch.{program}", *flags],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": path},
    check=False,
  )
  if done.returncode:
    lines = done.stderr.strip().splitlines()
    raise InputError(f"launch.{program} ended with {done.returncode}: {lines[-1] if lines else ''}")


def _counts(name: str) -> list[tuple[int, str]]:
  users, items, ratings, _ = SHAPES[name]
  return [(users, "users"), (items, "items"), (ratings, "ratings")]


def _row(
  shape: str, stage: str, memory: tuple[float, float], seconds: tuple[float, float]
) -> tuple[str, ...]:
  def ratio(pair: tuple[float, float]) -> str:
    return f"{pair[0] / pair[1]:.2f}" if pair[1] else "–"

  sizes = (f"{one / 1024:.2f}" for one in memory)
  return (shape, stage, *sizes, ratio(memory), *map(amount, seconds), ratio(seconds))
