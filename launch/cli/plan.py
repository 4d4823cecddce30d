"""The table of --plan_only: what a run would need."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from launch.cli.config_flags import data_label
from launch.cli.grid import Table, print_grid

if TYPE_CHECKING:
  from gatrec_jax.config.schema import Config
  from gatrec_jax.experiment.plan.stage import Plan
  from gatrec_jax.sharding.mesh import MeshShape

_HEADER = ("stage", "choice", "memory, GiB", "work", "time")


def print_plan(
  config: Config,
  workdir: pathlib.Path,
  *,
  memory_limit: float | None,
  mesh: MeshShape | None = None,
) -> Plan:
  """Prints the plan of a run.

  Args: mesh: also says what its devices need.
  Raises: InputError where it does not fit one device, after the table, unless there is a mesh.
  """
  from gatrec_jax.experiment.plan.limit import limit_bytes, require_fits
  from gatrec_jax.experiment.plan.run import plan_run

  limit = limit_bytes(memory_limit)
  plan = plan_run(config, workdir, memory_limit=memory_limit, mesh=mesh)
  print_grid(table_of(plan, title=f"{data_label(config)} · {config.preset}"))
  if mesh is None:
    require_fits(plan, config, limit)
  return plan


def table_of(plan: Plan, *, title: str) -> Table:
  """A row for each stage, and one of all: their largest memory and the sum of their times."""
  from gatrec_jax.experiment.plan.run import in_words

  def time(seconds: float | None) -> str:
    return "–" if seconds is None else in_words(seconds)

  rows = [
    (
      stage.name,
      stage.choice or "–",
      f"{memory / 2**30:.2f}",
      f"{stage.work:.2g} {stage.unit}" if stage.work else "–",
      time(stage.seconds),
    )
    for stage, memory in zip(plan.stages, plan.memory, strict=True)
  ]
  rows.append(("together", "", f"{plan.peak / 2**30:.2f}", "", time(plan.seconds)))
  return Table(title, _HEADER, rows, plan.notes)
