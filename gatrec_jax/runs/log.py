"""Where lines and progress for the user go: one object that every long function takes as `log`.

train_and_evaluate(config, "runs/mine", log=SILENT)   # nothing is printed
lines = []
train_and_evaluate(config, "runs/mine", log=Recorder(lines))   # lines are kept instead
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from gatrec_jax.runs.visible import visible

Update = Callable[..., None]
"""update(done, **values): absolute progress, and values to show beside it."""


class Log(Protocol):
  """What the library tells a user while it works."""

  def info(self, line: str) -> None:
    """Shows a line at once."""

  def progress(
    self, description: str, *, total: int, done: int = 0
  ) -> contextlib.AbstractContextManager[Update]:
    """Shows the progress of a job of `total` steps, `done` of which are behind it."""


class Console:
  """Lines to standard output; progress to standard error, as a bar where that is a terminal and
  as a line every ten seconds elsewhere. Control characters of data are shown as escapes."""

  def info(self, line: str) -> None:
    print(visible(line), flush=True)

  @contextlib.contextmanager
  def progress(self, description: str, *, total: int, done: int = 0) -> Iterator[Update]:
    if not sys.stderr.isatty():
      yield _lines_of_progress(description, total=total, done=done)
      return
    from rich.console import Console as Terminal
    from rich.progress import (
      BarColumn,
      MofNCompleteColumn,
      Progress,
      TextColumn,
      TimeRemainingColumn,
    )

    columns = (
      TextColumn("{task.description}", markup=False),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn("{task.fields[values]}", markup=False),
    )
    with Progress(*columns, console=Terminal(stderr=True)) as bar:
      task = bar.add_task(visible(description), total=total, completed=done, values="")
      yield lambda done, **values: bar.update(task, completed=done, values=_values(values))


class Silent:
  """Shows nothing."""

  def info(self, line: str) -> None:
    pass

  @contextlib.contextmanager
  def progress(self, description: str, *, total: int, done: int = 0) -> Iterator[Update]:
    yield lambda done, **values: None


class Recorder(Silent):
  """Appends lines to a list and shows nothing. Args: lines: the list."""

  def __init__(self, lines: list[str]) -> None:
    self.lines = lines

  def info(self, line: str) -> None:
    self.lines.append(line)


CONSOLE: Log = Console()
SILENT: Log = Silent()


def _lines_of_progress(description: str, *, total: int, done: int) -> Update:
  first, begun = done, time.monotonic()
  last = [begun]

  def report(done: int, **values: float | str) -> None:
    now = time.monotonic()
    if now - last[0] >= 10 or done == total:
      last[0] = now
      left = (now - begun) * (total - done) / max(1, done - first)
      words = [f"{description} {done}/{total}", _values(values)]
      words += [f"({_duration(left)} left)"] if done < total else []
      print(visible(" ".join(filter(None, words))), file=sys.stderr, flush=True)

  return report


def _duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes} min"
  return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _values(values: Mapping[str, float | str]) -> str:
  shown = (f"{k} {v if isinstance(v, str) else format(v, '.4g')}" for k, v in values.items())
  return visible(" ".join(shown))
