"""The run folder: atomic writes, hashes, the lock, metrics.jsonl, signals."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.paths import user_path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "jraph", "orbax-checkpoint", "numpy", "pyarrow")


def cache_dir() -> pathlib.Path:
  """The folder of files shared by several runs: $GATREC_CACHE, else the user's cache."""
  if os.environ.get("GATREC_CACHE"):
    return user_path(os.environ["GATREC_CACHE"])
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(base) / "gatrec_jax"


def open_workdir(path: str | os.PathLike[str]) -> pathlib.Path:
  """Creates the folder if needed. Raises InputError where it cannot be written to."""
  folder = user_path(path)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise InputError(
      f"cannot be written to ({error.strerror})", field="workdir", value=path
    ) from None
  return folder


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Locks the run folder for this process; the lock ends with the process, however that ends.

  Raises:
    InputError: another process holds it.
  """
  import fcntl

  with open(workdir / ".lock", "w") as handle:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno not in (errno.EACCES, errno.EAGAIN):
        raise
      raise InputError(
        "another process is working in it; wait for it or use another",
        field="workdir",
        value=workdir,
      ) from None
    yield


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary name beside `path` that becomes `path` when the block ends without an error.

  What killed processes left of the same file is removed.
  """
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    # The names of files are limited to 255 bytes.
    start = f".{path.name.encode()[:200].decode(errors='ignore')}."
    for name in os.listdir(path.parent):
      if name.startswith(start) and name.endswith(".tmp"):
        process = name[len(start) : -len(".tmp")]
        if process.isdecimal() and not _is_alive(int(process)):
          (path.parent / name).unlink(missing_ok=True)
    temporary = path.with_name(f"{start}{os.getpid()}.tmp")
    try:
      yield temporary
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Converts the errors of a full disk, in the block that writes `path`, to an InputError."""
  try:
    yield
  except Exception as error:  # libraries that write for us have their own, with the system's words
    if not is_disk_full(error):
      raise
    raise InputError(
      f"{path}: the disk is full, or a limit of file sizes is reached; what was written before is "
      "whole: make room and run the same command again"
    ) from error


def is_disk_full(error: BaseException) -> bool:
  """Whether an error says that nothing more can be written."""
  if isinstance(error, OSError) and error.errno in _FULL:
    return True
  words = ("No space left on device", "File too large", "Disk quota exceeded", "errno 28")
  return not isinstance(error, InputError) and any(word in str(error) for word in words)


def _is_alive(process: int) -> bool:
  """Whether there is a process of this number here."""
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except (PermissionError, OverflowError):  # of another user; not a number of a process
    pass
  return True


def write_json(path: pathlib.Path, tree: Any) -> None:
  """Writes `tree` as indented JSON, whole or not at all."""
  with atomic_path(path) as temporary:
    temporary.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file of the run folder. Raises InputError where it is missing or damaged."""
  try:
    return json.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    raise InputError(f"{path}: not there; is `workdir` a folder that launch.train made?") from None
  except (ValueError, RecursionError) as error:
    raise DamagedFile(f"{path}: damaged ({error}); delete it and run again") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def digest(*parts: Any) -> str:
  """A hash of plain values and bytes, 32 hex digits."""
  out = hashlib.sha256()
  for part in parts:
    data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
    out.update(len(data).to_bytes(8, "little"))
    out.update(data)
  return out.hexdigest()[:32]


def file_digest(path: str | os.PathLike[str]) -> str:
  """A hash of a file's bytes; of "" the empty string. Raises InputError where it is missing."""
  if not path:
    return ""
  try:
    with open(path, "rb") as handle:
      return hashlib.file_digest(handle, "sha256").hexdigest()[:32]
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def reset_peak_memory() -> None:
  """Restarts the count of `peak_memory_mb`, where the system can (Linux)."""
  with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> int:
  """Peak memory of this process since `reset_peak_memory` (else since its start), in MiB."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) // 1024
  import resource

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def has_checkpoints(workdir: pathlib.Path) -> bool:
  """Whether the run folder holds at least one complete checkpoint."""
  folder = workdir / "checkpoints"
  return folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())


def environment() -> dict[str, Any]:
  """What is needed to repeat a run: packages, device, commit, command, time."""
  import jax

  versions = {}
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[package] = importlib.metadata.version(package)
  devices = jax.devices()
  return {
    "python": sys.version.split()[0],
    "packages": versions,
    "device": f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
    "cpu_count": os.cpu_count(),
    "git_commit": _git_commit(),
    "command": " ".join(sys.argv),
    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
  }


def _git_commit() -> str:
  """The commit of this source tree, "+changes" where it has been edited, "" outside a checkout."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / ".git").exists():
    return ""

  def git(*args: str) -> str:
    done = subprocess.run(
      ["git", "--no-optional-locks", "-C", root, *args], capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip() if done.returncode == 0 else ""

  try:
    commit = git("rev-parse", "HEAD")
    return commit + ("+changes" if git("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.TimeoutExpired):
    return ""


class MetricsFile:
  """`metrics.jsonl`: one object a line with step, name and value.

  Opening it with `after_step` drops later lines, so that a resumed run repeats none.
  """

  def __init__(self, path: pathlib.Path, *, after_step: int) -> None:
    kept = []
    if path.exists():
      for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
          if json.loads(line)["step"] <= after_step:
            kept.append(line + b"\n")
    with atomic_path(path) as temporary:
      temporary.write_bytes(b"".join(kept))
    self._handle: TextIO = open(path, "a", encoding="utf-8")

  def write(self, step: int, **values: float) -> None:
    """Appends one line per value and flushes."""
    with writing(pathlib.Path(self._handle.name)):
      for name, value in values.items():
        self._handle.write(json.dumps({"step": step, "name": name, "value": float(value)}) + "\n")
      self._handle.flush()

  def close(self) -> None:
    """Closes the file."""
    self._handle.close()


@contextlib.contextmanager
def signals(promise: str, *, log: Log) -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM instead of ending the process; a second one ends it.

  Args: promise: the line for the user when one arrives, such as "stopping after this epoch".
  Yields: the numbers of those that arrived; none outside the main thread, which alone gets them.
  """
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield received
    return
  former: dict[int, Any] = {}

  def note(signum: int, _: Any) -> None:
    received.append(signum)
    with contextlib.suppress(RuntimeError):  # the signal came within another print
      log.info(f"{promise}; a second signal ends the process at once")
    signal.signal(signum, former[signum])

  for signum in (signal.SIGINT, signal.SIGTERM):
    former[signum] = signal.signal(signum, note)
  try:
    yield received
  finally:
    for signum, handler in former.items():
      signal.signal(signum, handler)
