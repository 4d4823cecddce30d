"""What a search draws: ranges from a model's declarations and from flags, points in them, verdicts.

A range maps places to values: 0 … 1 is the range in its own scale (the logarithm, where it has
one), and a search that follows an optimum outwards goes below 0 or above 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.config.models import Choice, LogUniform, Range, Uniform
from gatrec_jax.config.overrides import field_types, parse_assignments, with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError

FIELD = "search_space"
NEAR = 0.02  # places that differ by less are the same to a verdict
# A search trains by these, stops by them or chooses by them.
_NOT_SEARCHED = ("seed", "epochs", "evaluate_every", "patience", "select_on", "select_metric")
_ATTEMPTS = 200  # at a setting that was not drawn before

Settings = dict[str, Any]


def search_space(
  config: Config, texts: Sequence[str] = ()
) -> tuple[Config, dict[str, Range], frozenset[str]]:
  """The ranges that the model declares, changed by the values of --search_space.

  Args:
    config: whose model and training settings are searched.
    texts: each "field=low:high" (in the scale of the declared range), "field=low:high:log",
      "field=low:high:linear", "field=a|b|c", or "field=value", which fixes the field.
  Returns:
    `config` with the fixed fields and what lies outside a given range moved into it; the range of
    each field that is left to search; and those fields whose range was given, whose ends are not
    to be passed (those of a declared range may be).
  Raises:
    InputError: an empty range, an unknown field, a value that the field cannot have, or nothing
      to search.
  """
  declared = dict(config.model.searched_training)
  declared |= {
    field.name: field.metadata["search"]
    for field in dataclasses.fields(config.model)
    if field.metadata.get("search")
  }
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
      f"{config.model.kind} has nothing that is searched; leave `search` out"
      + (f", or name a setting by `{FIELD}` field=low:high" if declared else ""),
      field="search",
    )
  return config, ranges, frozenset(bounded)


def _moved_into(range_: Range, value: Any) -> Any:
  if isinstance(range_, Choice):
    return value if value in range_.values else range_.values[0]
  return min(max(value, range_.low), range_.high)


def _read_range(config: Config, name: str, words: str, declared: Range | None) -> Range:
  known = field_types(config)
  if name not in known:
    with_fields(config, {name: words})  # raises, and names the nearest ones
  stage, kind = known[name]
  if name in _NOT_SEARCHED or stage not in ("model", "train"):
    raise InputError("only settings of the model and of its training are searched; use `set`")
  if kind not in (int, float, str, bool):
    raise InputError("only numbers and words are searched; use `set`")

  def read(word: str) -> Any:
    value = getattr(getattr(with_fields(config, {name: word}), stage), name)
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
  """The value at a place; floats have 6 digits, so that they read as they are."""
  if isinstance(range_, Choice):
    values = range_.values
    return values[min(max(int(place * len(values)), 0), len(values) - 1)]
  low, high, whole = range_
  if isinstance(range_, LogUniform):
    value = low * (high / low) ** place
  else:  # whole numbers are the middles of their parts, so that both ends are as likely
    margin = 0.5 if whole else 0.0
    value = low - margin + place * (high - low + 2 * margin)
  value = round(value) if whole else float(f"{value:.6g}")
  if 0 <= place <= 1:
    value = min(max(value, low), high)
  return value if whole else float(value)


def place_of(range_: LogUniform | Uniform, value: float) -> float | None:
  """The inverse of `value_at`; None for a value that the scale does not have."""
  low, high, whole = range_
  if isinstance(range_, LogUniform):
    return math.log(value / low) / math.log(high / low) if value > 0 else None
  margin = 0.5 if whole else 0.0
  return (value - low + margin) / (high - low + 2 * margin)


def own_settings(config: Config, ranges: Mapping[str, Range]) -> Settings:
  """What `config` itself says of the searched fields."""
  stages = {name: stage for name, (stage, _) in field_types(config).items()}
  return {name: getattr(getattr(config, stages[name]), name) for name in ranges}


def is_allowed(config: Config, name: str, value: Any) -> bool:
  """Whether the field may have that value, its range aside."""
  try:
    with_fields(config, {name: value})
  except InputError:
    return False
  return True


class Draws:
  """Settings one after the other, none twice; which ones follows from the seed and the calls.

  Scrambled Halton points (Owen 2017): any number of them fills the ranges evenly, so that a larger
  search draws what a smaller one drew, and more.
  """

  def __init__(
    self,
    config: Config,
    ranges: Mapping[str, Range],
    *,
    seed: int,
    bounded: frozenset[str] = frozenset(),
  ) -> None:
    """Args: bounded: fields whose ranges are not to be left."""
    self._config, self._ranges, self._seed, self._bounded = config, ranges, seed, bounded
    self._streams: dict[float, Any] = {}
    self._seen = {tuple(own_settings(config, ranges).values())}

  def anywhere(self) -> Settings | None:
    """From the whole ranges. None where everything was drawn already."""
    return self._new(1.0, lambda name, place: value_at(self._ranges[name], place))

  def near(self, best: Settings, width: float) -> Settings | None:
    """From a box around `best`, `width` of each range wide, which may pass the ranges' ends."""
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
    """Of its own for each width: taking turns in one would give each width one side only."""
    from scipy.stats import qmc

    if width not in self._streams:
      generator = np.random.default_rng([self._seed, round(1 / width)])
      self._streams[width] = qmc.Halton(len(self._ranges), scramble=True, seed=generator)
    return self._streams[width]

  def _beside(self, name: str, best: Any, width: float, place: float) -> Any:
    range_ = self._ranges[name]
    if isinstance(range_, Choice):  # half of them keep the best one's
      others = tuple(value for value in range_.values if value != best)
      return best if place < 0.5 or not others else value_at(Choice(others), 2 * place - 1)
    center = place_of(range_, best)
    if center is None:  # such as 0 on a log scale, which lies below all of it
      center = 0.0
    away = (place - 0.5) * width
    low, high = (0.0, 1.0) if name in self._bounded else (-math.inf, math.inf)
    for _ in range(10):
      for moved in (center + away, center - away):  # mirrored where a bound is passed
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
  """Whether the best value lies inside of what was tried, and that in words.

  A side counts as explored where a value was tried there (at least 2 % of the range away), or
  where the field allows none.

  Args: best: the field's value in the best trial. tried: by value in the trials that went to the
    end, the best result. bounded: the range was given, so there is nothing beyond its ends.
  """
  if isinstance(range_, Choice) and not all(_is_number(value) for value in range_.values):
    missing = [str(value) for value in range_.values if value not in tried]
    return not missing, f"not tried: {', '.join(missing)}" if missing else "every value was tried"
  if isinstance(range_, Choice):
    values = sorted({*range_.values, best})
    at = values.index(best)
    # Beyond the ends the choices go on as they end.
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
      return False, f"at the {name_of_side} end of the range that was given"
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
