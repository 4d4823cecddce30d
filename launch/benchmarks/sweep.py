"""Suite `sweep`: 16 settings trained in one program, and in 16 single runs.

Single runs use `train.loop` with validation and checkpoints: once with compiled programs discarded
before each run (separate processes would also start, import and read), and once reusing the
programs of the previous run. ML-100K u1, a tenth of the training ratings for validation.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.experiment.validation import make_validator
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.serve.run import recommender_and_inputs
from gatrec_jax.stages.data import prepared_in_memory
from gatrec_jax.stages.texts import Texts
from gatrec_jax.train.fitted import fit
from gatrec_jax.train.loop import learn
from gatrec_jax.train.sweep import Outcome, sweep
from launch.cli.grid import Table

TOLERANCE = 1e-4
WANTED_SHARE = 0.5
# For learned models. The longer a run, the less its compilation matters.
EPOCHS = {"epochs": 60, "evaluate_every": 20, "patience": 60}
Json = dict[str, Any]
Settings = Sequence[Mapping[str, Any]]


def cases() -> dict[str, Settings]:
  """16 settings by preset."""

  def grid(rates: Sequence[float]) -> Settings:
    return [{"learning_rate": rate, "seed": seed} for rate in rates for seed in range(4)]

  return {
    "bpr_mf": grid((1e-3, 3e-3, 5e-3, 1e-2)),
    "lightgcn_softmax": grid((5e-3, 1e-2, 2e-2, 4e-2)),
    "ease": [{"l2": round(float(l2), 2)} for l2 in np.geomspace(10, 10_000, 16)],
  }


def run_sweep_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite on ML-100K in --data_dir. Raises InputError if it is not there."""
  # Programs cached on disk would hide what compiling each run costs.
  jax.config.update("jax_enable_compilation_cache", False)
  return run_sweeps(flags["data_dir"] or "", log=log)


def run_sweeps(
  data_dir: str,
  *,
  log: Log,
  chosen: Mapping[str, Settings] | None = None,
  fields: Mapping[str, Any] | None = None,
  memory_mb: int = 4096,
) -> Json:
  """Trains every case in three ways; everything that the table shows, as plain values.

  Args:
    data_dir: folder with ML-100K. log: for lines of progress.
    chosen: settings by preset; None = `cases()`.
    fields: training settings that differ from the presets'; None = `EPOCHS`.
    memory_mb: budget of a sweep.
  Raises: InputError if the data are not there.
  """
  fields = EPOCHS if fields is None else fields
  results: Json = {"device": jax.default_backend(), "fields": dict(fields), "cases": {}}
  for name, settings in (chosen or cases()).items():
    config = with_fields(
      get_preset(name),
      {"dataset": "ml-100k", "data_dir": data_dir, "fold": "u1", "valid_share": 0.1},
    )
    if config.model.learned:
      config = with_fields(config, fields)
    results["cases"][name] = _case(config, settings, memory_mb=memory_mb, log=log)
  return results


def _case(config: Config, settings: Settings, *, memory_mb: int, log: Log) -> Json:
  prepared = prepared_in_memory(config.data)
  seconds, found = {}, {}
  for way in ("compiled per run", "compiled once"):
    log.info(f"sweep: {config.preset}, {len(settings)} single runs, {way}")
    jax.clear_caches()
    started = time.monotonic()
    found[way] = [
      _single(with_fields(config, setting), prepared, recompile=way == "compiled per run")
      for setting in settings
    ]
    seconds[way] = time.monotonic() - started
  jax.clear_caches()
  started = time.monotonic()
  recommender, inputs = _ready(config, prepared)
  result = sweep(
    inputs,
    recommender=recommender,
    config=config.train,
    settings=settings,
    memory_mb=memory_mb,
    log=log,
    validate=make_validator(prepared, inputs, recommender=recommender, config=config),
  )
  seconds["sweep"] = time.monotonic() - started
  differences = [
    _difference(outcome, *single)
    for outcome, single in zip(result.outcomes, found["compiled once"], strict=True)
  ]
  return {
    "settings": [dict(setting) for setting in settings],
    "seconds": seconds,
    "plan": dataclasses.asdict(result.plan),
    "epochs": sum(outcome.epochs for outcome in result.outcomes),
    "best": max(outcome.best_value for outcome in result.outcomes),
    "difference": {key: max(one[key] for one in differences) for key in ("value", "loss")},
  }


def _ready(config: Config, prepared: Prepared) -> tuple[Any, Any]:
  rows = prepared.interactions
  none = np.zeros((rows.num_users + rows.num_items, 1), np.float32)
  texts = Texts(none, rows.num_users, "", is_text=False, facts={})
  return recommender_and_inputs(config, prepared, texts)


def _single(config: Config, prepared: Prepared, *, recompile: bool) -> tuple[float, list[float]]:
  """The best validation value and the epoch losses of one run."""
  if recompile:
    jax.clear_caches()
  recommender, inputs = _ready(config, prepared)
  with tempfile.TemporaryDirectory() as folder:
    common = dict(
      recommender=recommender,
      workdir=pathlib.Path(folder),
      log=SILENT,
      validate=make_validator(prepared, inputs, recommender=recommender, config=config),
    )
    if not recommender.learned:
      return fit(inputs, seed=config.train.seed, **common)[1].best_value, []
    _, progress = learn(inputs, config=config.train, **common)
    lines = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
    losses = [line["value"] for line in lines if line["name"] == "loss"]
  return progress.best_value, losses


def _difference(outcome: Outcome, value: float, losses: Sequence[float]) -> dict[str, float]:
  lost = 0.0
  if outcome.losses is not None:
    lost = float(np.abs(outcome.losses.mean(axis=1) - np.asarray(losses)).max())
  return {"value": abs(outcome.best_value - value), "loss": lost}


HEADER = (
  "model",
  "epochs",
  "compiled per run, s",
  "compiled once, s",
  "sweep, s",
  "sweep ÷ per run",
  "sweep ÷ once",
  "largest difference",
  "holds",
)


def table(results: Json) -> Table:
  """The table of `run_sweeps`'s results."""
  rows = []
  for name, case in results["cases"].items():
    seconds, difference = case["seconds"], max(case["difference"].values())
    shares = [seconds["sweep"] / seconds[way] for way in ("compiled per run", "compiled once")]
    holds = shares[0] <= WANTED_SHARE and difference <= TOLERANCE
    rows.append(
      (
        f"{name}, {len(case['settings'])} settings",
        str(case["epochs"]),
        *(f"{seconds[way]:.1f}" for way in ("compiled per run", "compiled once", "sweep")),
        *(f"{share:.2f}" for share in shares),
        f"{difference:.1e}",
        "yes" if holds else "NO",
      )
    )
  notes = [
    "single runs have validation and checkpoints, the sweep has the same validation; separate "
    "processes would add their start-up time",
    f"difference: of the best validation value and of every epoch's loss; holds: at most "
    f"{WANTED_SHARE} of the time of runs that compile each time, and equal within {TOLERANCE}",
  ]
  title = f"One program for many settings · ml-100k u1 · {results['device']}"
  return Table(title, HEADER, rows, notes)
