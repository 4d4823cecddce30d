"""Search spaces: the ranges of a search, points drawn from them, and where an optimum lies in them.

A range maps places to values: 0 … 1 is the range on its own scale (linear or logarithmic), and a
search that follows an optimum outwards goes below 0 or above 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.config.fields import Choice, LogUniform, Range, Uniform, entries, unmet_need
from gatrec_jax.config.overrides import field_types, parse_assignments, setting_of, with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError

FIELD = "search_space"
NEAR = 0.02  # places that differ by less count as the same
# How long trials train and how they are compared.
_NOT_SEARCHED = ("seed", "epochs", "evaluate_every", "patience", "select_on", "select_metric")
_ATTEMPTS = 200  # to draw settings that were not drawn before

Settings = dict[str, Any]


def search_space(
  config: Config, texts: Sequence[str] = ()
) -> tuple[Config, dict[str, Range], frozenset[str]]:
  """Returns the ranges that the model declares, changed by the values of `search_space`.

  Args:
    config: whose model and training settings are searched.
    texts: each "field=low:high" (on the scale of the declared range), "field=low:high:log",
      "field=low:high:linear", "field=a|b|c", or "field=value", which fixes the field.
  Returns:
    `config` with fixed fields applied and values outside a given range moved into it; the range of
    each searched field; and the fields whose range was given, whose ends are never passed (those of
    a declared range may be).
  Raises:
    InputError: an empty range, an unknown field, a value that the field cannot have, or nothing
      to search.
  """
  declared = _declared_ranges(config)
  ranges, bounded = dict(declared), set()
  for text in texts:
    [(name, words)] = parse_assignments([text], field=FIELD).items()
    try:
      values = _read_range(config, name, words, declared.get(name))
    except InputError as error:
      raise InputError(str(error), field=FIELD, value=text) from None
    if isinstance(values, Choice) and len(values.values) == 1:
      config = with_fields(config, {name: values.values[0]})
      ranges.pop(name, None)
    else:
      ranges[name] = values
      bounded.add(name)
      (own,) = own_settings(config, {name: values}).values()
      config = with_fields(config, {name: _moved_into(values, own)})
  if not ranges:
    raise InputError(
      f"{config.model.kind} has nothing to search; leave `search` out"
      + (f", or name a setting by `{FIELD}` field=low:high" if declared else ""),
      field="search",
    )
  _require_effects(config, ranges)
  return config, ranges, frozenset(bounded)


def _declared_ranges(config: Config) -> dict[str, Range]:
  """The ranges that the model's settings declare, without those that have no effect on a trial.

  Left out are settings that another one switches off, and such switches while they are off: a
  search of `tiny` does not turn on a channel that the preset does not have.
  """
  known, model = field_types(config), entries(config.model)
  declared = {name: values for name, values in config.model.searched.items() if name in known}
  declared |= {name: e.metadata["search"] for name, e in model.items() if e.metadata.get("search")}
  switches = {entry.metadata.get("needs", "") for entry in model.values()}
  return {
    name: values
    for name, values in declared.items()
    if not unmet_need(getattr(config, known[name][0]), name)
    and (name not in switches or setting_of(config, name) != 0)
  }


def _require_effects(config: Config, ranges: Mapping[str, Range]) -> None:
  """Raises InputError if a value of one searched field leaves another one without effect."""
  known = field_types(config)
  for word, choice in ranges.items():
    for value in choice.values if isinstance(choice, Choice) else ():
      stage = getattr(with_fields(config, {word: value}), known[word][0])
      for name in ranges:
        if name in entries(stage) and (unmet := unmet_need(stage, name)):
          raise InputError(f"{name} has no effect with {unmet}; search one of them", field=FIELD)


def _moved_into(range_: Range, value: Any) -> Any:
  if isinstance(range_, Choice):
    return value if value in range_.values else range_.values[0]
  return min(max(value, range_.low), range_.high)


def _read_range(config: Config, name: str, words: str, declared: Range | None) -> Range:
  known = field_types(config)
  if name not in known:
    with_fields(config, {name: words})  # raises, and says which model or objective has it
  stage, kind = known[name]
  if name in _NOT_SEARCHED or stage not in ("model", "train"):
    raise InputError("only settings of the model and of its training are searched; use `set`")
  if entries(getattr(config, stage))[name].options:
    raise InputError("it decides which settings there are; run a search for each with `set`")
  if kind not in (int, float, str, bool):
    raise InputError("only numbers and words are searched; use `set`")

  def read(word: str) -> Any:
    value = setting_of(with_fields(config, {name: word}), name)
    if kind is float and not math.isfinite(value):
      raise InputError(f"{name}={word}: must be a finite number")
    return value

  parts = [part.strip() for part in words.split(":")]
  if kind in (int, float) and len(parts) > 1:
    scales = {"log": True, "linear": False}
    if len(parts) > 3 or not all(parts) or (len(parts) == 3 and parts[2] not in scales):
      raise InputError("write the range as low:high, low:high:log or low:high:linear")
    low, high = read(parts[0]), read(parts[1])
    is_log = scales[parts[2]] if len(parts) == 3 else isinstance(declared, LogUniform)
    if low >= high:
      raise InputError(f"the range is empty; low must lie below high, or write {name}={parts[0]}")
    if is_log and low <= 0:
      raise InputError(
        f"the range is empty on a log scale; low must be above 0, or write "
        f"{parts[0]}:{parts[1]}:linear"
      )
    return (LogUniform if is_log else Uniform)(low, high, kind is int)
  values = dict.fromkeys(read(word.strip()) for word in words.split("|") if word.strip())
  if not values:
    raise InputError("the range is empty; write low:high, a|b|c or a single value")
  return Choice(tuple(values))


def value_at(range_: Range, place: float) -> Any:
  """The value at a place; floats are rounded to 6 digits, so that they print exactly."""
  if isinstance(range_, Choice):
    values = range_.values
    return values[min(max(int(place * len(values)), 0), len(values) - 1)]
  low, high, whole = range_
  if isinstance(range_, LogUniform):
    value = low * (high / low) ** place
  else:  # whole numbers are centers of equal intervals, so that both ends are as likely
    margin = 0.5 if whole else 0.0
    value = low - margin + place * (high - low + 2 * margin)
  value = round(value) if whole else float(f"{value:.6g}")
  if 0 <= place <= 1:
    value = min(max(value, low), high)
  return value if whole else float(value)


def place_of(range_: LogUniform | Uniform, value: float) -> float | None:
  """The inverse of `value_at`; None for a value that is not on the scale."""
  low, high, whole = range_
  if isinstance(range_, LogUniform):
    return math.log(value / low) / math.log(high / low) if value > 0 else None
  margin = 0.5 if whole else 0.0
  return (value - low + margin) / (high - low + 2 * margin)


def own_settings(config: Config, ranges: Mapping[str, Range]) -> Settings:
  """The values of the searched fields in `config`."""
  return {name: setting_of(config, name) for name in ranges}


def is_allowed(config: Config, name: str, value: Any) -> bool:
  """Whether the field accepts the value, regardless of the searched range."""
  try:
    with_fields(config, {name: value})
  except InputError:
    return False
  return True


class Draws:
  """Draws settings one after the other, none twice, as a function of the seed and the calls.

  The points are scrambled Halton points (Owen 2017): any number of them fills the ranges evenly, so
  that a larger search draws the same points as a smaller one, and more.
  """

  def __init__(
    self,
    config: Config,
    ranges: Mapping[str, Range],
    *,
    seed: int,
    bounded: frozenset[str] = frozenset(),
  ) -> None:
    """Args: bounded: fields whose ranges are never left."""
    self._config, self._ranges, self._seed, self._bounded = config, ranges, seed, bounded
    self._streams: dict[float, Any] = {}
    self._seen = {tuple(own_settings(config, ranges).values())}

  def anywhere(self) -> Settings | None:
    """Draws from the whole ranges. None if everything was drawn already."""
    return self._new(1.0, lambda name, place: value_at(self._ranges[name], place))

  def near(self, best: Settings, width: float) -> Settings | None:
    """Draws from a box around `best`, `width` of each range wide, which may pass the ends."""
    return self._new(width, lambda name, place: self._beside(name, best[name], width, place))

  def _new(self, width: float, pick: Any) -> Settings | None:
    for _ in range(_ATTEMPTS):
      point = self._stream(width).random(1)[0]
      settings = {name: pick(name, float(x)) for name, x in zip(self._ranges, point, strict=True)}
      if tuple(settings.values()) not in self._seen:
        self._seen.add(tuple(settings.values()))
        return settings
    return None

  def _stream(self, width: float) -> Any:
    """The points for one width. A shared stream would give each width one side only."""
    from scipy.stats import qmc

    if width not in self._streams:
      generator = np.random.default_rng([self._seed, round(1 / width)])
      self._streams[width] = qmc.Halton(len(self._ranges), scramble=True, seed=generator)
    return self._streams[width]

  def _beside(self, name: str, best: Any, width: float, place: float) -> Any:
    range_ = self._ranges[name]
    if isinstance(range_, Choice):  # half of the draws keep the best value
      others = tuple(value for value in range_.values if value != best)
      return best if place < 0.5 or not others else value_at(Choice(others), 2 * place - 1)
    center = place_of(range_, best)
    if center is None:  # such as 0 on a log scale, below the whole range
      center = 0.0
    away = (place - 0.5) * width
    low, high = (0.0, 1.0) if name in self._bounded else (-math.inf, math.inf)
    for _ in range(10):
      for moved in (center + away, center - away):  # mirrored if a bound is passed
        value = value_at(range_, moved)
        if low <= moved <= high and is_allowed(self._config, name, value):
          return value
      away /= 2
    return best


def where_it_lies(
  config: Config,
  name: str,
  range_: Range,
  best: Any,
  tried: Mapping[Any, float],
  *,
  bounded: bool = False,
) -> tuple[bool, str]:
  """Returns whether the best value lies inside the values that were tried, and says so in words.

  A side counts as explored if a value was tried there (at least 2 % of the range away), or if the
  field allows none.

  Args:
    best: the field's value in the best trial.
    tried: value -> the best result with it, over the trials that were trained to the end.
    bounded: the range was given, so that there is nothing beyond its ends.
  """
  if isinstance(range_, Choice) and not all(_is_number(value) for value in range_.values):
    missing = [str(value) for value in range_.values if value not in tried]
    return not missing, f"not tried: {', '.join(missing)}" if missing else "every value was tried"
  if isinstance(range_, Choice):
    values = sorted({*range_.values, best})
    at = values.index(best)
    # Beyond the ends, choices continue with their last step.
    values = [2 * values[0] - values[1], *values, 2 * values[-1] - values[-2]]
    steps = {-1: values[at], 1: values[at + 2]}
    nearest = {side: value if value in tried else None for side, value in steps.items()}
  else:
    steps = {side: _step(range_, best, side) for side in (-1, 1)}
    nearest = {
      -1: max((v for v in tried if v <= steps[-1]), default=None),
      1: min((v for v in tried if v >= steps[1]), default=None),
    }
  words = []
  for side, name_of_side in ((-1, "lower"), (1, "higher")):
    if nearest[side] is None and bounded and _is_beyond(range_, steps[side]):
      return False, f"at the {name_of_side} end of the given range"
    if nearest[side] is None and is_allowed(config, name, steps[side]):
      return False, (
        f"at the edge of what was tried, nothing {name_of_side}: search more, or widen `{FIELD}`"
      )
    at = nearest[side]
    words.append("none is allowed" if at is None else f"{at} with {tried[at]:.4f}")
  return True, f"interior (nearest lower tried {words[0]}, higher {words[1]})"


def _step(range_: LogUniform | Uniform, value: float, side: int) -> float:
  place = place_of(range_, value)
  if place is None:
    return value + side * (1 if range_.whole else 1e-9)
  moved = value_at(range_, place + side * NEAR)
  return value + side if range_.whole and moved == value else moved


def _is_beyond(range_: Range, value: float) -> bool:
  if isinstance(range_, Choice):
    return value not in range_.values
  return not range_.low <= value <= range_.high


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
