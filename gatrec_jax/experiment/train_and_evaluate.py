"""The main job: ratings and text in; a trained model, honest metrics, recommendations out."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import differences, from_json, to_json
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import write_recommendations
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.evaluate.user_values import write_user_values
from gatrec_jax.experiment.cold_start import cold_evaluations
from gatrec_jax.models.base import Recommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.registry import is_learned
from gatrec_jax.ops.attention.selection import name_of
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.serve.run import (
  Run,
  assemble_run,
  evaluate_run,
  recommender_and_inputs,
  results_json,
)
from gatrec_jax.stages.data import prepare
from gatrec_jax.stages.texts import embed_run
from gatrec_jax.train.loop import Progress, fit, learn
from gatrec_jax.train.sharded import current_mesh, own_folder
from gatrec_jax.train.state import make_serving_state
from gatrec_jax.train.sweep import SweepResult, sweep

_TRAINED_STAGES = ("data", "text", "model", "train")
USER_VALUES = "user_values.parquet"
"""The file of a run folder with every metric of every user."""


def open_run(config: Config, workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes the run folder and writes `config.json`.

  Raises:
    InputError: the folder cannot be written to, or holds checkpoints of another configuration.
  """
  folder = runs.open_workdir(own_folder(pathlib.Path(workdir).expanduser()))
  path = folder / "config.json"
  if path.exists() and runs.has_checkpoints(folder):
    former = from_json(runs.read_json(path)["config"])
    if changed := differences(former, config, stages=_TRAINED_STAGES):
      raise InputError(
        f"holds a run of another configuration ({'; '.join(changed)}); "
        "use another `workdir`, or delete this one",
        field="workdir",
        value=workdir,
      )
  runs.write_json(path, {"config": to_json(config), "environment": runs.environment()})
  return folder


def train_and_evaluate(
  config: Config, workdir: str | os.PathLike[str], *, log: Log = CONSOLE
) -> tuple[Run, dict[str, Any]]:
  """Runs every stage that is not done yet and ends with the test metrics of the chosen checkpoint.

  The test part is read once, after training, for `results.json` and `recommendations.parquet`.

  Args:
    config: all settings.
    workdir: the run folder; made if there is none, gone on with if there is.
    log: where lines for the user go.
  Returns:
    The trained run and the content of `results.json`.
  Raises:
    InputError: anything wrong with files, flags or data.
    Interrupted: a signal came; the same call goes on.
  """
  folder = open_run(config, workdir)
  with runs.locked(folder):
    runs.reset_peak_memory()
    run, progress = train(config, folder, log=log)
    evaluations, items, scores = evaluate_run(run)
    evaluations |= cold_evaluations(run)
    interactions = run.prepared.interactions
    write_user_values(
      folder / USER_VALUES, interactions.user_ids, evaluations, truth=truth_digest(run.prepared)
    )
    write_recommendations(
      folder / "recommendations.parquet",
      users=np.arange(interactions.num_users, dtype=np.int32),
      items=items,
      scores=scores,
      user_ids=interactions.user_ids,
      item_ids=interactions.item_ids,
    )
    results = results_json(
      evaluations,
      epoch=progress.best_epoch,
      epochs_run=progress.epoch,
      selection=_selection(config, progress),
      train_seconds=round(progress.seconds, 2),
      peak_memory_mb=runs.peak_memory_mb(),
      encoder=run.texts.facts.get("encoder", "none"),
      seed=config.train.seed,
      config_digest=runs.digest(to_json(config)),
    )
    runs.write_json(folder / "results.json", results)
  return run, results


def results_are_of(config: Config, folder: pathlib.Path) -> bool:
  """Whether the folder holds the results of just this configuration."""
  path = folder / "results.json"
  if not path.exists() or not (folder / USER_VALUES).exists():
    return False
  return runs.read_json(path).get("config_digest") == runs.digest(to_json(config))


def truth_digest(prepared: Prepared) -> str:
  """A hash of what is known and what is to be found; results are comparable where it is equal."""
  parts = []
  for rows in (prepared.known, prepared.test):
    order = np.lexsort((rows.item, rows.user))
    parts += [rows.user[order].tobytes(), rows.item[order].tobytes(), rows.rating[order].tobytes()]
  ids, threshold = prepared.interactions, prepared.feedback.positive_threshold
  return runs.digest(list(ids.user_ids), list(ids.item_ids), threshold, *parts)


def train(config: Config, folder: pathlib.Path, *, log: Log) -> tuple[Run, Progress]:
  """Prepares, embeds and trains, or goes on with what the run folder holds.

  Test rows are never read beyond the data stage.
  """
  return train_prepared(config, folder, prepare(config, folder, log=log), log=log)


def train_prepared(
  config: Config, folder: pathlib.Path, prepared: Prepared, *, log: Log, until: int | None = None
) -> tuple[Run, Progress]:
  """The same behind the data stage.

  Args: prepared: what the folder's data stage holds. until: as in `learn`.
  """
  texts = embed_run(config, folder, prepared, log=log)
  recommender, inputs = recommender_and_inputs(config, prepared, texts)
  kind = config.model.kind
  log.info(f"train: {kind}, {inputs.user.shape[0]} positives, {_where(inputs, config)}")
  learned = is_learned(recommender)
  validate = None
  if config.train.select_on == "valid" if learned else len(prepared.split.valid):
    validate = make_validator(prepared, inputs, recommender=recommender, config=config)
  common = dict(recommender=recommender, workdir=folder, validate=validate, log=log)
  if learned:
    params, progress = learn(inputs, config=config.train, until=until, **common)
    log.info(
      f"train: {progress.epoch} epochs in {progress.seconds:.0f} s, best at epoch "
      f"{progress.best_epoch} by {config.train.select_on}"
    )
  else:
    params, progress = fit(inputs, seed=config.train.seed, **common)
    log.info(f"train: {kind} fitted in {progress.seconds:.1f} s")
  run = assemble_run(
    folder,
    config=config,
    prepared=prepared,
    texts=texts,
    recommender=recommender,
    params=params,
    inputs=inputs,
  )
  return run, progress


def _where(inputs: Inputs, config: Config) -> str:
  """On what is trained, by which implementation of attention, and on how much of the graph."""
  parts, mesh = [jax.default_backend()], current_mesh()
  if mesh is not None:
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    parts.append(f"{mesh.size} devices ({sizes})")
  convolution = getattr(config.model, "convolution", None)
  if fanouts := getattr(convolution, "fanouts", ()):
    parts.append(f"up to {', '.join(map(str, fanouts))} sampled neighbors a layer")
  elif getattr(convolution, "num_layers", 0):
    parts.append(f"attention by {name_of(inputs.own.layout if mesh is None else None)}")
  return ", ".join(parts)


def sweep_settings(
  config: Config,
  workdir: str | os.PathLike[str],
  settings: Sequence[Mapping[str, Any]],
  *,
  memory_mb: float = 4096,
  log: Log = CONSOLE,
) -> SweepResult:
  """Trains a model with many settings in one program; data and texts are those of a run folder.

  Args:
    config: what all settings have in common; its validation part chooses, test rows are not read.
    workdir: gets the stages before training, none of the models.
    settings: numbers by field: seeds, learning rates, weights, temperatures, dropouts.
    memory_mb: bound for all that is alive at once.
    log: where lines for the user go.
  Raises:
    InputError: as `train_and_evaluate` and `sweep`.
  """
  folder = open_run(config, workdir)
  with runs.locked(folder):
    prepared = prepare(config, folder, log=log)
    texts = embed_run(config, folder, prepared, log=log)
  recommender, inputs = recommender_and_inputs(config, prepared, texts)
  validate = make_validator(prepared, inputs, recommender=recommender, config=config)
  return sweep(
    inputs,
    recommender=recommender,
    config=config.train,
    settings=settings,
    validate=validate,
    memory_mb=memory_mb,
    log=log,
  )


def make_validator(
  prepared: Prepared, inputs: Inputs, *, recommender: Recommender, config: Config
) -> Callable[[Any], float]:
  """params -> `select_metric` on the validation part, over all items without a training rating."""
  train, valid = prepared.train, prepared.valid
  liked = prepared.feedback.liked(valid.rating)
  if not liked.any():
    raise InputError(
      "no validation rating reaches "
      f"`positive_threshold={prepared.feedback.positive_threshold:g}`; raise the share or use "
      "`select_on=train_loss`",
      field="valid_share",
      value=config.data.valid_share,
    )
  users = np.unique(valid.user[liked])
  metric = config.train.select_metric
  k = int(metric.rpartition("@")[2])

  def measure(params: Any) -> float:
    items, _ = top_items_by(
      recommender.score,
      make_serving_state(params, inputs, recommender=recommender),
      users,
      num_items=recommender.num_items,
      seen=train,
      k=k,
      memory_mb=config.evaluate.evaluate_memory_mb,
    )
    evaluation = full_ranking(
      items, users, train=train, test=valid, feedback=prepared.feedback, ks=(k,), num_bootstrap=0
    )
    return evaluation.summary[metric].mean

  return measure


def _selection(config: Config, progress: Progress) -> dict[str, float]:
  """What the checkpoint was chosen by; empty where nothing was chosen."""
  train = config.train
  if not config.model.learned:
    return {f"valid_{train.select_metric}": progress.best_value} if config.data.valid_share else {}
  if train.select_on == "last":
    return {}
  name = f"valid_{train.select_metric}" if train.select_on == "valid" else train.select_on
  return {name: progress.best_value}
