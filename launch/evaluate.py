"""Computes test metrics of a run, or of lists made by any tool.

  python -m launch.evaluate --workdir=runs/ml-100k-u1-best-0 --protocol=both
  python -m launch.evaluate --recommendations=lists.parquet
  python -m launch.evaluate --recommendations=lists.csv --workdir=runs/ml-100k-u1-best-0
  python -m launch.evaluate --recommendations=lists.csv --dataset=ml-100k --fold=u1

--protocol=full ranks every item that the user has not rated in training. --protocol=judged keeps
only the items that the user rated in the test part; the two are not comparable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.cli import (
  DATA,
  EVALUATE,
  FLAGS,
  config_from_flags,
  data_label,
  define,
  given_fields,
  path_flag,
  require_agreement,
  require_writable,
  run,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from pathlib import Path

  from gatrec_jax.config.schema import Config, EvaluateConfig
  from gatrec_jax.data.prepared import Prepared
  from gatrec_jax.serve.run import Run

define(
  *DATA,
  "preset",
  "model",
  "seed",
  "workdir",
  "verify",
  *EVALUATE,
  "recommendations",
  "json_out",
  "trace",
)


def main() -> None:
  """Flags -> metrics of a run or of a file -> tables."""

  from gatrec_jax import runs
  from launch.cli.results import print_results

  require_writable("json_out")
  config = config_from_flags()
  if FLAGS.recommendations:
    results, title, opened = evaluate_file(config, FLAGS.recommendations)
  else:
    results, title, opened = evaluate_folder(workdir_from_flags(config))
  print_results(results, title=title, run=opened)
  if FLAGS.json_out:
    runs.write_json(path_flag("json_out"), results)


def evaluate_file(config: Config, file: str) -> tuple[dict[str, Any], str, None]:
  """Metrics of the lists in a file, and a title."""
  import pathlib

  from gatrec_jax.evaluate.files import read_recommendations
  from gatrec_jax.experiment.evaluation import evaluate_lists, results_json
  from gatrec_jax.runs import tracing
  from launch.cli.results import traced

  config, prepared = data_of_lists(config, file)
  ids = prepared.interactions
  users, items = read_recommendations(file, user_ids=ids.user_ids, item_ids=ids.item_ids)
  settings = within_lists(config.evaluate, items.shape[1])
  with traced(FLAGS.trace), tracing.part("the evaluation", last=True):
    evaluations = evaluate_lists(items, users, settings=settings, prepared=prepared)
  results = results_json(evaluations, recommendations=str(file))
  return results, f"{data_label(config)} · {pathlib.Path(file).name}", None


def within_lists(settings: EvaluateConfig, longest: int) -> EvaluateConfig:
  """The settings without the cut-offs that no list reaches, and a line that says which these are.

  If the lists are shorter than all of them and `ks` was not given, the longest list is the cut-off.

  Args: longest: number of items in the longest list.
  Raises: InputError: no list reaches a cut-off that was given.
  """
  import dataclasses

  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE

  above = [k for k in settings.ks if k > longest]
  if not above:
    return settings
  kept = tuple(k for k in settings.ks if k <= longest)
  if not kept and FLAGS["ks"].present:
    raise InputError(f"the longest list has {longest} items", field="ks", value=FLAGS.ks)
  kept = kept or (longest,)
  CONSOLE.info(
    f"the longest list has {longest} items, so the cut-offs are {','.join(map(str, kept))}, "
    f"without {','.join(map(str, above))}"
  )
  return dataclasses.replace(settings, ks=kept)


def data_of_lists(config: Config, file: str) -> tuple[Config, Prepared]:
  """The settings and the data that a file of lists is evaluated with.

  They are those of --workdir, else of --dataset, else of the run that made the file.

  Args: config: of the flags.
  Raises: InputError: none of these is there.
  """

  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.files import run_of_lists
  from gatrec_jax.runs.paths import user_path
  from gatrec_jax.stages.config_file import read_config
  from gatrec_jax.stages.data import load_prepared, prepared_in_memory

  if FLAGS.workdir:
    folder = workdir_from_flags(config)
  elif FLAGS["dataset"].present:
    return config, prepared_in_memory(config.data)
  else:
    folder = run_of_lists(file)
  if folder is None and not user_path(file).is_file():
    raise InputError("there is no such file", field="recommendations", value=file)
  if folder is None:
    raise InputError(
      "does not say which run made it; give that run's `workdir`, or the data's `dataset`",
      field="recommendations",
      value=file,
    )
  own = read_config(folder)
  require_agreement(own)
  return with_evaluation_flags(own), load_prepared(folder)


def with_evaluation_flags(config: Config) -> Config:
  """A run's settings with those of the evaluation that were given as flags."""
  from gatrec_jax.config.overrides import with_fields

  changed = {name: value for name, value in given_fields().items() if name in EVALUATE}
  return with_fields(config, changed)


def evaluate_folder(folder: Path) -> tuple[dict[str, Any], str, Run]:
  """Metrics of a run with the evaluation settings of the flags, a title, and the run."""
  import dataclasses

  from gatrec_jax.errors import InputError
  from gatrec_jax.experiment.cold_start import cold_evaluations
  from gatrec_jax.experiment.evaluation import evaluate_run, results_json
  from gatrec_jax.runs import tracing
  from gatrec_jax.serve.run import load_run
  from launch.cli.results import traced

  opened = load_run(folder)
  require_agreement(opened.config)
  if not len(opened.prepared.split.test):
    raise InputError(
      f"{folder}: was trained on all ratings (`split=none`), so none are left to test"
    )
  opened = dataclasses.replace(opened, config=with_evaluation_flags(opened.config))
  with traced(FLAGS.trace), tracing.part("the evaluation", last=True):
    evaluations = evaluate_run(opened)[0] | cold_evaluations(opened)
  results = results_json(evaluations, workdir=str(folder))
  return results, f"{data_label(opened.config)} · {folder}", opened


if __name__ == "__main__":
  run(main, __doc__)
