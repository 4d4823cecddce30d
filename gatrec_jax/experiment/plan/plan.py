"""What a run would need: its stages, their memory, work and time, before anything is allocated."""

from __future__ import annotations

from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.experiment.plan import baselines, gat
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Plan

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


def make_plan(config: Config, sizes: Sizes, rates: Rates | None = None) -> Plan:
  """The stages of a run with these settings on data of these sizes.

  It reads nothing else, so that the same sizes give the same choices on every machine.

  Args: rates: of the machine, for seconds; None for memory alone.

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
  return Plan(tuple(stages), sizes, tuple(notes))
