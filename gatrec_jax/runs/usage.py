"""Seconds and peak memory of the parts of a job."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from gatrec_jax.runs.folder import peak_memory_mb, reset_peak_memory


@dataclasses.dataclass
class Part:
  """Attributes: seconds: of all times it ran. peak_memory_mb: of the process meanwhile, in MiB."""

  seconds: float = 0.0
  peak_memory_mb: int = 0


class Usage:
  """Adds up what each part of a job takes; a part within another one counts for itself alone.

  Attributes: parts: by name, in the order in which they began.

  >>> usage = Usage()
  >>> with usage.part("training"):
  ...   with usage.part("validation"):
  ...     pass
  >>> list(usage.parts)
  ['training', 'validation']
  """

  def __init__(self) -> None:
    self.parts: dict[str, Part] = {}
    self._open: list[str] = []
    self._since = time.monotonic()
    reset_peak_memory()

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Counts the time of the block, and the memory that the process has in it, for `name`."""
    self._settle()
    self._open.append(name)
    self.parts.setdefault(name, Part())
    try:
      yield
    finally:
      self._settle()
      self._open.pop()

  @property
  def peak_memory_mb(self) -> int:
    """Peak memory of the process since this began, in MiB."""
    return max([peak_memory_mb(), *(part.peak_memory_mb for part in self.parts.values())])

  def to_json(self) -> dict[str, dict[str, float]]:
    """`seconds` and `peak_memory_mb` of each part."""
    return {
      name: {"seconds": round(part.seconds, 2), "peak_memory_mb": part.peak_memory_mb}
      for name, part in self.parts.items()
    }

  def _settle(self) -> None:
    """Counts what passed since the last call for the innermost part that is open."""
    now = time.monotonic()
    if self._open:
      part = self.parts[self._open[-1]]
      part.seconds += now - self._since
      part.peak_memory_mb = max(part.peak_memory_mb, peak_memory_mb())
    self._since = now
    reset_peak_memory()
