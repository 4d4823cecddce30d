"""Trains a recommender and ends with its test metrics: python -m launch.train --dataset=ml-100k

Everything that is missing is made on the way: data, profiles, vectors. A run that was stopped goes
on from its last checkpoint when the same command is given again. Results: WORKDIR/results.json.

With --refit the model is trained twice: without the validation ratings to choose its number of
epochs (in WORKDIR/choosing), then with them. Re-ranking needs a run that has kept them apart.

With --mesh training runs on several devices; with --coordinator on those of several processes, each
started by the same command with its own --process_id.

With --search the settings are searched first, on validation ratings: WORKDIR/search/trials.parquet.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from launch.cli import flags as common

if TYPE_CHECKING:
  from jax.sharding import Mesh

  from gatrec_jax.config.schema import Config

common.define(
  *common.DATA,
  *common.TEXT,
  *common.RUN,
  *common.EVALUATE,
  "search",
  "search_space",
  "search_seed",
  "refit",
  "json_out",
  "trace",
  "mesh",
  "coordinator",
  "num_processes",
  "process_id",
  refit="false",
)


def main() -> None:
  import jax

  from gatrec_jax import runs
  from gatrec_jax.experiment.grid import train_alike
  from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
  from gatrec_jax.runs.log import CONSOLE, SILENT
  from gatrec_jax.serve.run import load_run
  from launch.cli.results import print_results, profiled

  config = common.config_from_flags()
  workdir = common.workdir_from_flags(config)
  mesh = mesh_from_flags()
  with profiled(common.FLAGS["trace"].value):
    log = CONSOLE if jax.process_index() == 0 else SILENT
    config = searched(config, workdir, mesh)
    if common.FLAGS["refit"].value:
      results = train_alike(config, workdir, refit=True, mesh=mesh, log=log)
      run = load_run(workdir)
    else:
      run, results = train_and_evaluate(config, workdir, mesh=mesh, log=log)
  if jax.process_index():
    return
  print_results(results, title=f"{common.label(config)} · {workdir}", run=run)
  if common.FLAGS["json_out"].value:
    runs.write_json(pathlib.Path(common.FLAGS["json_out"].value), results)


def mesh_from_flags() -> Mesh | None:
  """The mesh of --mesh, over all processes of --coordinator. Raises InputError."""
  import jax

  from gatrec_jax.errors import InputError
  from gatrec_jax.sharding.mesh import parse_mesh, start_processes

  flags = {
    name: common.FLAGS[name].value
    for name in ("mesh", "coordinator", "num_processes", "process_id", "search", "refit")
  }
  if flags["coordinator"]:
    if flags["search"] or flags["refit"]:
      raise InputError("--coordinator: several processes train one run, without --search, --refit")
    start_processes(
      flags["coordinator"], num_processes=flags["num_processes"], process_id=flags["process_id"]
    )
  elif flags["num_processes"] is not None or flags["process_id"] is not None:
    raise InputError("--num_processes and --process_id: only with --coordinator=HOST:PORT")
  mesh, devices = parse_mesh(flags["mesh"]), jax.device_count()
  if jax.process_count() > 1 and (mesh is None or mesh.size != devices):
    raise InputError(
      f"--mesh={flags['mesh']}: several processes need a mesh of all their devices, here "
      f"{devices}, such as 1x{devices}x1"
    )
  return mesh


def searched(config: Config, workdir: pathlib.Path, mesh: Mesh | None) -> Config:
  """The best settings by --search, or `config` where there is none. Raises InputError."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE

  budget, space, seed = (common.FLAGS[n].value for n in ("search", "search_space", "search_seed"))
  if not budget:
    if space or seed:
      raise InputError("--search_space and --search_seed: only with --search=N")
    return config
  from gatrec_jax.experiment.search import search

  return search(config, workdir, budget=budget, space=space, seed=seed, mesh=mesh, log=CONSOLE)


if __name__ == "__main__":
  common.run(main, __doc__)
