"""Checks that a model fits into memory before anything is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax

from gatrec_jax.errors import InputError

SPARE_SHARE = 0.05  # reserved for everything else


def available_bytes(devices: Sequence[jax.Device] | None = None) -> int | None:
  """Returns the bytes free for arrays, summed over `devices`; None if they cannot be determined.

  Args: devices: of this process; None for the default device.
  """
  devices = devices or jax.local_devices()[:1]
  if devices[0].platform != "cpu":
    stats = [device.memory_stats() for device in devices]
    if not all(stats):
      return None
    return sum(one["bytes_limit"] - one["bytes_in_use"] for one in stats)
  figures = [_proc_available(), _cgroup_available()]
  known = [figure for figure in figures if figure is not None]
  return min(known) if known else None


def require_memory(
  needed: int, *, what: str, remedy: str, devices: Sequence[jax.Device] | None = None
) -> None:
  """Raises InputError unless `needed` bytes are free.

  Args: needed: bytes. what: what needs them, in the plural, for the message. remedy: what the user
    can do, for the message. devices: as in `available_bytes`.
  """
  free = available_bytes(devices)
  if free is not None and needed > free * (1 - SPARE_SHARE):
    raise InputError(f"{what} need about {gibibytes(needed)}, {gibibytes(free)} are free; {remedy}")


def gibibytes(count: int) -> str:
  """Formats a number of bytes as "1.5 GiB"."""
  return f"{count / 2**30:.1f} GiB"


def _proc_available() -> int | None:
  with contextlib.suppress(OSError, ValueError, IndexError):
    for line in Path("/proc/meminfo").read_text().splitlines():
      if line.startswith("MemAvailable:"):
        return int(line.split()[1]) * 1024
  return None


def _cgroup_available() -> int | None:
  """Bytes left under a container's limit (cgroup v2); reclaimable cache counts as free."""
  with contextlib.suppress(OSError, ValueError):
    folder = Path("/sys/fs/cgroup")
    limit = (folder / "memory.max").read_text().strip()
    if limit == "max":
      return None
    used = int((folder / "memory.current").read_text())
    stats = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(limit) - used + int(stats.get("inactive_file", 0))
  return None
