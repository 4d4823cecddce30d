"""Changing a configuration field by field, and writing and reading it as JSON."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from gatrec_jax.config.checks import FIXED_BY_SPLIT, validated
from gatrec_jax.config.models import MODELS, ModelSettings
from gatrec_jax.config.schema import (
  STAGES,
  Config,
  DataConfig,
  EvaluateConfig,
  ModelConfig,
  TextConfig,
  TrainConfig,
)
from gatrec_jax.errors import InputError

# Settings of training that every model has.
_USED_BY_ALL = ("seed", "select_metric")


def model_class(kind: str) -> type[ModelSettings]:
  """The settings of the model called `kind`. Raises InputError for an unknown one."""
  if kind == ModelConfig.kind:
    return ModelConfig
  if kind not in MODELS:
    raise InputError(f"model '{kind}': unknown; there are gat, {', '.join(sorted(MODELS))}")
  return MODELS[kind]


def field_types(config: Config) -> dict[str, tuple[str, Any]]:
  """Maps every field that the model of `config` uses to its stage and type."""
  out = {}
  for stage in STAGES:
    cls = type(getattr(config, stage))
    for name, kind in typing.get_type_hints(cls).items():
      if name in {field.name for field in dataclasses.fields(cls)}:
        out[name] = (stage, kind)
  used = (*config.model.trains_with, *_USED_BY_ALL)
  return {name: at for name, at in out.items() if at[0] != "train" or name in used}


def is_field(name: str) -> bool:
  """Whether any configuration has a field of this name."""
  stages = (DataConfig, TextConfig, ModelConfig, TrainConfig, EvaluateConfig, *MODELS.values())
  return any(name in {field.name for field in dataclasses.fields(stage)} for stage in stages)


def with_fields(config: Config, values: Mapping[str, Any]) -> Config:
  """A copy of `config` with the named fields replaced, then checked.

  Args:
    config: where the other fields come from.
    values: field name -> value, as the field's type or as text to be read as that type.
  Raises:
    InputError: unknown field (the nearest ones are named), unreadable or impossible value.
  """
  known = field_types(config)
  by_stage: dict[str, dict[str, Any]] = {}
  for name, value in values.items():
    if name not in known:
      raise InputError(_no_such_field(name, config.model.kind, known))
    stage, kind = known[name]
    by_stage.setdefault(stage, {})[name] = _parse(name, value, kind)
  fixed = FIXED_BY_SPLIT.get(by_stage.get("data", {}).get("split", ""), {})
  for name, value in fixed.items():
    by_stage.setdefault(known[name][0], {}).setdefault(name, value)
  stages = {s: dataclasses.replace(getattr(config, s), **v) for s, v in by_stage.items()}
  return validated(dataclasses.replace(config, **stages))


def _no_such_field(name: str, model: str, known: Mapping[str, Any]) -> str:
  elsewhere = {
    f.name for cls in (TrainConfig, ModelConfig, *MODELS.values()) for f in dataclasses.fields(cls)
  }
  near = difflib.get_close_matches(name, known, n=3)
  own = sorted(field for field, (stage, _) in known.items() if stage in ("model", "train"))
  hint = f"did you mean {', '.join(near)}?" if near else f"{model} has {', '.join(own)}"
  if name in elsewhere:
    return f"{name}: {model} has no such setting; {hint}"
  return f"no setting is called '{name}'; {hint}"


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
  """`config` as nested dictionaries of plain values (tuples as lists)."""

  def plain(value: Any) -> Any:
    if isinstance(value, dict):
      return {k: plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value

  tree = plain(dataclasses.asdict(config))
  tree["model"] = {"kind": config.model.kind, **tree["model"]}
  used = (*config.model.trains_with, *_USED_BY_ALL)
  tree["train"] = {name: value for name, value in tree["train"].items() if name in used}
  return tree


def from_json(tree: Mapping[str, Any]) -> Config:
  """The inverse of `to_json`. Raises InputError for fields that this version does not know."""
  flat = {name: value for stage in STAGES for name, value in tree.get(stage, {}).items()}
  model = model_class(flat.pop("kind", ModelConfig.kind))()
  train = TrainConfig() if model.trains_with else TrainConfig(select_on="last")
  return with_fields(Config(tree.get("preset", "paper"), model=model, train=train), flat)


def differences(a: Config, b: Config, *, stages: tuple[str, ...] = STAGES) -> list[str]:
  """Readable lines for the fields in which `a` and `b` differ, e.g. "seed: 0 → 1".

  Where the files of a named data set lie (`data_dir`) makes no difference.
  """
  lines = []
  for stage in stages:
    kinds = {getattr(getattr(c, stage), "kind", "") for c in (a, b)}
    if len(kinds) > 1:
      lines.append(f"model: {a.model.kind} → {b.model.kind}")
      continue
    left, right = (dataclasses.asdict(getattr(c, stage)) for c in (a, b))
    changed = [k for k in left if left[k] != right[k] and k != "data_dir"]
    lines += [f"{k}: {left[k]} → {right[k]}" for k in changed]
  return lines


def _parse(name: str, value: Any, kind: Any) -> Any:
  """`value` as `kind`; text is read, lists become tuples."""
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
    raise InputError(f"{name}={value}: must be true or false")
  try:
    if kind is int and isinstance(value, float):
      raise ValueError
    number = kind(value)
  except (TypeError, ValueError):
    label = {int: "a whole number", float: "a number"}.get(kind, str(kind))
    raise InputError(f"{name}={value}: must be {label}") from None
  if kind is float and number != number:
    raise InputError(f"{name}={value}: must be a number")
  return number
