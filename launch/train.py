"""Trains a recommender and reports its test metrics.

  python -m launch.train --dataset=ml-100k --fold=u1
  python -m launch.train --model=ease --dataset=ml-1m
  python -m launch.train --dataset=plays.csv --user_column=listener --item_column=track

Missing data, profiles and vectors are created along the way. If a run is stopped, the same
command continues from its last checkpoint. Results are written to WORKDIR/results.json.

--refit trains twice: without the validation ratings to choose the number of epochs (in
WORKDIR/choosing), then with them. Re-ranking needs a run without --refit.

--mesh trains on several devices. --coordinator uses those of several processes, each started with
the same command and its own --process_id.

--plan_only prints what the run would need: memory, work and time by stage. What does not fit into
--memory_limit is refused before it is allocated, with settings that would fit.

--search first searches hyperparameters on validation ratings; see WORKDIR/search/trials.parquet.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from launch.cli import (
  DATA,
  EVALUATE,
  FLAGS,
  RUN,
  TEXT,
  config_from_flags,
  data_label,
  define,
  path_flag,
  require_writable,
  run,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from jax.sharding import Mesh

  from gatrec_jax.config.schema import Config

define(
  *DATA,
  *TEXT,
  *RUN,
  *EVALUATE,
  "search",
  "search_space",
  "search_seed",
  "refit",
  "memory_limit",
  "plan_only",
  "json_out",
  "trace",
  "mesh",
  "coordinator",
  "num_processes",
  "process_id",
  refit="false",
)


def main() -> None:
  """Flags -> config and mesh -> a trained run -> tables."""
  import jax

  from gatrec_jax import runs
  from gatrec_jax.experiment.grid import train_alike
  from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
  from gatrec_jax.runs.log import CONSOLE, SILENT
  from gatrec_jax.serve.run import load_run
  from gatrec_jax.sharding.mesh import parse_mesh_shape
  from launch.cli.plan import print_plan
  from launch.cli.results import print_results, traced

  require_writable("json_out")
  config = config_from_flags()
  workdir = workdir_from_flags(config)
  if FLAGS.plan_only:
    mesh = parse_mesh_shape(FLAGS.mesh)
    plan = print_plan(config, workdir, memory_limit=FLAGS.memory_limit, mesh=mesh)
    if FLAGS.json_out:
      runs.write_json(path_flag("json_out"), plan.to_json())
    return
  mesh = mesh_from_flags()
  with traced(FLAGS.trace):
    log = CONSOLE if jax.process_index() == 0 else SILENT
    config = searched(config, workdir, mesh)
    common = dict(memory_limit=FLAGS.memory_limit, mesh=mesh, log=log)
    if FLAGS.refit:
      results = train_alike(config, workdir, refit=True, **common)
      trained = load_run(workdir)
    else:
      trained, results = train_and_evaluate(config, workdir, **common)
  if jax.process_index():
    return
  print_results(results, title=f"{data_label(config)} · {workdir}", run=trained)
  if FLAGS.json_out:
    runs.write_json(path_flag("json_out"), results)


def mesh_from_flags() -> Mesh | None:
  """The mesh of --mesh over the devices of all processes. Raises InputError."""
  import jax

  from gatrec_jax.errors import InputError
  from gatrec_jax.sharding.mesh import parse_mesh, start_processes

  if FLAGS.coordinator:
    if FLAGS.search or FLAGS.refit:
      raise InputError(
        "several processes train a single run, without `search` or `refit`", field="coordinator"
      )
    start_processes(
      FLAGS.coordinator, num_processes=FLAGS.num_processes, process_id=FLAGS.process_id
    )
  elif FLAGS.num_processes is not None or FLAGS.process_id is not None:
    raise InputError("`num_processes` and `process_id` need `coordinator=HOST:PORT`")
  mesh, devices = parse_mesh(FLAGS.mesh), jax.device_count()
  if jax.process_count() > 1 and (mesh is None or mesh.size != devices):
    raise InputError(
      f"several processes need a mesh of all their devices, here {devices}, such as 1x{devices}x1",
      field="mesh",
      value=FLAGS.mesh,
    )
  return mesh


def searched(config: Config, workdir: pathlib.Path, mesh: Mesh | None) -> Config:
  """The best configuration found by --search, or `config` without it. Raises InputError."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE

  if not FLAGS.search:
    if FLAGS.search_space or FLAGS.search_seed:
      raise InputError("`search_space` and `search_seed` need `search=N`")
    return config
  from gatrec_jax.experiment.search import search

  return search(
    config,
    workdir,
    budget=FLAGS.search,
    space=FLAGS.search_space,
    seed=FLAGS.search_seed,
    mesh=mesh,
    log=CONSOLE,
  )


if __name__ == "__main__":
  run(main, __doc__)
