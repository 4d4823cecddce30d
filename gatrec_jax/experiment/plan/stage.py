"""What a plan consists of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  from gatrec_jax.experiment.plan.sizes import Sizes

# A process with JAX, Flax and pyarrow imported.
BASE_BYTES = 290 << 20
# What stays of the programs of a stage, and of Orbax in training: compiled, or read from the cache,
# which takes a hundred MiB less.
_PROGRAMS = {"graph": 100 << 20, "training": 180 << 20, "evaluation": 60 << 20}


class Stage(NamedTuple):
  """A stage of a run.

  Attributes:
    name: as in `results.json`.
    choice: what is done there, in words; "" where there is no choice.
    peak: bytes that it needs beside what earlier stages left.
    left: bytes of it that stay in memory.
    work: how many of `unit`: FLOPs, edges, rows, texts or scores.
    unit: of the work.
    seconds: None where no rates were measured.
  """

  name: str
  choice: str
  peak: float
  left: float
  work: float
  unit: str
  seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
  """The stages of a run, in their order.

  Attributes:
    stages: each once.
    sizes: that they follow from.
    notes: what the figures leave open, a line each.
  """

  stages: tuple[Stage, ...]
  sizes: Sizes
  notes: tuple[str, ...] = ()

  @property
  def memory(self) -> tuple[int, ...]:
    """Bytes of the whole process in each stage: its own, those of earlier stages, and the base."""
    found, held = [], float(BASE_BYTES)
    for stage in self.stages:
      held += _PROGRAMS.get(stage.name, 0)
      found.append(round(held + stage.peak))
      held += stage.left
    return tuple(found)

  @property
  def peak(self) -> int:
    """Bytes of the largest stage."""
    return max(self.memory)

  @property
  def largest(self) -> Stage:
    """The stage that needs most."""
    return self.stages[self.memory.index(self.peak)]

  @property
  def seconds(self) -> float | None:
    """Of all stages; None where no rates were measured."""
    seconds = [stage.seconds for stage in self.stages]
    return None if None in seconds else sum(seconds)

  def to_json(self) -> dict[str, dict[str, dict[str, Any]]]:
    """`stages` by name, each with `choice`, `memory_mb`, `work`, `unit` and `seconds`."""
    return {
      "stages": {
        stage.name: {
          "choice": stage.choice,
          "memory_mb": memory >> 20,
          "work": stage.work,
          "unit": stage.unit,
          "seconds": stage.seconds,
        }
        for stage, memory in zip(self.stages, self.memory, strict=True)
      }
    }
