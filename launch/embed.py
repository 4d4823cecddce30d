"""Encodes the profiles as vectors.

  python -m launch.embed --dataset=ml-100k --fold=u1 --encoder=minilm

Writes embeddings/ in the run folder. launch.train also does this if they are missing.
"""

from launch.cli import DATA, RUN, TEXT, config_from_flags, define, run, workdir_from_flags

define(*DATA, *TEXT, *RUN)


def main() -> None:
  """Flags -> vectors of users and items."""
  from gatrec_jax import runs
  from gatrec_jax.experiment.train_and_evaluate import open_run
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.stages.data import prepare
  from gatrec_jax.stages.texts import embed_run

  config = config_from_flags()
  folder = open_run(config, workdir_from_flags(config))
  with runs.locked(folder):
    prepared = prepare(config.data, folder, log=CONSOLE)
    if config.model.reads_text:
      embed_run(config.text, folder, prepared, data=config.data, log=CONSOLE)


if __name__ == "__main__":
  run(main, __doc__)
