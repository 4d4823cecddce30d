"""Hyperparameter search by successive halving on validation ratings; it can be resumed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from gatrec_jax import runs
from gatrec_jax.config.fields import Choice, Range
from gatrec_jax.config.overrides import differences, from_json, to_json, with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.experiment.search_space import FIELD, Draws, Settings, own_settings, search_space
from gatrec_jax.experiment.successive_halving import (
  Ledger,
  Row,
  best_of,
  judge,
  rungs_of,
  short,
  successive_halving,
)
from gatrec_jax.experiment.validation import make_validator
from gatrec_jax.runs.log import CONSOLE, SILENT, Log
from gatrec_jax.serve.run import recommender_and_inputs
from gatrec_jax.stages.config_file import FORMAT, read_format
from gatrec_jax.stages.data import prepare
from gatrec_jax.stages.texts import Texts, embed_run, no_texts
from gatrec_jax.train.fitted import fit
from gatrec_jax.train.loop import learn

# Share of validation ratings in a search, for models that are otherwise fitted to all ratings.
HELD_OUT = 0.1
_REMEDY = "delete it, and run the same command again, which writes it"


def search(
  config: Config,
  workdir: str | os.PathLike[str],
  *,
  budget: float,
  space: Sequence[str] = (),
  seed: int = 0,
  mesh: Mesh | None = None,
  log: Log = CONSOLE,
) -> Config:
  """Searches for the settings with the best `select_metric` on the validation part.

  WORKDIR/search holds all results: `trials.parquet` with every trial at every rung, `chosen.json`
  with the chosen settings and whether the search has converged. Test rows are not read after the
  data stage. Models that are otherwise fitted to all training ratings hold out a tenth of them
  during the search.

  Args:
    config: settings of trial 0, and all settings that are not searched.
    workdir: the run folder; created if it does not exist, continued if it does.
    budget: in trainings over all epochs.
    space: see `search_space`.
    seed: of the random draws.
    mesh: the devices that share each step of training; None for one device.
    log: where lines for the user go.
  Returns:
    `config` with the chosen settings.
  Raises:
    InputError: an empty range, a budget too small, a folder with another search, or if every trial
      failed.
    Interrupted: after a signal; the same call continues the search.
  """
  if not budget >= 1:
    raise InputError(
      "too small for one trial; give at least 1, the number of full trainings to spend",
      field="search",
      value=f"{budget:g}",
    )
  if not math.isfinite(budget):
    raise InputError("must be a finite number", field="search", value=budget)
  if seed < 0:
    raise InputError("must not be negative", field="search_seed", value=seed)
  config, ranges, bounded = search_space(config, space)
  within = _with_validation(config)
  run_folder = runs.open_workdir(workdir)
  with runs.locked(run_folder):
    folder = run_folder / "search"
    _require_own_run(run_folder)
    plan = {
      "format": FORMAT,
      "config": to_json(within),
      "seed": seed,
      "ranges": {name: [type(r).__name__, *r] for name, r in ranges.items()},
    }
    _require_same_search(folder, plan)
    prepared = prepare(within.data, folder, log=log)
    # From here on there are no test rows.
    prepared = dataclasses.replace(
      prepared, split=dataclasses.replace(prepared.split, test=prepared.split.test[:0])
    )
    texts = _texts(within, ranges, folder, prepared, log=log)
    plan["data"] = runs.read_sealed(folder / "data" / "manifest.json")["inputs"]
    plan["texts"] = [one.digest for one in texts.values()]
    _require_same_search(folder, plan)
    runs.write_sealed(folder / "search.json", plan)

    def describe(settings: Settings) -> str:
      tree = to_json(with_fields(within, settings))
      return json.dumps({stage: tree[stage] for stage in ("model", "train")})

    train = within.train
    rungs = rungs_of(train.epochs, train.evaluate_every) if within.model.learned else (1,)
    ledger = Ledger(
      folder / "trials.parquet", describe=describe, rungs=len(rungs), metric=train.select_metric
    )
    if ledger.rows:
      log.info(f"search: kept {len(ledger.rows)} earlier trainings ({folder / 'trials.parquet'})")
    ended = successive_halving(
      lambda trial, settings, epochs: _train(
        with_fields(within, settings),
        _trial_folder(folder, trial),
        prepared,
        texts,
        epochs,
        mesh=mesh,
      ),
      own=own_settings(within, ranges),
      draws=Draws(within, ranges, seed=seed, bounded=bounded),
      rungs=rungs,
      budget=budget,
      ledger=ledger,
      forget=lambda trial: shutil.rmtree(
        _trial_folder(folder, trial) / "checkpoints", ignore_errors=True
      ),
      metric=train.select_metric,
      log=log,
    )
    rows = [ledger.rows[at] for at in sorted(ledger.rows)]
    if not ended:
      raise InputError(
        f"every trial failed; the first one: {rows[0].message}", field="search", value=f"{budget:g}"
      )
    verdict = judge(within, ranges, ended, bounded=bounded)
    best = best_of(ended)
    chosen = with_fields(config, best.settings)
    _make_way(run_folder, chosen, log=log)
    runs.write_sealed(
      folder / "chosen.json",
      {
        "config": to_json(chosen),
        "settings": best.settings,
        "trial": best.trial,
        "metric": train.select_metric,
        "value": best.value,
        "trials": len({r.trial for r in rows}),
        "budget": budget,
        **dataclasses.asdict(verdict),
      },
    )
    log.info(
      f"search: best is trial {best.trial}, {short(best.settings)}, {train.select_metric} "
      f"{best.value:.4f} on validation (trial 0, the initial settings: {_value_of(ended, 0)})"
    )
    for line in verdict.lines:
      log.info(f"search: {line}")
  return chosen


def _value_of(ended: Sequence[Row], trial: int) -> str:
  return next((f"{row.value:.4f}" for row in ended if row.trial == trial), "failed")


def _with_validation(config: Config) -> Config:
  """`config` with a validation part, on which trials are compared."""
  fields: dict[str, Any] = {"valid_share": config.data.valid_share or HELD_OUT}
  if config.model.learned:
    fields["select_on"] = "valid"
  return with_fields(config, fields)


def _trial_folder(folder: pathlib.Path, trial: int) -> pathlib.Path:
  return folder / f"trial-{trial:04d}"


def _train(
  config: Config,
  folder: pathlib.Path,
  prepared: Prepared,
  texts: Mapping[bool, Texts],
  epochs: int,
  *,
  mesh: Mesh | None,
) -> float:
  """Trains one trial up to an epoch; its checkpoints stay until the trial is dropped."""
  recommender, inputs = recommender_and_inputs(config, prepared, texts[config.model.reads_text])
  validate = make_validator(prepared, inputs, recommender=recommender, config=config, mesh=mesh)
  folder.mkdir(parents=True, exist_ok=True)
  common = dict(recommender=recommender, workdir=folder, validate=validate, log=SILENT)
  if recommender.learned:
    _, progress = learn(inputs, config=config.train, mesh=mesh, until=epochs, **common)
  else:
    try:
      _, progress = fit(inputs, seed=config.train.seed, **common)
    except FloatingPointError as error:  # finite parameters, but scores that are not
      raise InputError(str(error)) from None
  return progress.best_value


def _texts(
  config: Config, ranges: Mapping[str, Range], folder: pathlib.Path, prepared: Prepared, *, log: Log
) -> dict[bool, Texts]:
  """The texts by whether a trial reads them, which a searched word may decide."""
  kinds = {config.model.reads_text: config}
  for name, range_ in ranges.items():
    for value in range_.values if isinstance(range_, Choice) else ():
      other = with_fields(config, {name: value})
      kinds.setdefault(other.model.reads_text, other)
  return {
    reads: embed_run(one.text, folder, prepared, data=one.data, log=log)
    if reads
    else no_texts(prepared)
    for reads, one in kinds.items()
  }


def _require_same_search(folder: pathlib.Path, plan: Mapping[str, Any]) -> None:
  """Raises InputError if the folder holds trials of another search."""
  path = folder / "search.json"
  if not path.exists():
    return
  former = read_format(folder.parent, "search/search.json", remedy=_REMEDY)
  changed = differences(
    from_json(former["config"]),
    from_json(plan["config"]),
    stages=("data", "text", "model", "train"),
  )
  now = json.loads(json.dumps(plan))
  changed += [
    f"{word} changed"
    for name, word in (
      ("ranges", f"`{FIELD}`"),
      ("seed", "`search_seed`"),
      ("data", "data"),
      ("texts", "texts"),
    )
    if name in now and former.get(name) != now[name]
  ]
  if changed:
    raise InputError(
      f"holds another search ({'; '.join(changed)}); use another `workdir`, or delete {folder}",
      field="workdir",
      value=folder.parent,
    )


def _require_own_run(run_folder: pathlib.Path) -> None:
  """Raises InputError, before hours of search, if its result could not be trained there."""
  if runs.has_checkpoints(run_folder) and not (run_folder / "search" / "chosen.json").exists():
    raise InputError(
      "holds a run that was trained without `search`; use another",
      field="workdir",
      value=run_folder,
    )


def _make_way(run_folder: pathlib.Path, chosen: Config, *, log: Log) -> None:
  """Removes a model trained with the choice of a smaller budget, if the choice has changed."""
  path = run_folder / "search" / "chosen.json"
  if not path.exists() or not runs.has_checkpoints(run_folder):
    return
  try:
    former = from_json(runs.read_sealed(path)["config"])
    changed = bool(differences(former, chosen, stages=("data", "text", "model", "train")))
  except DamagedFile:
    changed = True
  if changed:
    log.info("search: the choice has changed; the model in this folder is trained again")
    (run_folder / "results.json").unlink(missing_ok=True)
    shutil.rmtree(run_folder / "checkpoints")
