"""Reads and splits a data set and builds the profiles: python -m launch.prepare --dataset=ml-100k

Writes data/ and profiles/ in the run folder. launch.train does this too where it is missing.
"""

from launch.cli import flags as common

common.define(*common.DATA, *common.TEXT, *common.RUN)


def main() -> None:
  from gatrec_jax import runs
  from gatrec_jax.experiment.train_and_evaluate import open_run
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.stages.data import prepare
  from gatrec_jax.stages.texts import build_profiles

  config = common.config_from_flags()
  folder = open_run(config, common.workdir_from_flags(config))
  with runs.locked(folder):
    prepared = prepare(config.data, folder, log=CONSOLE)
    build_profiles(config.text, folder, prepared, data=config.data, log=CONSOLE)


if __name__ == "__main__":
  common.run(main, __doc__)
