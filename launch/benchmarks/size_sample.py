"""Trains and validates as launch.train does, but makes no lists; for suite `size`."""

from __future__ import annotations

from launch.cli import DATA, EVALUATE, RUN, TEXT, config_from_flags, define, path_flag, run

define(*DATA, *TEXT, *RUN, *EVALUATE, "json_out")


def main() -> None:
  """Flags -> a trained run -> what its stages took, in --json_out."""
  from gatrec_jax import runs
  from gatrec_jax.experiment.train_and_evaluate import open_run, train
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.runs.usage import Usage
  from gatrec_jax.stages.data import prepare

  config = config_from_flags()
  folder = open_run(config, path_flag("workdir"))
  usage = Usage()
  with runs.locked(folder):
    with usage.part("data"):
      prepared = prepare(config.data, folder, log=CONSOLE)
    train(config, folder, prepared, log=CONSOLE, usage=usage)
  parts = usage.to_json()
  parts.pop("evaluation")  # the serving state alone
  runs.write_json(path_flag("json_out"), {"stages": parts})


if __name__ == "__main__":
  run(main, __doc__)
