"""Dynamic hyperparameters: settings that compiled programs take as arguments.

A jitted function is compiled again for every new value of a static argument. So the settings that a
field declares as dynamic (config/fields.py: the seed, rates, weights, dropouts, temperatures) are
taken out before the call and put back inside the traced function: another seed or learning rate
then reuses the compiled program, and a sweep can pass many at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import jax
import numpy as np

from gatrec_jax.config.fields import entries, replaced, value_of
from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import Recommender
from gatrec_jax.ops.numeric import is_off

Dynamic = dict[str, Any]  # name -> [] float32, of the seed [] uint32; of a sweep [n] each
M = TypeVar("M", bound=Recommender)

# Stands in the static settings for a value that was taken out.
_TAKEN = 1


def dynamic_names(settings: Any) -> tuple[str, ...]:
  """Names of the dynamic settings of a model or of its training; by default all floats."""
  return tuple(
    name
    for name, entry in entries(settings).items()
    if entry.metadata.get("dynamic", entry.type is float)
  )


def split_settings(recommender: M, *, also: Collection[str] = ()) -> tuple[Dynamic, M]:
  """Takes the dynamic settings out of a recommender.

  A value of 0 stays static: it leaves a term out of the program (`is_off`).

  Args: also: names of dynamic settings that are taken out even if they are 0.
  Returns: the values, and a recommender whose static settings are the same for all values.
  """
  dynamic, settings = _split(recommender.settings, also)
  return dynamic, dataclasses.replace(recommender, settings=settings)


def split_dynamic(
  recommender: M, config: TrainConfig, *, also: Collection[str] = ()
) -> tuple[Dynamic, M, TrainConfig]:
  """`split_settings` of a recommender and of its training; the seed is always taken out."""
  dynamic, recommender = split_settings(recommender, also=also)
  of_training, config = _split(config, {"seed", *also})
  return dynamic | of_training, recommender, config


def recommender_with(recommender: M, dynamic: Dynamic) -> M:
  """Puts the dynamic settings, traced or not, back into a recommender."""
  return dataclasses.replace(recommender, settings=_with(recommender.settings, dynamic))


def with_dynamic(recommender: M, config: TrainConfig, dynamic: Dynamic) -> tuple[M, TrainConfig]:
  """The inverse of `split_dynamic`, called inside the traced function."""
  return recommender_with(recommender, dynamic), _with(config, dynamic)


def as_dynamic(name: str, value: Any) -> Any:
  """A Python number as the array scalar that a program takes; a traced value unchanged."""
  if isinstance(value, jax.Array):
    return value
  return np.uint32(value) if name == "seed" else np.float32(value)


def _split(settings: Any, also: Collection[str]) -> tuple[Dynamic, Any]:
  values = {name: value_of(settings, name) for name in dynamic_names(settings)}
  dynamic = {
    name: as_dynamic(name, value)
    for name, value in values.items()
    if name in also or not is_off(value)
  }
  return dynamic, replaced(settings, dict.fromkeys(dynamic, _TAKEN))


def _with(settings: Any, dynamic: Dynamic) -> Any:
  return replaced(settings, {n: v for n, v in dynamic.items() if n in dynamic_names(settings)})
