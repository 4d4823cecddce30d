"""Trains a recommender and ends with its test metrics: python -m launch.train --dataset=ml-100k

Everything that is missing is made on the way: data, profiles, vectors. A run that was stopped goes
on from its last checkpoint when the same command is given again. Results: WORKDIR/results.json.
"""

from launch import common

common.define(*common.DATA, *common.TEXT, *common.RUN, *common.EVALUATE, "json_out")


def main() -> None:
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.train.pipeline import train_and_evaluate
  from launch.tables import print_results

  config = common.config_from_flags()
  workdir = common.workdir_from_flags(config)
  run, results = train_and_evaluate(config, workdir, say=common.say)
  print_results(results, title=f"{common.label(config)} · {workdir}", run=run)
  if common.FLAGS["json_out"].value:
    runs.write_json(pathlib.Path(common.FLAGS["json_out"].value), results)


if __name__ == "__main__":
  common.run(main, __doc__)
