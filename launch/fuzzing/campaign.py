"""Divides executions among worker processes, replaces workers that end, and counts; resumable."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gatrec_jax import runs
from gatrec_jax.runs.log import Log
from launch.fuzzing.execute import (
  LIMIT_SECONDS,
  Finding,
  Parser,
  execute_range,
  input_of,
  keep,
  quiet,
)

CHUNK = 500  # executions between two entries in counts.json
SPARE_BYTES = 4 << 30  # of address space that a worker may take beyond what it begins with
Counts = dict[str, float]


def fuzz(
  parsers: Sequence[Parser],
  workdir: pathlib.Path,
  *,
  executions: int,
  seed: int,
  processes: int,
  log: Log,
) -> dict[str, Counts]:
  """Runs every parser on mutated inputs, from where an earlier call stopped.

  Args:
    parsers: which. workdir: holds counts.json and findings/.
    executions: of each parser, those of earlier calls included.
    seed: of the mutations. processes: workers; 0 = this process, which a crash would end.
    log: where progress is shown.
  Returns: by parser: executions, accepted, refused, findings, seconds (of all processes).
  """
  path = workdir / "counts.json"
  key = str(seed)
  counts: dict[str, dict[str, Counts]] = runs.read_json(path) if path.exists() else {}
  known = counts.setdefault(key, {})
  with _scratch() as scratch, log.progress("fuzz", total=executions * len(parsers)) as show:
    workers = [_Worker(scratch / str(place), workdir, seed) for place in range(processes)]
    try:
      for parser in parsers:
        mine = known.setdefault(
          parser.name, {"executions": 0, "accepted": 0, "refused": 0, "findings": 0, "seconds": 0.0}
        )
        chunks = [
          range(start, min(start + CHUNK, executions))
          for start in range(int(mine["executions"]), executions, CHUNK)
        ]
        for fresh in _in_order(parser, chunks, workers, scratch / "own", workdir, seed):
          for name, value in fresh.items():
            mine[name] += value
          runs.write_json(path, counts)
          show(sum(int(one["executions"]) for one in known.values()), parser=parser.name)
    finally:
      for worker in workers:
        worker.end()
  return {parser.name: known[parser.name] for parser in parsers}


def _in_order(
  parser: Parser,
  chunks: Sequence[range],
  workers: Sequence[_Worker],
  own: pathlib.Path,
  workdir: pathlib.Path,
  seed: int,
) -> Iterator[Counts]:
  """The counts of each chunk, in order, so that counts.json says where to go on."""
  if not workers:
    for chunk in chunks:
      state = [0.0] * 5
      begun = time.time()
      execute_range(
        parser, chunk, seed=seed, scratch=own, findings=workdir / "findings", state=state
      )
      yield _counts(state, len(chunk), time.time() - begun)
    return
  left, done, given = list(enumerate(chunks)), {}, 0
  while given < len(chunks):
    for worker in workers:
      if worker.place is None and left:
        worker.begin(parser, *left.pop(0))
      if (finished := worker.poll()) is not None:
        place, counts = finished
        done[place] = counts
    while given in done:
      yield done.pop(given)
      given += 1
    time.sleep(0.005)


def _counts(state: Sequence[float], executions: int, seconds: float) -> Counts:
  return {
    "executions": executions,
    "accepted": int(state[2]),
    "refused": int(state[3]),
    "findings": int(state[4]),
    "seconds": round(seconds, 3),
  }


class _Worker:
  """A process that executes chunks. One that crashes or is stuck is replaced; the next goes on."""

  def __init__(self, scratch: pathlib.Path, workdir: pathlib.Path, seed: int) -> None:
    self._context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    self._settings = (scratch, workdir / "findings", seed)
    self._state = self._context.Array("d", 5, lock=False)
    self._process: Any = None
    self._pipe: Any = None
    self._work: tuple[Parser, range] | None = None
    self._begun = 0.0
    self.place: int | None = None

  def begin(self, parser: Parser, place: int, chunk: range) -> None:
    """Gives the process a chunk."""
    self.place, self._work, self._begun = place, (parser, chunk), time.time()
    self._state[:] = [0.0] * 5
    self._send(chunk)

  def poll(self) -> tuple[int, Counts] | None:
    """(place, counts) of the chunk if it is finished. Replaces a process that has ended."""
    if self.place is None:
      return None
    parser, chunk = self._work
    if self._pipe.poll():
      with contextlib.suppress(EOFError):
        self._pipe.recv()
        return self._finished(len(chunk))
    number, since = int(self._state[0]), self._state[1]
    stuck = since > 0 and time.time() - since > LIMIT_SECONDS + 3
    if self._process.is_alive() and not stuck:
      return None
    self.end()
    how = "stuck" if stuck else f"the process ended with {self._exit}"
    files = input_of(parser, parser.seeds(), self._settings[2], number)
    keep(self._settings[1], parser.name, number, Finding(how, ""), files)
    self._state[4] += 1
    self._state[1] = 0.0
    rest = range(number + 1, chunk.stop)
    if not rest:
      return self._finished(len(chunk))
    self._send(rest)
    return None

  def end(self) -> None:
    """Ends the process at once."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._exit = self._process.exitcode
      self._process = None

  def _finished(self, executions: int) -> tuple[int, Counts]:
    place, self.place = self.place, None
    return place, _counts(self._state, executions, time.time() - self._begun)

  def _send(self, chunk: range) -> None:
    if self._process is None:
      self._pipe, theirs = self._context.Pipe()
      self._process = self._context.Process(
        target=_work, args=(theirs, self._state, *self._settings), daemon=True
      )
      self._process.start()
      theirs.close()
    self._pipe.send((self._work[0], chunk))


def _work(pipe: Any, state: Any, scratch: pathlib.Path, findings: pathlib.Path, seed: int) -> None:
  """The loop of a worker process."""
  quiet()
  limited = False
  while True:
    try:
      parser, chunk = pipe.recv()
    except EOFError:
      return
    if not limited:
      _limit_memory()
      limited = True
    execute_range(parser, chunk, seed=seed, scratch=scratch, findings=findings, state=state)
    pipe.send(None)


def _limit_memory() -> None:
  """Limits the address space, so that absurd sizes fail here and do not exhaust the machine."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  most = pages * resource.getpagesize() + SPARE_BYTES
  resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


@contextlib.contextmanager
def _scratch() -> Iterator[pathlib.Path]:
  """A temporary folder, in memory where the system has one."""
  memory = pathlib.Path("/dev/shm")
  base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
  folder = pathlib.Path(tempfile.mkdtemp(prefix="gatrec-fuzz-", dir=base))
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def findings_of(workdir: pathlib.Path) -> dict[tuple[str, str], tuple[int, int]]:
  """(parser, kind) -> (count, number of the first execution), most first."""
  path = workdir / "findings" / "findings.jsonl"
  found: dict[tuple[str, str], tuple[int, int]] = {}
  for line in path.read_text("utf-8").splitlines() if path.exists() else ():
    one = json.loads(line)
    count, first = found.get((one["parser"], one["kind"]), (0, one["execution"]))
    found[one["parser"], one["kind"]] = (count + 1, min(first, one["execution"]))
  return dict(sorted(found.items(), key=lambda item: -item[1][0]))
