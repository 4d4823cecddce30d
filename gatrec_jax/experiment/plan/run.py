"""The plan of a run from its data, and the check of its memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

from gatrec_jax import runs
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.experiment.plan.early import least_sizes
from gatrec_jax.experiment.plan.limit import limit_bytes, require_fits
from gatrec_jax.experiment.plan.plan import make_plan
from gatrec_jax.experiment.plan.rates import measure_rates
from gatrec_jax.experiment.plan.sizes import sizes_of
from gatrec_jax.experiment.plan.stage import Plan
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.memory import gibibytes
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.mesh import MeshShape
from gatrec_jax.stages.data import load_prepared, prepared_in_memory

# With fewer training rows the plan is a line, and no rates are measured.
_LARGE_ROWS = 300_000


def plan_run(
  config: Config,
  workdir: str | os.PathLike[str] | None = None,
  *,
  memory_limit: float | None = None,
  mesh: MeshShape | None = None,
) -> Plan:
  """What `train_and_evaluate` would need for the same configuration; it writes nothing.

  Args:
    workdir: its run folder, whose data are read if they are there; None = without one.
    memory_limit: in GiB; None = three quarters of what the machine or its cgroup has.
    mesh: as in `make_plan`; its devices need not be here.
  Raises:
    InputError: anything wrong with files, settings or data, or reading them does not fit.

  >>> import gatrec_jax as g
  >>> plan = g.plan_run(g.with_fields(g.get_preset("ease"), {"dataset": "demo"}))
  >>> [stage.name for stage in plan.stages]
  ['data', 'texts', 'graph', 'training', 'evaluation']
  """
  folder = None if workdir is None else user_path(workdir)
  is_read = folder is not None and has_data(folder)
  if not is_read:
    require_reading(config, memory_limit)
  prepared = load_prepared(folder) if is_read else prepared_in_memory(config.data)
  sizes = sizes_of(config, prepared, is_read=is_read)
  return make_plan(config, sizes, measure_rates(), mesh=mesh)


def has_data(folder: pathlib.Path) -> bool:
  """Whether a run folder has its data stage."""
  return (folder / "data" / runs.MANIFEST).exists()


def require_reading(config: Config, memory_limit: float | None) -> None:
  """Raises InputError where lower bounds say that a table that was not read yet cannot fit."""
  limit, sizes = limit_bytes(memory_limit), least_sizes(config)
  if sizes is not None:
    require_fits(make_plan(config, sizes), config, limit, at_least=True)


def require_memory(
  config: Config, prepared: Prepared, *, memory_limit: float | None, is_read: bool, log: Log
) -> None:
  """Says the plan of a run, and raises InputError where it does not fit.

  Args: memory_limit: as in `plan_run`. is_read: whether the data were in the run folder before.
  """
  limit = limit_bytes(memory_limit)
  sizes = sizes_of(config, prepared, is_read=is_read)
  plan = make_plan(config, sizes)
  require_fits(plan, config, limit)
  if sizes.train >= _LARGE_ROWS:
    plan = make_plan(config, sizes, measure_rates())
  for line in lines_of(plan, limit, is_long=sizes.train >= _LARGE_ROWS):
    log.info(f"plan: {line}")


def lines_of(plan: Plan, limit: int | None, *, is_long: bool) -> Iterator[str]:
  """The plan in words: a line, or one for each stage too. Args: limit: bytes; None = unknown."""
  of_limit = "" if limit is None else f" of {gibibytes(limit)}"
  time = "" if plan.seconds is None else f", about {in_words(plan.seconds)}"
  yield f"at most {gibibytes(plan.peak)}{of_limit}, in {plan.largest.name}{time}"
  if not is_long:
    return
  for stage, memory in zip(plan.stages, plan.memory, strict=True):
    time = "" if stage.seconds is None else f", {in_words(stage.seconds)}"
    yield f"{stage.name}: {gibibytes(memory)}{time}{f', {stage.choice}' if stage.choice else ''}"
  yield from plan.notes


def in_words(seconds: float) -> str:
  """A time with two digits at most: "8 s", "12 min", "3.5 h", "2.1 days".

  >>> [in_words(seconds) for seconds in (0.4, 90, 12_600, 200_000)]
  ['0.4 s', '90 s', '3.5 h', '2.3 days']
  """
  for size, word, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
    if seconds < most * size:
      return f"{seconds / size:.{int(seconds < 10 * size)}f} {word}"
  return f"{seconds / 86_400:.1f} days"
