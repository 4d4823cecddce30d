"""Test metrics of a run, or of any tool's lists:

python -m launch.evaluate --workdir=runs/ml-100k-u1-best-0 --protocol=both
python -m launch.evaluate --recommendations=lists.csv --dataset=ml-100k --fold=u1
"""

from launch.cli import flags as common

common.define(
  *common.DATA,
  "preset",
  "model",
  "seed",
  "workdir",
  *common.EVALUATE,
  "recommendations",
  "json_out",
  "trace",
)


def main() -> None:
  import dataclasses
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.config.overrides import with_fields
  from gatrec_jax.evaluate.files import read_recommendations
  from gatrec_jax.experiment.cold_start import cold_evaluations
  from gatrec_jax.experiment.evaluation import evaluate_lists, evaluate_run, results_json
  from gatrec_jax.runs import tracing
  from gatrec_jax.serve.run import load_run
  from gatrec_jax.stages.data import prepared_in_memory
  from launch.cli.results import print_results, profiled

  config = common.config_from_flags()
  flags, file = common.FLAGS, common.FLAGS["recommendations"].value
  if file:
    prepared = prepared_in_memory(config.data)
    interactions = prepared.interactions
    users, items = read_recommendations(
      file, user_ids=interactions.user_ids, item_ids=interactions.item_ids
    )
    with profiled(flags["trace"].value), tracing.part("the evaluation", last=True):
      evaluations = evaluate_lists(items, users, settings=config.evaluate, prepared=prepared)
    results = results_json(evaluations, recommendations=str(file))
    title, run = f"{common.label(config)} · {pathlib.Path(file).name}", None
  else:
    folder = common.workdir_from_flags(config)
    run = load_run(folder)
    common.require_agreement(run.config)
    given = {n: flags[n].value for n in common.EVALUATE if flags[n].present}
    run = dataclasses.replace(run, config=with_fields(run.config, given))
    with profiled(flags["trace"].value), tracing.part("the evaluation", last=True):
      evaluations = evaluate_run(run)[0] | cold_evaluations(run)
    results = results_json(evaluations, workdir=str(folder))
    title = f"{common.label(run.config)} · {folder}"
  print_results(results, title=title, run=run)
  if flags["json_out"].value:
    runs.write_json(pathlib.Path(flags["json_out"].value), results)


if __name__ == "__main__":
  common.run(main, __doc__)
