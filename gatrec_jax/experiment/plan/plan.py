"""What a run would need: its stages, their memory, work and time, before anything is allocated."""

from __future__ import annotations

import dataclasses

from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.experiment.plan import baselines, gat
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Plan
from gatrec_jax.runs.memory import gibibytes
from gatrec_jax.sharding.mesh import MeshShape

# Seconds of importing what a stage needs, and of compiling its programs the first time (two cores).
_STARTING = {
  "data": 2.0,
  "texts": 0.5,
  "linear": 1.0,
  "graph": 0.5,
  "training": 8.0,
  "validation": 4.0,
  "evaluation": 3.0,
}


# What every host of a mesh does with all rows, before devices have their parts.
_ON_HOSTS = ("data", "texts", "linear", "graph")


def make_plan(
  config: Config, sizes: Sizes, rates: Rates | None = None, *, mesh: MeshShape | None = None
) -> Plan:
  """The stages of a run with these settings on data of these sizes.

  It reads nothing else, so that the same sizes give the same choices on every machine.

  Args: rates: of the machine, for seconds; None for memory alone. mesh: the stages are those of one
    device; a note says what each device of a mesh needs, or that only the GAT has such a plan.

  >>> from gatrec_jax.config.presets import get_preset
  >>> from gatrec_jax.experiment.plan.sizes import sizes_of_table
  >>> config = get_preset("best")
  >>> sizes = sizes_of_table(config, users=29_858, items=40_981, ratings=1_027_370)
  >>> plan = make_plan(config, sizes)
  >>> [stage.choice for stage in plan.stages if stage.name == "linear"]
  ['spectral: 256 eigenvectors, 32 neighbors']
  """
  is_gat = isinstance(config.model, ModelConfig)
  stages = (gat if is_gat else baselines).stages(config, sizes, rates)
  if rates is not None:
    stages = [one._replace(seconds=one.seconds + _STARTING.get(one.name, 0.0)) for one in stages]
  notes = []
  train = config.train
  if config.model.learned and train.select_on != "last":
    notes.append(
      f"training stops {train.patience} epochs after the best one, at the latest after "
      f"{train.epochs}: the time is that of {gat.expected_epochs(config):g}, a guess"
    )
  plan = Plan(tuple(stages), sizes, tuple(notes))
  if mesh is None:
    return plan
  if not is_gat:
    note = f"what devices of a mesh need is planned for the GAT alone, not for {config.model.kind}"
    return dataclasses.replace(plan, notes=(*plan.notes, note))
  of_device, fixed = gat.bytes_a_device(config, sizes, mesh)
  of_host = max(
    memory
    for stage, memory in zip(plan.stages, plan.memory, strict=True)
    if stage.name in _ON_HOSTS
  )
  note = (
    f"on a mesh of {mesh} training needs {gibibytes(of_device)} on each device, "
    f"{gibibytes(fixed)} with any number of them along `graph`; before it, each host reads all "
    f"rows and makes the graph with {gibibytes(of_host)}"
  )
  return dataclasses.replace(plan, notes=(*plan.notes, note))
