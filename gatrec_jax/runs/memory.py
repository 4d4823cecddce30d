"""How much memory this process may still take: of the machine, its container, and its limits."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path


def free_bytes() -> int | None:
  """Bytes of memory that this process can still take; None if they cannot be determined."""
  figures = [_of_machine(), _of_container(), _of_address_space()]
  known = [figure for figure in figures if figure is not None]
  return min(known) if known else None


def gibibytes(count: float) -> str:
  """Formats a number of bytes as "1.5 GiB"."""
  return f"{count / 2**30:.1f} GiB"


def _of_machine() -> int | None:
  with contextlib.suppress(OSError, ValueError, IndexError):
    for line in Path("/proc/meminfo").read_text().splitlines():
      if line.startswith("MemAvailable:"):
        return int(line.split()[1]) * 1024
  return None


def _of_container() -> int | None:
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


def _of_address_space() -> int | None:
  """Bytes left under `ulimit -v`; None without such a limit."""
  limit = resource.getrlimit(resource.RLIMIT_AS)[0]
  if limit == resource.RLIM_INFINITY:
    return None
  with contextlib.suppress(OSError, ValueError, IndexError):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, limit - pages * resource.getpagesize())
  return limit
