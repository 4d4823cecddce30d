"""The main job: ratings and text in; a trained model, test metrics and recommendations out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gatrec_jax import runs
from gatrec_jax.config.overrides import differences, to_json, with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.evaluate.files import write_recommendations
from gatrec_jax.evaluate.user_values import write_user_values
from gatrec_jax.experiment.cold_start import cold_evaluations
from gatrec_jax.experiment.evaluation import evaluate_run, results_json
from gatrec_jax.experiment.linear_choices import choose_powers, choose_weight, has_choices
from gatrec_jax.experiment.plan.run import has_data, require_memory, require_reading
from gatrec_jax.experiment.validation import make_validator, make_values
from gatrec_jax.models.base import Recommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.linear.ridge import Weights
from gatrec_jax.ops.attention.selection import name_of
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.runs.paths import user_path
from gatrec_jax.runs.usage import Usage
from gatrec_jax.serve.kept import CHOICES, kept_linear, linear_seconds
from gatrec_jax.serve.run import Run, assemble_run, make_serving_state, recommender_and_inputs
from gatrec_jax.sharding.peers import own_folder
from gatrec_jax.stages.config_file import read_config, write_config
from gatrec_jax.stages.data import prepare
from gatrec_jax.stages.texts import Texts, embed_run, no_texts
from gatrec_jax.train.fitted import fit
from gatrec_jax.train.loop import Progress, learn
from gatrec_jax.train.sweep import SweepResult, sweep

_TRAINED_STAGES = ("data", "text", "model", "train")
USER_VALUES = "user_values.parquet"
"""The file of a run folder with every metric of every user."""
RECOMMENDATIONS = "recommendations.parquet"
"""The file of a run folder with the lists of all users."""


def open_run(config: Config, workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes the run folder and writes `config.json`.

  Raises:
    InputError: the folder cannot be written to, holds checkpoints of another configuration or of
      another version, or another process is working in it.
  """
  folder = runs.open_workdir(own_folder(user_path(workdir)))
  with runs.locked(folder):
    if (folder / "config.json").exists() and runs.has_checkpoints(folder):
      if changed := differences(read_config(folder), config, stages=_TRAINED_STAGES):
        raise InputError(
          f"holds a run of another configuration ({'; '.join(changed)}); "
          "use another `workdir`, or delete this one",
          field="workdir",
          value=workdir,
        )
    settings = {stage: to_json(config)[stage] for stage in _TRAINED_STAGES}
    settings["data"].pop("data_dir")
    runs.require_same_origin(folder, "settings", runs.digest(settings))
    write_config(folder, config)
  return folder


def train_and_evaluate(
  config: Config,
  workdir: str | os.PathLike[str],
  *,
  memory_limit: float | None = None,
  mesh: Mesh | None = None,
  log: Log = CONSOLE,
) -> tuple[Run, dict[str, Any]]:
  """Runs every stage that is not done yet and ends with the test metrics of the chosen checkpoint.

  The test part is read once, after training, for `results.json` and `recommendations.parquet`.

  Args:
    config: all settings.
    workdir: the run folder; created or resumed.
    memory_limit: in GiB, of the whole process; what is planned to need more is refused before it is
      allocated. None = three quarters of what the machine or its cgroup has.
    mesh: the devices that share each step of training; those of this process then share the users
      to be evaluated. None for one device.
    log: where lines for the user go; `SILENT` prints nothing.
  Returns:
    The trained run and the content of `results.json`.
  Raises:
    InputError: anything wrong with files, settings or data, or too little memory.
    Interrupted: a signal came; the same call resumes.
  """
  is_read = has_data(user_path(workdir))
  if not is_read:
    require_reading(config, memory_limit)
  folder = open_run(config, workdir)
  with runs.locked(folder):
    usage = Usage()
    with usage.part("data"):
      prepared = prepare(config.data, folder, log=log)
    require_memory(config, prepared, memory_limit=memory_limit, is_read=is_read, log=log)
    run, progress = train(config, folder, prepared, mesh=mesh, log=log, usage=usage)
    with usage.part("evaluation"):
      evaluations, items, scores = evaluate_run(run, mesh=mesh)
      evaluations |= cold_evaluations(run, mesh=mesh)
    interactions = prepared.interactions
    if evaluations:
      write_user_values(
        folder / USER_VALUES, interactions.user_ids, evaluations, truth=truth_digest(prepared)
      )
    write_recommendations(
      folder / RECOMMENDATIONS,
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
      selection=_selection(run, progress),
      train_seconds=round(progress.seconds, 2),
      peak_memory_mb=usage.peak_memory_mb,
      stages=usage.to_json(),
      encoder=run.texts.facts.get("encoder", "none"),
      seed=config.train.seed,
      config_digest=runs.digest(to_json(config)),
    )
    files = [RECOMMENDATIONS, *([USER_VALUES] if evaluations else [])]
    files += [CHOICES] if (folder / CHOICES).exists() else []
    runs.write_sealed(folder / "results.json", results, files=files)
  return run, results


def read_results(folder: pathlib.Path) -> dict[str, Any]:
  """The results of a finished run, whose files are checked.

  Raises: InputError where there are none; DamagedFile where a file is not what was written.
  """
  path = folder / "results.json"
  runs.require_intact(path)
  return runs.read_sealed(path)


def finished_results(config: Config, folder: pathlib.Path, *, log: Log) -> dict[str, Any] | None:
  """The results of exactly this configuration; None where they are missing or damaged."""
  if not (folder / "results.json").exists() or not (folder / USER_VALUES).exists():
    return None
  try:
    results = read_results(folder)
  except DamagedFile as damage:
    log.info(f"results: made again, since {str(damage).partition(';')[0]}")
    return None
  return results if results["config_digest"] == runs.digest(to_json(config)) else None


def truth_digest(prepared: Prepared) -> str:
  """A hash of the known and the test rows; results are comparable where it is equal."""
  parts = []
  for rows in (prepared.known, prepared.test):
    order = np.lexsort((rows.item, rows.user))
    parts += [rows.user[order].tobytes(), rows.item[order].tobytes(), rows.rating[order].tobytes()]
  ids, threshold = prepared.interactions, prepared.feedback.positive_threshold
  return runs.digest(list(ids.user_ids), list(ids.item_ids), threshold, *parts)


def train(
  config: Config,
  folder: pathlib.Path,
  prepared: Prepared,
  *,
  mesh: Mesh | None = None,
  log: Log,
  usage: Usage | None = None,
) -> tuple[Run, Progress]:
  """Embeds and trains, or resumes from what the run folder holds. Test rows are not read.

  Args:
    prepared: what the folder's data stage holds. mesh: as in `train_and_evaluate`.
    usage: adds up what the parts take; None where nobody asks.
  """
  if config.model.reads_order and not np.ptp(prepared.train.timestamp):
    raise InputError(
      "there are no times, so that ratings have no order; name their column by `time_column`, or "
      "choose a model that reads no order"
    )
  usage = usage or Usage()
  with usage.part("texts"):
    texts = _texts(config, folder, prepared, log=log)
  chooses = has_choices(config)
  if chooses:
    with usage.part("linear"):
      config = choose_powers(config, prepared, folder, mesh=mesh, log=log)
  kept = kept_linear(config, prepared, folder, log=log)

  def linear(fit: Callable[[], Weights]) -> Weights:
    with usage.part("linear"):
      return kept(fit)

  with usage.part("graph"):
    recommender, inputs = recommender_and_inputs(config, prepared, texts, kept=linear)
  kind = config.model.kind
  log.info(f"train: {kind}, {inputs.user.shape[0]} positives, {_where(inputs, config.model, mesh)}")
  if _is_chance(config, recommender, inputs):
    log.info(
      "train: nothing but ratings is known of items, so lists of those without any, which are the "
      "validation part, are chance; the training loss chooses the epoch"
    )
    config, chooses = with_fields(config, {"select_on": "train_loss"}), False
  selects = config.train.select_on == "valid" if recommender.learned else len(prepared.split.valid)
  validate = None
  if selects:
    with usage.part("validation"):
      values = make_values(prepared, inputs, recommender=recommender, config=config, mesh=mesh)

    def validate(params: Any) -> float:
      with usage.part("validation"):
        state = make_serving_state(params, inputs, recommender=recommender)
        return float(values(state).mean())

  common = dict(recommender=recommender, workdir=folder, validate=validate, log=log)
  if recommender.learned:
    with usage.part("training"):
      params, progress = learn(inputs, config=config.train, mesh=mesh, **common)
    log.info(
      f"train: {progress.epoch} epochs in {progress.seconds:.0f} s, best at epoch "
      f"{progress.best_epoch} by {config.train.select_on}"
    )
    seconds = progress.seconds + linear_seconds(folder)
    progress = dataclasses.replace(progress, seconds=seconds)
    if chooses:
      with usage.part("validation"):
        state = make_serving_state(params, inputs, recommender=recommender)
        config = choose_weight(config, state, values, folder, log=log)
      weight = config.model.linear_weight
      recommender = dataclasses.replace(
        recommender, settings=dataclasses.replace(recommender.settings, linear_weight=weight)
      )
  else:
    with usage.part("training"):
      params, progress = fit(inputs, seed=config.train.seed, **common)
    log.info(f"train: {kind} fitted in {progress.seconds:.1f} s")
  with usage.part("evaluation"):
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


def _texts(config: Config, folder: pathlib.Path, prepared: Prepared, *, log: Log) -> Texts:
  if not config.model.reads_text:
    return no_texts(prepared)
  return embed_run(config.text, folder, prepared, data=config.data, log=log)


def _is_chance(config: Config, recommender: Recommender, inputs: Inputs) -> bool:
  """Whether epochs would be chosen by how a model ranks items of which it knows nothing."""
  return (
    recommender.learned
    and config.train.select_on == "valid"
    and config.data.split_kind == "cold_items"
    and not inputs.text[recommender.num_users :].any()
    and not inputs.attributes.any()
  )


def _where(inputs: Inputs, model: ModelSettings, mesh: Mesh | None) -> str:
  """Devices of training, implementation of attention, and how much of the graph a step reads."""
  parts = [jax.default_backend()]
  if mesh is not None:
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    parts.append(f"{mesh.size} devices ({sizes})")
  convolution = model.convolution
  if fanouts := convolution.fanouts:
    parts.append(f"up to {', '.join(map(str, fanouts))} sampled neighbors a layer")
  elif convolution.num_layers:
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
    config: what all settings have in common; its validation part selects, test rows are not read.
    workdir: gets the stages before training, none of the models.
    settings: values by field: seeds, learning rates, weights, temperatures, dropouts.
    memory_mb: bound on the memory of everything that is alive at once.
    log: where lines for the user go.
  Raises:
    InputError: as `train_and_evaluate` and `sweep`.
  """
  folder = open_run(config, workdir)
  with runs.locked(folder):
    prepared = prepare(config.data, folder, log=log)
    texts = _texts(config, folder, prepared, log=log)
  recommender, inputs = recommender_and_inputs(config, prepared, texts)
  return sweep(
    inputs,
    recommender=recommender,
    config=config.train,
    settings=settings,
    validate=make_validator(prepared, inputs, recommender=recommender, config=config),
    memory_mb=memory_mb,
    log=log,
  )


def _selection(run: Run, progress: Progress) -> dict[str, float]:
  """The value that the checkpoint was chosen by; empty where nothing was chosen."""
  train = run.config.train
  valid = f"valid_{train.select_metric}"
  if not run.recommender.learned:
    return {valid: progress.best_value} if run.config.data.valid_share else {}
  if train.select_on == "last":
    return {}
  return {valid if train.select_on == "valid" else train.select_on: progress.best_value}
