"""How much memory this process may take: of the machine, its container, and its limits."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path


def free_bytes() -> int | None:
  """Bytes of memory that this process can still take; None if they cannot be determined."""
  figures = [_of_machine(), _of_container(), _of_address_space()]
  known = [figure for figure in figures if figure is not None]
  return min(known) if known else None


def total_bytes(root: Path = Path("/")) -> int | None:  # noqa: B008 - immutable
  """Bytes of memory that this process may take in all; None if they cannot be determined.

  The machine's, or less where its cgroup (v1 or v2) or one above it, or `ulimit -v`, allows less.

  Args: root: where /proc and /sys are.
  """
  figures = [_total_of_machine(root), *_limits_of_cgroups(root)]
  left = _of_address_space()
  if left is not None:
    figures.append(left + _resident_bytes(root))
  known = [figure for figure in figures if figure is not None]
  return min(known) if known else None


def gibibytes(count: float) -> str:
  """Formats a number of bytes as "1.5 GiB"."""
  return f"{count / 2**30:.1f} GiB"


def _of_machine() -> int | None:
  return _kibibytes_of(Path("/proc/meminfo"), "MemAvailable:")


def _total_of_machine(root: Path) -> int | None:
  return _kibibytes_of(root / "proc/meminfo", "MemTotal:")


def _resident_bytes(root: Path) -> int:
  return _kibibytes_of(root / "proc/self/status", "VmRSS:") or 0


def _kibibytes_of(path: Path, name: str) -> int | None:
  """The figure of a line such as "MemTotal:  16384 kB", in bytes."""
  with contextlib.suppress(OSError, ValueError, IndexError):
    for line in path.read_text().splitlines():
      if line.startswith(name):
        return int(line.split()[1]) * 1024
  return None


def _limits_of_cgroups(root: Path) -> list[int]:
  """The limits of this process's cgroups and of those above them, in bytes.

  In a container the folders may begin at its own group, whatever path the process is told.
  """
  found = []
  with contextlib.suppress(OSError):
    for line in (root / "proc/self/cgroup").read_text().splitlines():
      _, _, rest = line.partition(":")
      controllers, _, path = rest.partition(":")
      if controllers and "memory" not in controllers.split(","):
        continue
      top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
      name = "memory.limit_in_bytes" if controllers else "memory.max"
      group = top / path.lstrip("/")
      for folder in dict.fromkeys((group, *group.parents, top)):
        if folder == top or top in folder.parents:
          with contextlib.suppress(OSError, ValueError):  # "max" is no number
            found.append(int((folder / name).read_text()))
  return found


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
