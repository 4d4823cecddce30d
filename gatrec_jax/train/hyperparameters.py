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
from gatrec_jax.models.base import Recommender
from gatrec_jax.ops.numeric import is_off

Dynamic = dict[str, Any]  # name -> [] float32, of the seed [] uint32; of a sweep [n] each
M = TypeVar("M", bound=Recommender)

DYNAMIC_FIELDS = (
  "seed",
  "learning_rate",
  "weight_decay",
  "l2_weight",
  "bpr_weight",
  "cosine_weight",
  "gradient_clip",
)
"""Fields of TrainConfig that are numbers to a compiled step."""

# Read in scoring too: parameters would then no longer say alone what is recommended.
_SCORED_WITH = (
  "attention_slope",
  "activation_slope",
  "linear_weight",
  "linear_l2",
  "linear_rated_l2",
  "unrated_l2",
  "unrated_shift",
)
# What stands in the static settings for a number that was taken out.
_TAKEN = 1


def dynamic_names(settings: Any) -> tuple[str, ...]:
  """The fields of a method's settings that are numbers to a compiled program: its floats."""
  return tuple(
    field.name
    for field in dataclasses.fields(settings)
    if field.type in ("float", float) and field.name not in _SCORED_WITH
  )


def split_settings(recommender: M, *, also: Collection[str] = ()) -> tuple[Dynamic, M]:
  """Takes the numbers out of a method's settings.

  A number that is 0 stays: it means that something is left out of the program (`is_off`).

  Args: method. also: names of numbers that are taken even if 0.
  Returns: the numbers, and the method with the same settings whatever they were.
  """
  dynamic, settings = _taken(recommender.settings, dynamic_names(recommender.settings), also)
  return dynamic, dataclasses.replace(recommender, settings=settings)


def split_dynamic(
  recommender: M, config: TrainConfig, *, also: Collection[str] = ()
) -> tuple[Dynamic, M, TrainConfig]:
  """The same for a method and its training; the seed is always taken."""
  dynamic, recommender = split_settings(recommender, also=also)
  of_training, config = _taken(config, DYNAMIC_FIELDS, {"seed", *also})
  return dynamic | of_training, recommender, config


def recommender_with(recommender: M, dynamic: Dynamic) -> M:
  """The method with the numbers in their places again, traced or not."""
  return dataclasses.replace(recommender, settings=_with(recommender.settings, dynamic))


def with_dynamic(recommender: M, config: TrainConfig, dynamic: Dynamic) -> tuple[M, TrainConfig]:
  """The inverse of `split_numbers`, to be called where the numbers are traced."""
  return recommender_with(recommender, dynamic), _with(config, dynamic)


def as_dynamic(name: str, value: Any) -> Any:
  """A Python number as a program takes it; a traced one as it is."""
  if isinstance(value, jax.Array):
    return value
  return np.uint32(value) if name == "seed" else np.float32(value)


def _taken(settings: Any, names: Collection[str], also: Collection[str]) -> tuple[Dynamic, Any]:
  values = {name: getattr(settings, name) for name in names}
  dynamic = {
    name: as_dynamic(name, value)
    for name, value in values.items()
    if name in also or not is_off(value)
  }
  return dynamic, dataclasses.replace(settings, **dict.fromkeys(dynamic, _TAKEN))


def _with(settings: Any, dynamic: Dynamic) -> Any:
  names = {field.name for field in dataclasses.fields(settings)}
  return dataclasses.replace(settings, **{n: v for n, v in dynamic.items() if n in names})
