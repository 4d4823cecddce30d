"""Refuses what does not fit into memory, with settings that would."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from gatrec_jax.config.fields import entries, unmet_need, value_of
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.plan.plan import make_plan
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Plan
from gatrec_jax.runs.memory import gibibytes, total_bytes

# Of the machine's memory, where no limit is given.
_SHARE = 0.75
_MOST_ALTERNATIVES = 3
_MOST_HALVINGS = 12
# Settings that need less memory, the least harmful first; each with the values to try in turn.
_SMALLER: Mapping[str, tuple[Any, ...]] = {
  "evaluate_memory_mb": (128, 32),
  "form": ("auto", "spectral"),
  "linear_form": ("auto", "spectral"),
  "drawn_items": (4096,),
  "linear_rank": (128, 64),
  "rank": (128, 64),
  "feature_width": (32, 16),
  "width": (32, 16),
  "batch_size": (4096, 512),
  "linear_weight": (0.0,),
}
_MODELS = ("ease", "ials", "lightgcn", "popularity")


def limit_bytes(memory_limit: float | None) -> int | None:
  """The limit in bytes; None where the machine's memory cannot be determined.

  Args: memory_limit: GiB; None = three quarters of what the machine or its cgroup has.
  Raises: InputError: not above 0, or not finite.
  """
  if memory_limit is not None:
    if not 0 < memory_limit < math.inf:
      raise InputError(
        "must be a number of GiB above 0, such as 8", field="memory_limit", value=memory_limit
      )
    return round(memory_limit * 2**30)
  total = total_bytes()
  return None if total is None else round(_SHARE * total)


def require_fits(plan: Plan, config: Config, limit: int | None, *, at_least: bool = False) -> None:
  """Raises InputError where the plan needs more than `limit` bytes.

  The line names the stage, what it needs, and settings that fit, which are planned as well.

  Args: config: of the plan. limit: None = no limit. at_least: whether the sizes are lower bounds;
    what is said to fit then may still be too large, which the line says.
  """
  if limit is None or plan.peak <= limit:
    return
  stage = plan.largest
  choice = stage.choice.partition(";")[0]
  needed = f"{'at least ' if at_least else ''}{gibibytes(plan.peak)}"
  settings, model = _settings_that_fit(config, plan.sizes, limit), _model(config, plan.sizes, limit)
  ways = [*settings, *model]
  more = " or more" if at_least else ""
  part = "" if settings else _part_that_fits(config, plan.sizes, limit)
  if part and at_least:
    part += " or fewer"
  if ways:
    ways = [f"it fits with {ways[0]}", *ways[1:], *filter(None, [part])]
  else:
    ways = [f"no setting alone makes it fit: {part or 'use a part of the rows'}"]
  ways.append(f"`memory_limit={_above(plan.peak)}`{more} if the machine has it")
  raise InputError(
    f"{stage.name}{f' ({choice})' if choice else ''} needs {needed} of memory, and the limit is "
    f"{gibibytes(limit)}; {'; or '.join(ways)}",
    field="memory_limit",
    value=f"{limit / 2**30:.3g}",
  )


def _part_that_fits(config: Config, sizes: Sizes, limit: int) -> str:
  """What part of the users would fit, and with which settings; "" if none does."""
  for part in range(1, _MOST_HALVINGS):
    settings = _together(config, sizes.of_users(0.5**part), limit)
    if settings is not None:
      beside = f" with {_hints(settings)}" if settings else ""
      return f"use a part of the rows, such as those of 1 of {2**part} users{beside}"
  return ""


def _settings_that_fit(config: Config, sizes: Sizes, limit: int) -> list[str]:
  """Settings with which it fits, as hints: single ones, else several together, else none."""
  single: dict[str, Any] = {}
  for name, value in _smaller(config):
    if name not in single and _peak(config, {name: value}, sizes) <= limit:
      single[name] = value
  if single:
    return [_hints({name: single[name]}) for name in list(single)[: _MOST_ALTERNATIVES - 1]]
  together = _together(config, sizes, limit)
  return [_hints(together)] if together else []


def _model(config: Config, sizes: Sizes, limit: int) -> list[str]:
  """Another model that fits, as a hint, if there is one."""
  for name in _MODELS:
    same = {"data": config.data, "evaluate": config.evaluate}
    other = dataclasses.replace(get_preset(name), **same)
    if name != config.model.kind and make_plan(other, sizes).peak <= limit:
      return [f"`model={name}`"]
  return []


def _together(config: Config, sizes: Sizes, limit: int) -> dict[str, Any] | None:
  """Settings with which it fits, none of which can be left out; None if there are none."""
  chosen: dict[str, Any] = {}
  for name, value in _smaller(config):
    if _peak(config, chosen, sizes) <= limit:
      break
    tried = {**chosen, name: value}
    if tried.get("linear_weight") == 0:  # its other settings then have no effect
      tried = {key: one for key, one in tried.items() if not _is_of_channel(key)}
    if _peak(config, tried, sizes) < _peak(config, chosen, sizes):
      chosen = tried
  if _peak(config, chosen, sizes) > limit:
    return None
  for name in list(chosen):
    fewer = {key: one for key, one in chosen.items() if key != name}
    if _peak(config, fewer, sizes) <= limit:
      chosen = fewer
  return chosen


def _is_of_channel(name: str) -> bool:
  return name.startswith("linear_") and name != "linear_weight"


def _peak(config: Config, fields: Mapping[str, Any], sizes: Sizes) -> int:
  return make_plan(with_fields(config, fields), sizes).peak


def _smaller(config: Config) -> Iterator[tuple[str, Any]]:
  """The settings of this configuration that could be smaller, and what to try."""
  of_training = (config.train,) if config.model.learned else ()
  for name, values in _SMALLER.items():
    for settings in (config.model, *of_training, config.evaluate):
      if name not in entries(settings) or unmet_need(settings, name):
        continue
      now = value_of(settings, name)
      for value in values:
        if value != now and (isinstance(value, str) or now == 0 or value < now):
          yield name, value


def _hints(settings: Mapping[str, Any]) -> str:
  return " and ".join(f"`{name}={_shown(value)}`" for name, value in settings.items())


def _shown(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def _above(count: int) -> str:
  """A limit in GiB that is above so many bytes, with one digit."""
  return f"{-(-count * 10 // 2**30) / 10:g}"
