"""The plan of a sweep: the numbers of each setting, and how many settings fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.schema import Config, TrainConfig
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import Recommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.train.hyperparameters import Dynamic, dynamic_names, split_dynamic


class Work(Protocol):
  """Training or fitting of groups of settings."""

  lanes: int

  def least_bytes(self, dynamic: Dynamic) -> int:
    """Bytes of one setting without temporaries."""

  def compile(self, dynamic: Dynamic) -> Sequence[tuple[Any, int]]:
    """The programs for a group of the size of `dynamic` [n], and bytes held beside each."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the settings of a sweep are grouped.

  Attributes:
    group_size: settings in one run of the program.
    lanes: runs at a time.
    memory_mb: what the lanes take together.
  """

  group_size: int
  lanes: int
  memory_mb: float


def stacked_dynamic(
  recommender: Recommender, config: TrainConfig, settings: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], Recommender, TrainConfig]:
  """[n] values of every number of n settings, and the settings that are the same for all.

  Raises:
    InputError: no settings, a field that is not a dynamic number, or an impossible value.
  """
  if not settings:
    raise InputError("sweep: give at least one setting")
  own = dynamic_names(recommender.settings)
  used = dynamic_names(config) if recommender.settings.learned else ("seed",)
  base = Config(model=recommender.settings, train=config)
  varied = {name for setting in settings for name in setting}
  rows = []
  for setting in settings:
    changed = with_fields(base, setting)
    if other := [name for name in setting if name not in (*own, *used)]:
      raise InputError(
        f"{other[0]} changes the program; a sweep varies numbers only: {', '.join((*used, *own))}"
      )
    dynamic, common, common_config = split_dynamic(
      dataclasses.replace(recommender, settings=changed.model), changed.train, also=varied
    )
    rows.append(dynamic)
  stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  if "gradient_clip" in varied:  # as a number 0 would not mean "none"
    clip = stacked["gradient_clip"]
    stacked["gradient_clip"] = np.where(clip == 0, np.float32(np.inf), clip)
  return stacked, common, common_config


def fitting_plan(
  work: Work,
  inputs: Inputs,
  dynamic: Mapping[str, np.ndarray],
  *,
  num_settings: int,
  memory_mb: float,
) -> Plan:
  """The largest groups within the budget; `work` then has its programs for that group size.

  Shapes give an upper bound of the size. The size of temporaries is known only for a compiled
  program, which is compiled again for a smaller group where they were too large.

  Raises:
    InputError: not even one setting fits.
  """
  budget, fixed = memory_mb * 2**20, tree_bytes(inputs)
  least = work.least_bytes(dynamic)
  lanes = max(1, min(work.lanes, num_settings, int((budget - fixed) // max(least, 1))))
  size = min(-(-num_settings // lanes), int((budget - fixed) // max(lanes * least, 1)))
  if size < 1:
    raise _too_little(memory_mb, fixed + least)
  while True:
    part = {name: values[:1].repeat(size) for name, values in dynamic.items()}
    each = max(_own_bytes(program, fixed) + more for program, more in work.compile(part))
    if fixed + lanes * each <= budget:
      return Plan(size, lanes, (fixed + lanes * each) / 2**20)
    if size > 1:
      size = max(1, min(size - 1, int(size * (budget - fixed) / (lanes * each))))
    elif lanes > 1:
      lanes = max(1, min(lanes - 1, int((budget - fixed) // each)))
    else:
      raise _too_little(memory_mb, fixed + each)


def tree_bytes(tree: Any) -> int:
  """Bytes of all arrays (or shapes) of a tree."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _own_bytes(program: Any, fixed: int) -> int:
  """Bytes of a run of a compiled program beside `fixed` bytes of inputs."""
  used = program.memory_analysis()
  held = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
  return held - fixed + used.temp_size_in_bytes


def _too_little(memory_mb: float, needed: int) -> InputError:
  return InputError(
    f"memory_mb={memory_mb}: not even one setting fits; it takes {needed / 2**20:.1f} MB"
  )
