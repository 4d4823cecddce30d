"""Reads times: seconds or finer units since 1970, dates as numbers, ISO-8601, and other styles."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gatrec_jax.data.interactions import FIRST_SECOND, LAST_SECOND, distinct
from gatrec_jax.errors import InputError

# Values from which numbers are taken as finer units: 1e11 seconds is the year 5138, and 1e11
# milliseconds the year 1973.
_UNITS = ((1e17, 10**9, "nanoseconds"), (1e14, 10**6, "microseconds"), (1e11, 1000, "milliseconds"))
_FIRST_DATE, _LAST_DATE = 1900_01_01, 2100_12_31
_CHECKED = 1000  # distinct numbers, from the lowest on
_STYLES = (
  "%Y-%m-%d",
  "%Y/%m/%d",
  "%d.%m.%Y",
  "%d/%m/%Y",
  "%m/%d/%Y",
  "%d-%m-%Y",
  "%m-%d-%Y",
  "%m %d, %Y",
  "%b %d, %Y",
  "%B %d, %Y",
  "%d %b %Y",
  "%d %B %Y",
)
_CLOCKS = (
  "",
  " %H:%M",
  " %H:%M:%S",
  " %H:%M:%S.%f",
  " %I:%M %p",
  ", %H:%M",
  " UTC",
  " %H:%M:%S UTC",
)


@dataclasses.dataclass(frozen=True)
class TimeStyle:
  """How a column writes times.

  Attributes:
    format: of `strptime`; "" for numbers and ISO-8601.
    per_second: units of numbers per second.
    is_date: numbers are dates such as 20090408.
    remark: a sentence for the user where a style was assumed, else "".
  """

  format: str = ""
  per_second: int = 1
  is_date: bool = False
  remark: str = ""

  def seconds(self, value: Any) -> int:
    """Seconds since 1970, rounded down; UTC unless the value names a zone.

    Raises:
      ValueError: another kind of value, or outside the years 1 to 9999.
    """
    try:
      seconds = self._seconds(value)
    except OverflowError:
      raise ValueError(f"time {str(value)[:40]} is outside the years 1 to 9999") from None
    if not FIRST_SECOND <= seconds <= LAST_SECOND:
      raise ValueError(f"time {value!r} is outside the years 1 to 9999")
    return math.floor(seconds)

  def seconds_of(self, numbers: np.ndarray) -> np.ndarray:
    """[R] int64 seconds of a column of numbers. Raises ValueError as `seconds`."""
    if self.is_date:
      distinct, place = np.unique(numbers, return_inverse=True)
      return np.array([self.seconds(number) for number in distinct.tolist()], np.int64)[place]
    whole = numbers.dtype.kind in "iu"
    seconds = numbers // self.per_second if whole else np.floor(numbers / self.per_second)
    if not ((seconds >= FIRST_SECOND) & (seconds <= LAST_SECOND)).all():
      raise ValueError("times outside the years 1 to 9999")
    return seconds.astype(np.int64)

  def _seconds(self, value: Any) -> float:
    if isinstance(value, str):
      text = value.strip()
      if self.format:
        return _at(_parsed(text, self.format))
      try:
        value = float(text)
      except ValueError:
        return _at(_iso(text))
    if isinstance(value, datetime.datetime | datetime.date):
      return _at(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f"time {value!r} is neither seconds nor ISO-8601")
    if self.is_date:
      return _at(_parsed(f"{value:.0f}", "%Y%m%d"))
    if self.per_second > 1 and isinstance(value, int):
      return value // self.per_second
    return value / self.per_second


def style_of_numbers(numbers: np.ndarray) -> TimeStyle:
  """The style of a column of numbers: the unit that gives plausible years, or dates."""
  known = numbers[numbers != 0]
  if not len(known) or not np.isfinite(known).all():
    return TimeStyle()
  low, high = known.min(), known.max()
  if low >= _FIRST_DATE and high <= _LAST_DATE and _are_dates(known):
    return TimeStyle(is_date=True, remark="times are read as dates such as 20090408")
  for least, per_second, name in _UNITS:
    if low >= least:
      return TimeStyle(per_second=per_second, remark=f"times are read as {name} since 1970")
  return TimeStyle()


def witnesses(numbers: np.ndarray) -> np.ndarray:
  """A few numbers of a column: the style of those of all parts of a column together is its own."""
  known = numbers[numbers != 0]
  finite = np.isfinite(known)
  if not finite.all():
    return known[~finite][:1]
  if not len(known):
    return known
  low, high = known.min(), known.max()
  if low < _FIRST_DATE or high > _LAST_DATE:
    return np.array([low, high])
  fractions = known[known != np.floor(known)][:1]
  return np.concatenate([distinct(known)[:_CHECKED], fractions, [high]])


def style_of(values: Iterable[Any], *, column: str, time_format: str = "") -> TimeStyle:
  """The style in which a column writes times.

  Args:
    values: of the column, as they are in the file; unreadable ones are overlooked.
    column: its name, for messages.
    time_format: given by the user; "" = found out.
  Raises:
    InputError: texts of a style that is read in two ways, such as days before months or after.
  """
  if time_format:
    return TimeStyle(format=time_format)
  texts, numbers = set(), []
  for value in values:
    if isinstance(value, str):
      text = value.strip()
      try:
        numbers.append(float(text))
      except ValueError:
        if text:
          texts.add(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
      # Whole numbers beyond the range of floats are overlooked, as other unreadable values.
      with contextlib.suppress(OverflowError):
        numbers.append(float(value))
  strange = [text for text in texts if not _is_iso(text)]
  if not strange or len(strange) < len(texts) / 2:
    return style_of_numbers(np.array(numbers)) if numbers and not texts else TimeStyle()
  fitting = _fitting(strange)
  if not fitting:
    return TimeStyle()
  if len(fitting) > 1:
    example = min(strange)
    raise InputError(
      f"the times of column {column!r}, such as {example!r}, can be read as "
      f"{' or '.join(fitting)}; say which",
      field="time_format",
    )
  return TimeStyle(format=fitting[0], remark=f"times are read as {fitting[0]}")


def _fitting(texts: list[str]) -> list[str]:
  """The formats that read (nearly) all of the texts, if there are any."""
  counts = {}
  for date in _STYLES:
    for clock in _CLOCKS:
      count = sum(_reads(text, date + clock) for text in texts)
      if count:
        counts[date + clock] = count
  most = max(counts.values(), default=0)
  if most < 0.9 * len(texts):
    return []
  return [style for style, count in counts.items() if count == most]


def _reads(text: str, style: str) -> bool:
  try:
    datetime.datetime.strptime(text, style)
  except ValueError:
    return False
  return True


def _parsed(text: str, style: str) -> datetime.datetime:
  try:
    return datetime.datetime.strptime(text, style)
  except ValueError:
    raise ValueError(f"time {text!r} is not of the form {style}") from None


def _iso(text: str) -> datetime.datetime:
  try:
    return datetime.datetime.fromisoformat(text)
  except ValueError:
    raise ValueError(f"time {text!r} is neither seconds nor ISO-8601") from None


def _is_iso(text: str) -> bool:
  try:
    datetime.datetime.fromisoformat(text)
  except ValueError:
    return False
  return True


def _are_dates(numbers: np.ndarray) -> bool:
  dates = distinct(numbers)
  return bool((dates == np.floor(dates)).all()) and all(
    _reads(f"{number:.0f}", "%Y%m%d") for number in dates[:_CHECKED].tolist()
  )


def _at(moment: datetime.date | datetime.datetime) -> float:
  if not isinstance(moment, datetime.datetime):
    return (moment - datetime.date(1970, 1, 1)).days * 86_400
  zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
  return zoned.timestamp()
