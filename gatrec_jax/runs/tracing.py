"""Traces of training by JAX's profiler, and the operations that took most of the time."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import jax

from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path

Event = tuple[str, float, float]
"""An operation as it ran: its name, its start, its duration in nanoseconds."""


@dataclasses.dataclass(frozen=True)
class Operation:
  """All runs of one XLA operation.

  Attributes:
    name: as in the compiled program, such as "fusion.12".
    share: of the time of all operations, between 0 and 1.
    milliseconds: in total, without those of the operations that it calls (a loop's own time only).
    count: how often it ran.
  """

  name: str
  share: float
  milliseconds: float
  count: int


@dataclasses.dataclass
class Recording:
  """What `recording` yields.

  Attributes:
    folder: where the trace goes, in the layout of TensorBoard's profile plugin.
    what: a description of what was traced; "" until something was.
    trace: the trace's file for XProf; beside it is one for Perfetto. None until it is written.
  """

  folder: pathlib.Path
  what: str = ""
  trace: pathlib.Path | None = None
  _parts_seen: int = 0


_current: contextvars.ContextVar[Recording | None] = contextvars.ContextVar(
  "recording", default=None
)


@contextlib.contextmanager
def recording(folder: str | os.PathLike[str]) -> Iterator[Recording]:
  """Traces one part of what is trained inside: the second `part` that begins, or the last one.

  Raises:
    InputError: the folder cannot be made or written to.
  """
  path = user_path(folder)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise InputError(
      f"cannot be written to ({error.strerror})", field="trace", value=folder
    ) from None
  found = Recording(path)
  token = _current.set(found)
  try:
    yield found
  finally:
    _current.reset(token)


@contextlib.contextmanager
def part(what: str, *, last: bool) -> Iterator[None]:
  """Marks a part of the work that ends with its results computed; free where nothing is recorded.

  The first part compiles, so the second one is traced, once in a recording.

  Args:
    what: a description for people: "epochs 6 to 10".
    last: no similar part will follow, so that this one is traced even if it compiles.
  """
  found = _current.get()
  if found is None or found.what:
    yield
    return
  found._parts_seen += 1
  if found._parts_seen == 1 and not last:
    yield
    return
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # calls of Python would fill the file, and slow what is measured
  jax.profiler.start_trace(found.folder, profiler_options=options)
  try:
    yield
  finally:
    jax.profiler.stop_trace()
  found.what = what
  # JAX names the file by time and machine, and does not return the name.
  written = found.folder.glob("plugins/profile/*/*.xplane.pb")
  found.trace = max(written, key=lambda file: file.stat().st_mtime_ns)


def largest_operations(trace: pathlib.Path, *, most: int = 5) -> list[Operation]:
  """The operations of a trace that took most time, the largest first; none in an empty trace."""
  return summary(_lines(jax.profiler.ProfileData.from_file(str(trace))))[:most]


def summary(lines: Iterable[Sequence[Event]]) -> list[Operation]:
  """All operations by name, the largest first; their shares add up to 1.

  Args: lines: the events of each thread or stream, in any order.
  """
  times: dict[str, float] = collections.defaultdict(float)
  counts: dict[str, int] = collections.defaultdict(int)
  for events in lines:
    for name, own in self_times(events):
      times[name] += own
      counts[name] += 1
  total = sum(times.values())
  return [
    Operation(name, times[name] / total if total else 0.0, times[name] / 1e6, counts[name])
    for name in sorted(times, key=lambda name: (-times[name], name))
  ]


def self_times(events: Sequence[Event]) -> list[tuple[str, float]]:
  """Each event's duration without that of the events inside it, in the order of starts.

  Args: events: of one thread or stream, where an event that starts in another one also ends in it.
  """
  order = sorted(events, key=lambda event: (event[1], -event[2]))
  own = [duration for _, _, duration in order]
  open_events: list[int] = []  # the event at hand is inside all of these
  for at, (_, start, duration) in enumerate(order):
    while open_events and start >= order[open_events[-1]][1] + order[open_events[-1]][2]:
      open_events.pop()
    if open_events:
      own[open_events[-1]] -= duration
    open_events.append(at)
  # Clocks are coarse: a loop can seem shorter than its body.
  return [(name, max(time, 0.0)) for (name, _, _), time in zip(order, own, strict=True)]


def _lines(data: jax.profiler.ProfileData) -> list[list[Event]]:
  """The XLA operations of each line: of the devices, or of the host's threads on a CPU."""
  devices, host = [], []
  for plane in data.planes:
    lines = {line.name: line for line in plane.lines}
    if plane.name.startswith("/device:"):
      # Of a TPU this line alone is operations; of a GPU all streams are, copies included.
      streams = [line for name, line in lines.items() if name.startswith("Stream")]
      chosen = [lines["XLA Ops"]] if "XLA Ops" in lines else streams
      devices += [[_event(event) for event in line.events] for line in chosen]
    elif plane.name.startswith("/host:"):
      # Threads also hold what the runtime does around operations; only these have the statistic.
      host += [
        [_event(event) for event in line.events if "hlo_op" in dict(event.stats)]
        for line in plane.lines
      ]
  return devices if any(devices) else host


def _event(event: jax.profiler.ProfileEvent) -> Event:
  name = str(dict(event.stats).get("hlo_op") or event.name)
  # A TPU's names are whole instructions: "%fusion.3 = f32[8]{0} fusion(…)".
  return name.partition(" = ")[0].removeprefix("%"), event.start_ns, event.duration_ns
