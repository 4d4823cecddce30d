"""Changing a configuration setting by setting, and writing and reading it as JSON."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from gatrec_jax.config.checks import FIXED_BY_SPLIT, validated
from gatrec_jax.config.fields import (
  Option,
  entries,
  options_of,
  replaced,
  unmet_need,
  value_of,
  values_of,
)
from gatrec_jax.config.models import MODELS
from gatrec_jax.config.schema import (
  STAGES,
  Config,
  DataConfig,
  EvaluateConfig,
  ModelConfig,
  TextConfig,
  TrainConfig,
)
from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.errors import InputError

# Settings of training that a model has which is fitted as a whole.
_OF_FITTED = ("seed", "select_metric")
_MODELS: Mapping[str, type[ModelSettings]] = {ModelConfig.kind: ModelConfig, **MODELS}


def model_class(kind: str) -> type[ModelSettings]:
  """The settings class of the model called `kind`. Raises InputError for an unknown one."""
  if not isinstance(kind, str) or kind not in _MODELS:
    raise InputError(f"unknown; there are {', '.join(_MODELS)}", field="model", value=kind)
  return _MODELS[kind]


def field_types(config: Config) -> dict[str, tuple[str, Any]]:
  """Maps every setting that the model of `config` uses to its stage and type."""
  return {
    name: (stage, entry.type)
    for stage in STAGES
    for name, entry in entries(getattr(config, stage)).items()
    if _is_used(config, stage, name)
  }


def _is_used(config: Config, stage: str, name: str) -> bool:
  return stage != "train" or config.model.learned or name in _OF_FITTED


def setting_of(config: Config, name: str) -> Any:
  """The value of the setting called `name` in `config`."""
  return value_of(getattr(config, field_types(config)[name][0]), name)


def is_field(name: str) -> bool:
  """Whether any configuration has a setting of this name."""
  stages = (DataConfig, TextConfig, TrainConfig, EvaluateConfig)
  return any(name in entries(stage()) for stage in stages) or bool(_models_with(name))


def with_fields(config: Config, values: Mapping[str, Any]) -> Config:
  """A copy of `config` with the named settings replaced, then checked.

  A word that chooses settings (`loss`, `convolution`) is applied first; where it changes, the
  settings that it chooses start from their defaults.

  Args:
    config: where the other settings come from.
    values: name -> value, of the setting's type or as text to be read as that type.
  Raises:
    InputError: an unknown setting (the nearest ones are named), one that another objective,
      convolution or model has, one without effect, or an unreadable or impossible value.
  """
  start = _options_first(config, values)
  changed = _replaced(start, values)
  known = field_types(changed)
  for name in values:
    unmet = unmet_need(getattr(changed, known[name][0]), name)
    if unmet and setting_of(changed, name) != setting_of(start, name):
      raise InputError(f"has no effect with `{unmet}`", field=name, value=values[name])
  return changed


def _replaced(config: Config, values: Mapping[str, Any]) -> Config:
  """`with_fields`, but settings without effect are accepted. `config` has its options already."""
  known = field_types(config)
  by_stage: dict[str, dict[str, Any]] = {}
  for name, value in values.items():
    if name not in known:
      raise InputError(_no_such_setting(name, config, known), field=name)
    stage, kind = known[name]
    by_stage.setdefault(stage, {})[name] = _parse(name, value, kind)
  fixed = FIXED_BY_SPLIT.get(by_stage.get("data", {}).get("split", ""), {})
  for name, value in fixed.items():
    by_stage.setdefault(known[name][0], {}).setdefault(name, value)
  stages = {s: replaced(getattr(config, s), v) for s, v in by_stage.items()}
  return validated(dataclasses.replace(config, **stages))


def _options_first(config: Config, values: Mapping[str, Any]) -> Config:
  """`config` with the options that `values` choose."""
  words = {
    name: values[name]
    for name, entry in entries(config.model).items()
    if entry.options and name in values
  }
  return dataclasses.replace(config, model=replaced(config.model, words))


def _no_such_setting(name: str, config: Config, known: Mapping[str, Any]) -> str:
  """The message for a setting that `config` does not have: which alternative has it."""
  for holder, chosen, options in options_of(config.model):
    if owners := [one for one in options if name in entries(one)]:
      words = " and ".join(one.word for one in owners)
      choices = " or ".join(f"`{one.selector}={one.word}`" for one in owners)
      has = f"{holder} has" if len(owners) == 1 else f"{holder}s have"
      return f"not a setting of the {chosen.word} {holder}; the {words} {has} it ({choices})"
  near = difflib.get_close_matches(name, known, n=3)
  own = [field for field, (stage, _) in known.items() if stage in ("model", "train")]
  model = config.model.kind
  hint = f"did you mean {', '.join(near)}?" if near else f"{model} has {', '.join(sorted(own))}"
  if owners := _models_with(name):
    has = "has" if len(owners) == 1 else "have"
    return f"{model} has no such setting ({', '.join(owners)} {has} it); {hint}"
  return f"no such setting; {hint}"


def _models_with(name: str) -> list[str]:
  """The models that have a setting of this name, with some of their options or in training."""
  in_training = name in entries(TrainConfig()) and name not in _OF_FITTED
  return [
    kind
    for kind, cls in _MODELS.items()
    if (in_training and cls.learned)
    or name in entries(cls())
    or any(name in entries(one) for one in _options(cls()))
  ]


def _options(model: ModelSettings) -> Iterator[Option]:
  for _, _, options in options_of(model):
    yield from options


def parse_assignments(texts: list[str], *, field: str = "set") -> dict[str, str]:
  """Reads texts of the form "name=value". Raises InputError, of `field`, where there is no `=`."""
  out = {}
  for text in texts:
    name, equals, value = text.partition("=")
    if not equals:
      raise InputError("write it as field=value", field=field, value=text)
    out[name.strip()] = value.strip()
  return out


def to_json(config: Config) -> dict[str, Any]:
  """`config` as dictionaries of plain values by stage (tuples as lists), with flat names."""
  tree: dict[str, Any] = {"preset": config.preset}
  for stage in STAGES:
    tree[stage] = {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in values_of(getattr(config, stage)).items()
      if _is_used(config, stage, name)
    }
  tree["model"] = {"kind": config.model.kind, **tree["model"]}
  return tree


def from_json(tree: Mapping[str, Any]) -> Config:
  """The inverse of `to_json`. Raises InputError for settings that this version does not know."""
  stages = [tree.get(stage, {}) for stage in STAGES] if isinstance(tree, Mapping) else [None]
  if not all(isinstance(stage, Mapping) for stage in stages):
    raise InputError("the settings of a run are damaged; train again")
  flat = {name: value for stage in stages for name, value in stage.items()}
  model = model_class(flat.pop("kind", ModelConfig.kind))()
  train = TrainConfig() if model.learned else TrainConfig(select_on="last")
  try:
    config = Config(tree.get("preset", "paper"), model=model, train=train)
    return _replaced(_options_first(config, flat), flat)
  except InputError as error:
    raise InputError(
      f"these settings were written by another version of gatrec_jax ({error}); train again"
    ) from None


def differences(a: Config, b: Config, *, stages: tuple[str, ...] = STAGES) -> list[str]:
  """Readable lines for the settings in which `a` and `b` differ, e.g. "seed: 0 → 1".

  Where the files of a named data set lie (`data_dir`) makes no difference. Another word (`loss`,
  `convolution`) is one line, without the settings that it chooses.
  """
  lines = []
  for stage in stages:
    left, right = getattr(a, stage), getattr(b, stage)
    if type(left) is not type(right):
      lines.append(f"model: {left.kind} → {right.kind}")
      continue
    left, right = values_of(left), values_of(right)
    lines += [
      f"{name}: {left[name]} → {right[name]}"
      for name in left
      if name in right and left[name] != right[name] and name != "data_dir"
    ]
  return lines


def _parse(name: str, value: Any, kind: Any) -> Any:
  """`value` as `kind`; text is read, lists become tuples, "auto" is None where that is allowed."""
  if isinstance(kind, types.UnionType):
    if value in (None, "", "auto"):
      return None
    (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
  if typing.get_origin(kind) is tuple:
    (item, _) = typing.get_args(kind)
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
      parts = [parts]
    return tuple(
      _parse(name, p.strip() if isinstance(p, str) else p, item) for p in parts if p != ""
    )
  if kind is bool:
    word = str(value).lower()
    if word in ("true", "1", "yes"):
      return True
    if word in ("false", "0", "no"):
      return False
    raise InputError("must be true or false", field=name, value=value)
  try:
    if kind is int and isinstance(value, float):
      raise ValueError
    number = kind(value)
  except (TypeError, ValueError, OverflowError):
    label = {int: "a whole number", float: "a number"}.get(kind, str(kind))
    raise InputError(f"must be {label}", field=name, value=value) from None
  if kind is float and number != number:
    raise InputError("must be a number", field=name, value=value)
  return number
