"""Trains a recommender and ends with its test metrics: python -m launch.train --dataset=ml-100k

Everything that is missing is made on the way: data, profiles, vectors. A run that was stopped goes
on from its last checkpoint when the same command is given again. Results: WORKDIR/results.json.

With --refit the model is trained twice: without the validation ratings to choose its number of
epochs (in WORKDIR/choosing), then with them. Re-ranking needs a run that has kept them apart.

With --search the settings are searched first, on validation ratings: WORKDIR/search/trials.parquet.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from launch import common

if TYPE_CHECKING:
  from gatrec_jax.config import Config

common.define(*common.DATA, *common.TEXT, *common.RUN, *common.EVALUATE, "search", "search_space",
              "search_seed", "refit", "json_out", "profile", refit="false")


def main() -> None:
  from gatrec_jax import runs
  from gatrec_jax.train.grid import train_alike
  from gatrec_jax.train.pipeline import train_and_evaluate
  from gatrec_jax.train.serving import load_run
  from launch.tables import print_results, profiled

  config = common.config_from_flags()
  workdir = common.workdir_from_flags(config)
  with profiled(common.FLAGS["profile"].value):
    config = searched(config, workdir)
    if common.FLAGS["refit"].value:
      results = train_alike(config, workdir, refit=True, say=common.say)
      run = load_run(workdir)
    else:
      run, results = train_and_evaluate(config, workdir, say=common.say)
  print_results(results, title=f"{common.label(config)} · {workdir}", run=run)
  if common.FLAGS["json_out"].value:
    runs.write_json(pathlib.Path(common.FLAGS["json_out"].value), results)


def searched(config: Config, workdir: pathlib.Path) -> Config:
  """The best settings by --search, or `config` where there is none. Raises InputError."""
  from gatrec_jax.errors import InputError

  budget, space, seed = (common.FLAGS[n].value for n in ("search", "search_space", "search_seed"))
  if not budget:
    if space or seed:
      raise InputError("--search_space and --search_seed: only with --search=N")
    return config
  from gatrec_jax.train.search import search

  return search(config, workdir, budget=budget, space=space, seed=seed, say=common.say)


if __name__ == "__main__":
  common.run(main, __doc__)
