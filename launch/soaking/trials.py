"""Runs a program as a process, kills it, runs it to its end, and compares."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from gatrec_jax.errors import InputError
from launch.soaking.leaves import differing, leaves
from launch.soaking.subjects import STARTS, Subject

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_SHARES = (0.8, 0.1, 0.1)
_KILLS, _KILL_SHARES = (1, 2, 3), (0.6, 0.25, 0.15)  # in a row
_READER_SHARE = 0.25
_READ = ("recommend", "--workdir=run", "--users=1,2", "--top_n=3")


@dataclasses.dataclass
class Trial:
  """What came of one program that was killed and then run to its end.

  Attributes:
    signals: names of those that met the running program. readers: number of readers meanwhile.
    problems: what went wrong, leaves that differ among it; [] = nothing.
  """

  signals: list[str] = dataclasses.field(default_factory=list)
  readers: int = 0
  problems: list[str] = dataclasses.field(default_factory=list)


class Place:
  """The folder of a soak.

  A program always works in `WORKDIR/place`, so that paths in its files are the same in each run.
  """

  def __init__(self, workdir: pathlib.Path) -> None:
    self.workdir = workdir
    self.folder = workdir / "place"

  def start(self, name: str) -> pathlib.Path:
    """The folder `STARTS[name]`, made on first use."""
    folder = self.workdir / "starts" / name
    if not folder.exists():
      wanted = STARTS[name]
      self.clear(wanted.base)
      wanted.write(self.folder)
      for command in wanted.commands:
        self.run_to_end(command)
      folder.parent.mkdir(parents=True, exist_ok=True)
      self.folder.rename(folder)
    return folder

  def clear(self, start: str | None) -> None:
    """Makes the folder anew, with a start or empty."""
    source = None if start is None else self.start(start)
    shutil.rmtree(self.folder, ignore_errors=True)
    if source is None:
      self.folder.mkdir(parents=True)
    else:
      shutil.copytree(source, self.folder)

  def whole(self, name: str, subject: Subject) -> tuple[dict[str, str], float]:
    """Leaves of the uninterrupted run, and its seconds with compiled programs at hand.

    Raises: InputError: it failed, or two of them differ, so that nothing can be compared with it.
    """
    self.clear(subject.start)
    self.run_to_end(subject.command)
    first = leaves(self.folder)
    self.clear(subject.start)
    began = time.monotonic()
    self.run_to_end(subject.command)
    seconds = time.monotonic() - began
    if found := differing(leaves(self.folder), first):
      raise InputError(f"{name}: two uninterrupted runs differ in {shown(found)}")
    return first, seconds

  def trial(
    self, subject: Subject, whole: dict[str, str], seconds: float, random: np.random.Generator
  ) -> Trial:
    """Kills the program once to thrice, runs it to its end, and compares.

    Args: whole, seconds: of the uninterrupted run. random: is consumed.
    """
    self.clear(subject.start)
    found = Trial()
    longest = 60 + 20 * seconds
    for _ in range(random.choice(_KILLS, p=_KILL_SHARES)):
      signum = _SIGNALS[random.choice(len(_SIGNALS), p=_SHARES)]
      delay = random.uniform(0, seconds)
      reader_delay = random.uniform(0, delay)
      is_read = subject.is_read and random.random() < _READER_SHARE
      began = time.monotonic()
      process = self.popen(subject.command, "log")
      reader = None
      if is_read and not _ended(process, reader_delay):
        reader = self.popen(_READ, "reader")
      if not _ended(process, delay - (time.monotonic() - began)):
        process.send_signal(signum)
        found.signals.append(signum.name)
        allowed = (-signum, 128 + signum, 0)
      else:
        allowed = (0,)
      self._judge(process, "log", allowed, longest, f"after {signum.name} at {delay:.2f} s", found)
      if reader is not None:
        found.readers += 1
        self._judge(reader, "reader", (0, 1), longest, "a reader", found)
    process = self.popen(subject.command, "log")
    self._judge(process, "log", (0,), longest, "the run to the end", found)
    try:
      found.problems += differing(leaves(self.folder), whole)
    except Exception as error:  # libraries raise many types of errors for damaged files
      found.problems.append(f"unreadable: {' '.join(str(error).split())[:200]}")
    return found

  def run_to_end(self, command: Sequence[str]) -> None:
    """Runs a program. Raises InputError where it fails."""
    if self.popen(command, "log").wait():
      raise InputError(f"{' '.join(command)} failed: {self.last_line('log')}")

  def popen(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
    """Starts a program. Args: log: the name of the file that its output goes to."""
    with open(self.workdir / f"{log}.txt", "wb") as out:
      return subprocess.Popen(
        [sys.executable, "-m", f"launch.{command[0]}", *command[1:]],
        cwd=self.folder,
        env=self._environment(),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
      )

  def _judge(
    self,
    process: subprocess.Popen[bytes],
    log: str,
    allowed: Sequence[int],
    longest: float,
    what: str,
    found: Trial,
  ) -> None:
    """Waits for the end of a process and adds to the problems what is wrong with it."""
    if not _ended(process, longest):
      process.kill()
      process.wait()
      found.problems.append(f"{what}: no end within {longest:.0f} s")
      return
    text = (self.workdir / f"{log}.txt").read_text("utf-8", errors="replace")
    if process.returncode not in allowed:
      found.problems.append(f"{what}: exit code {process.returncode}: {self.last_line(log)}")
    # Python itself prints one for Ctrl-C before a program has begun.
    elif "Traceback (most recent call last)" in text and not self.last_line(log).startswith(
      "KeyboardInterrupt"
    ):
      found.problems.append(f"{what}: a traceback: {self.last_line(log)}")

  def last_line(self, log: str) -> str:
    """The last line of such a file."""
    lines = (self.workdir / f"{log}.txt").read_text("utf-8", errors="replace").strip()
    return lines.rpartition("\n")[2]

  def _environment(self) -> dict[str, str]:
    """Compiles with little optimization, in half the time, and keeps compiled programs."""
    own = {
      "PYTHONPATH": str(_ROOT),
      "GATREC_CACHE": str(self.folder / "cache"),
      "JAX_COMPILATION_CACHE_DIR": str(self.workdir / "compiled"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
      "OPENBLAS_NUM_THREADS": "1",
      "JAX_PLATFORMS": "cpu",
    }
    # Other versions of XLA end the process at a flag that they do not know.
    if importlib.metadata.version("jaxlib").startswith("0.10."):
      own["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    return os.environ | own


def shown(problems: Sequence[str], most: int = 5) -> str:
  """The first few in one line."""
  more = f" and {len(problems) - most} more" if len(problems) > most else ""
  return "; ".join(problems[:most]) + more


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
  try:
    process.wait(max(0.0, seconds))
  except subprocess.TimeoutExpired:
    return False
  return True
