"""Many models on many parts with many seeds: each in its own run folder, trained the same way."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from gatrec_jax import runs
from gatrec_jax.config.checks import FIXED_BY_SPLIT
from gatrec_jax.config.overrides import to_json, with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.user_values import UserValues, read_user_values
from gatrec_jax.experiment.train_and_evaluate import (
  USER_VALUES,
  finished_results,
  read_results,
  train_and_evaluate,
)
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.runs.log import Log
from gatrec_jax.serve.kept import with_choices
from gatrec_jax.sharding.peers import own_folder
from gatrec_jax.stages.config_file import read_config


@dataclasses.dataclass(frozen=True)
class Finished:
  """A finished run.

  Attributes:
    system: the model's label. part: the fold or split. seed: of the training.
    folder: the run folder.
    results: its results.json, with `train_seconds` of choosing and training together.
    settings: of model and training, as in config.json.
    known: number of training and of validation ratings.
  """

  system: str
  part: str
  seed: int
  folder: pathlib.Path
  results: Mapping[str, Any]
  settings: Mapping[str, Any]
  known: tuple[int, int]


def run_grid(
  systems: Mapping[str, Config],
  parts: Mapping[str, Mapping[str, Any]],
  seeds: Sequence[int],
  workdir: pathlib.Path,
  *,
  refit: bool,
  mesh: Mesh | None = None,
  log: Log,
) -> list[Finished]:
  """Trains and tests every system on every part with every seed; finished runs are kept.

  A system without randomness is run with the first seed only.

  Args:
    systems: configuration by label.
    parts: fields of the data stage by label, such as {"u1": {"fold": "u1"}}.
    seeds: of parameters, negatives, dropout.
    workdir: gets a run folder PART/LABEL-SEED for each.
    refit, mesh: as in `train_alike`.
    log: where lines for the user go.
  Raises:
    InputError: as `train_and_evaluate`.
    Interrupted: a signal arrived; the same call resumes.
  """
  done = []
  for part, fields in parts.items():
    for label, config in systems.items():
      seeded = make_recommender(config.model, num_users=1, num_items=1).seeded
      for seed in seeds if seeded else seeds[:1]:
        folder = workdir / part / f"{label}-{seed}"
        log.info(f"— {label} · {part} · seed {seed}")
        own = with_fields(config, {**fields, "seed": seed})
        results = train_alike(own, folder, refit=refit, mesh=mesh, log=log)
        done.append(_finished(label, part, folder, results))
  return done


def train_alike(
  config: Config,
  folder: pathlib.Path,
  *,
  refit: bool,
  memory_limit: float | None = None,
  mesh: Mesh | None = None,
  log: Log,
) -> dict[str, Any]:
  """Trains and tests one model under the same conditions as all others of a table.

  With `refit` every model is finally trained on all training ratings: one that selects its epoch on
  validation ratings is first trained without them, then again with them for the selected number of
  epochs. Without `refit` no model sees the validation ratings. Named protocols are never refitted.

  Args: memory_limit, mesh: as in `train_and_evaluate`.
  Returns: results.json, its `train_seconds` those of both trainings.
  Raises: InputError where the folder holds a run that did not choose first.
  """
  common = dict(memory_limit=memory_limit, mesh=mesh, log=log)
  if config.data.split in FIXED_BY_SPLIT:
    return _kept_or_trained(config, folder, **common)
  share = config.data.valid_share or 0.1
  if not refit:
    return _kept_or_trained(with_fields(config, {"valid_share": share}), folder, **common)
  if config.train.select_on != "valid":
    return _kept_or_trained(with_fields(config, {"valid_share": 0.0}), folder, **common)
  if runs.has_checkpoints(folder) and not (folder / "choosing").is_dir():
    raise InputError(
      "holds a run that was trained without `refit`; use another `workdir`, or delete this one",
      field="workdir",
      value=folder,
    )
  chosen = _kept_or_trained(config, folder / "choosing", **common)
  train = config.train
  refit_fields = {"valid_share": 0.0, "select_on": "last", "epochs": max(chosen["epoch"], 1)}
  if train.schedule == "cosine":
    refit_fields["decay_epochs"] = train.decay_epochs or train.epochs
  final = with_fields(with_choices(config, own_folder(folder / "choosing")), refit_fields)
  results = dict(_kept_or_trained(final, folder, **common))
  results["train_seconds"] = round(results["train_seconds"] + chosen["train_seconds"], 2)
  results["peak_memory_mb"] = max(results["peak_memory_mb"], chosen["peak_memory_mb"])
  return results


def _kept_or_trained(
  config: Config, folder: pathlib.Path, *, memory_limit: float | None, mesh: Mesh | None, log: Log
) -> dict[str, Any]:
  if results := finished_results(config, folder, log=log):
    log.info(f"already finished, kept ({folder})")
    return results
  return train_and_evaluate(config, folder, memory_limit=memory_limit, mesh=mesh, log=log)[1]


def open_finished(folder: pathlib.Path) -> Finished:
  """Opens a finished run for comparison. Raises InputError where it is not finished."""
  config = read_config(folder)
  for name in ("results.json", USER_VALUES):
    if not (folder / name).exists():
      raise InputError(f"{folder}: has no {name}; run launch.train with this `workdir` first")
  part = config.data.fold or f"{config.data.split}-{config.data.split_seed}"
  return _finished(folder.name, part, folder, read_results(folder))


def user_values_of(finished: Sequence[Finished]) -> list[UserValues]:
  """The metrics of every user of the runs, one entry per run and protocol.

  Raises: InputError for missing or damaged files.
  """
  return [
    values
    for run in finished
    for values in read_user_values(
      run.folder / USER_VALUES, system=run.system, part=run.part, seed=run.seed
    )
  ]


def facts_by_system(finished: Sequence[Finished]) -> dict[str, dict[str, Any]]:
  """Mean training time, peak memory, settings and the figures of each run, by system."""
  facts: dict[str, dict[str, Any]] = {}
  for system in dict.fromkeys(run.system for run in finished):
    own = [run for run in finished if run.system == system]
    seconds = [run.results["train_seconds"] for run in own]
    facts[system] = {
      "train_seconds": round(sum(seconds) / len(own), 2),
      "peak_memory_mb": max(run.results["peak_memory_mb"] for run in own),
      "settings": own[0].settings,
      "runs": [_facts_of(run) for run in own],
    }
  return facts


def _facts_of(run: Finished) -> dict[str, Any]:
  return {
    "part": run.part,
    "seed": run.seed,
    "folder": str(run.folder),
    "trained_on": run.known[0],
    "chosen_on": run.known[1],
    "epoch": run.results["epoch"],
    "train_seconds": run.results["train_seconds"],
    "peak_memory_mb": run.results["peak_memory_mb"],
    "ndcg@10": run.results.get("full", {}).get("ndcg@10", {}).get("mean"),
  }


def _finished(system: str, part: str, folder: pathlib.Path, results: Mapping[str, Any]) -> Finished:
  tree = to_json(read_config(folder))
  facts = runs.read_sealed(folder / "data" / "manifest.json")["facts"]
  return Finished(
    system,
    part,
    tree["train"]["seed"],
    folder,
    results,
    {"model": tree["model"], "train": tree["train"]},
    (facts["train"], facts["valid"]),
  )
