"""Kinds of damage to a stored file: what a disk, a cable, a careless hand or a kill may do."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes | None]
"""(content, random numbers) -> the damaged content; None for a file that is gone."""

_DIGIT = re.compile(rb"[0-9]")


def damaged(path: pathlib.Path, kind: str, random: np.random.Generator) -> bool:
  """Damages a file in place. Returns: whether its content is another one now."""
  before = path.read_bytes()
  after = DAMAGES[kind](before, random)
  if after is None:
    path.unlink()
  else:
    path.write_bytes(after)
  return after != before


def _bit(data: bytes, random: np.random.Generator) -> bytes:
  """One bit is flipped."""
  return _with_byte(data, random, lambda byte: byte ^ 1 << int(random.integers(8)))


def _byte(data: bytes, random: np.random.Generator) -> bytes:
  return _with_byte(data, random, lambda byte: int(random.integers(256)))


def _digit(data: bytes, random: np.random.Generator) -> bytes:
  """A digit becomes another one, so that a text file stays readable."""
  places = [match.start() for match in _DIGIT.finditer(data)]
  if not places:
    return _bit(data, random)
  place = int(random.choice(places))
  other = (data[place] - ord("0") + int(random.integers(1, 10))) % 10 + ord("0")
  return data[:place] + bytes([other]) + data[place + 1 :]


def _zeros(data: bytes, random: np.random.Generator) -> bytes:
  """A block reads as zeros."""
  if not data:
    return data
  start = int(random.integers(len(data)))
  size = min(len(data) - start, int(random.integers(1, 513)))
  return data[:start] + bytes(size) + data[start + size :]


def _cut(data: bytes, random: np.random.Generator) -> bytes:
  return data[: int(random.integers(len(data) + 1))]


def _longer(data: bytes, random: np.random.Generator) -> bytes:
  return data + random.bytes(int(random.integers(1, 65)))


def _lines(data: bytes, random: np.random.Generator) -> bytes:
  """Two lines change places, or one occurs twice."""
  lines = data.split(b"\n")
  a, b = random.integers(len(lines), size=2)
  if random.integers(2):
    lines[a], lines[b] = lines[b], lines[a]
  else:
    lines.insert(int(a), lines[b])
  return b"\n".join(lines)


def _with_byte(data: bytes, random: np.random.Generator, change: Callable[[int], int]) -> bytes:
  if not data:
    return data
  place = int(random.integers(len(data)))
  return data[:place] + bytes([change(data[place])]) + data[place + 1 :]


DAMAGES: Mapping[str, Damage] = {
  "bit": _bit,
  "byte": _byte,
  "digit": _digit,
  "zeros": _zeros,
  "cut": _cut,
  "longer": _longer,
  "lines": _lines,
  "empty": lambda data, random: b"",
  "gone": lambda data, random: None,
}
