"""Settings that are plain numbers, as arguments of compiled programs instead of parts of them.

A jitted function compiles anew for every new value of a static argument. So the numbers among the
settings of a method and of its training (the seed, rates, weights, dropouts, temperatures) are
taken out before the call and put back within the traced function: another seed or learning rate
then meets the program that is there, and a sweep may give it many at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import jax
import numpy as np

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import Method
from gatrec_jax.ops.numeric import is_off

Numbers = dict[str, Any]  # name -> [] float32, of the seed [] uint32; of a sweep [n] each
M = TypeVar("M", bound=Method)

TRAINING_NUMBERS = (
  "seed", "learning_rate", "weight_decay", "l2_weight", "bpr_weight", "cosine_weight",
  "gradient_clip",
)  # fmt: skip
"""Fields of TrainConfig that are numbers to a compiled step."""

# Read in scoring too: parameters would then no longer say alone what is recommended.
_SCORED_WITH = (
  "attention_slope", "activation_slope", "linear_weight", "linear_l2", "linear_rated_l2",
  "unrated_l2", "unrated_shift",
)  # fmt: skip
# What stands in the static settings for a number that was taken out.
_TAKEN = 1


def number_names(settings: Any) -> tuple[str, ...]:
  """The fields of a method's settings that are numbers to a compiled program: its floats."""
  return tuple(
    field.name
    for field in dataclasses.fields(settings)
    if field.type in ("float", float) and field.name not in _SCORED_WITH
  )


def split_method(method: M, *, also: Collection[str] = ()) -> tuple[Numbers, M]:
  """Takes the numbers out of a method's settings.

  A number that is 0 stays: it means that something is left out of the program (`is_off`).

  Args: method. also: names of numbers that are taken even if 0.
  Returns: the numbers, and the method with the same settings whatever they were.
  """
  numbers, settings = _taken(method.settings, number_names(method.settings), also)
  return numbers, dataclasses.replace(method, settings=settings)


def split_numbers(
  method: M, config: TrainConfig, *, also: Collection[str] = ()
) -> tuple[Numbers, M, TrainConfig]:
  """The same for a method and its training; the seed is always taken."""
  numbers, method = split_method(method, also=also)
  of_training, config = _taken(config, TRAINING_NUMBERS, {"seed", *also})
  return numbers | of_training, method, config


def method_with(method: M, numbers: Numbers) -> M:
  """The method with the numbers in their places again, traced or not."""
  return dataclasses.replace(method, settings=_with(method.settings, numbers))


def with_numbers(
  method: M, config: TrainConfig, numbers: Numbers
) -> tuple[M, TrainConfig]:
  """The inverse of `split_numbers`, to be called where the numbers are traced."""
  return method_with(method, numbers), _with(config, numbers)


def as_number(name: str, value: Any) -> Any:
  """A Python number as a program takes it; a traced one as it is."""
  if isinstance(value, jax.Array):
    return value
  return np.uint32(value) if name == "seed" else np.float32(value)


def _taken(
  settings: Any, names: Collection[str], also: Collection[str]
) -> tuple[Numbers, Any]:
  values = {name: getattr(settings, name) for name in names}
  numbers = {
    name: as_number(name, value)
    for name, value in values.items()
    if name in also or not is_off(value)
  }
  return numbers, dataclasses.replace(settings, **dict.fromkeys(numbers, _TAKEN))


def _with(settings: Any, numbers: Numbers) -> Any:
  names = {field.name for field in dataclasses.fields(settings)}
  return dataclasses.replace(settings, **{n: v for n, v in numbers.items() if n in names})
