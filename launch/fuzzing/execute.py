"""Executes one parser on mutated files, many times in one process, and keeps what it found."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, MutableSequence
from random import Random
from typing import Any

from launch.fuzzing.mutate import Files

LIMIT_SECONDS = 5.0
LONGEST_MESSAGE = 2_000
KEPT = 20  # findings of one kind of which the files are kept


@dataclasses.dataclass(frozen=True)
class Parser:
  """A parser and inputs to begin with; it is in `PARSERS` of the module that defines `run`.

  Attributes:
    name: of the parser. seeds: returns valid inputs, the files of a folder each.
    mutate: (generator, files) -> files. run: reads the folder; returns, or raises InputError.
  """

  name: str
  seeds: Callable[[], list[Files]]
  mutate: Callable[[Random, Files], Files]
  run: Callable[[pathlib.Path], Any]

  def __reduce__(self) -> tuple[Any, ...]:
    return _named, (self.run.__module__, self.name)


class TooLong(BaseException):
  """The parser took longer than `LIMIT_SECONDS`."""


@dataclasses.dataclass(frozen=True)
class Finding:
  """What a parser did that it must not do. kind: a few words. detail: message and traceback."""

  kind: str
  detail: str


def _named(module: str, name: str) -> Parser:
  """The parser of that name in the module's `PARSERS`; mutations cannot be pickled themselves."""
  return next(one for one in importlib.import_module(module).PARSERS if one.name == name)


def input_of(parser: Parser, seeds: list[Files], seed: int, number: int) -> Files:
  """The files of an execution, which depend on nothing but `seed`, the parser and its number."""
  rng = Random(f"{seed} {parser.name} {number}")
  files = rng.choice(seeds)
  return parser.mutate(rng, files) if number >= len(seeds) else seeds[number]


def execute(parser: Parser, folder: pathlib.Path, files: Files) -> Finding | bool:
  """Runs a parser on files. Returns: whether it accepted them, or the finding."""
  from gatrec_jax.errors import InputError

  write(folder, files)
  begun = time.perf_counter()
  try:
    with _alarm(LIMIT_SECONDS):
      parser.run(folder)
  except InputError as error:
    found: Finding | bool = _wrong_message(str(error)) or False
  except (KeyboardInterrupt, SystemExit):
    raise
  except TooLong:
    found = Finding("too long", traceback.format_exc())
  except BaseException as error:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "gatrec_jax" in frame.filename] or frames
    where = f"{pathlib.Path(own[-1].filename).stem}:{own[-1].name}"
    found = Finding(f"{type(error).__name__} in {where}", traceback.format_exc()[-4000:])
  else:
    found = True
  if time.perf_counter() - begun > LIMIT_SECONDS and not isinstance(found, Finding):
    return Finding("too long", f"{time.perf_counter() - begun:.1f} s")
  return found


def execute_range(
  parser: Parser,
  numbers: range,
  *,
  seed: int,
  scratch: pathlib.Path,
  findings: pathlib.Path,
  state: MutableSequence[float],
) -> None:
  """Runs executions one after the other.

  Args:
    parser: which. numbers: of the executions. seed: of the mutations.
    scratch: a folder of this process. findings: where files of findings are kept.
    state: [5] float64, shared with the parent: the execution that is running, when it began, and
      counts of accepted and refused inputs and of findings; is changed.
  """
  seeds = parser.seeds()
  for number in numbers:
    state[0], state[1] = number, time.time()
    files = input_of(parser, seeds, seed, number)
    found = execute(parser, scratch, files)
    if isinstance(found, Finding):
      keep(findings, parser.name, number, found, files)
      state[4] += 1
    else:
      state[2 if found else 3] += 1


def keep(folder: pathlib.Path, name: str, number: int, found: Finding, files: Files) -> None:
  """Saves a finding's files, unless there are `KEPT` of its kind already; lists it in any case."""
  folder.mkdir(parents=True, exist_ok=True)
  line = json.dumps({"parser": name, "execution": number, "kind": found.kind})
  with open(folder / "findings.jsonl", "a", encoding="utf-8") as listed:
    listed.write(line + "\n")
  alike = sum(
    json.loads(one)["kind"] == found.kind and json.loads(one)["parser"] == name
    for one in (folder / "findings.jsonl").read_text("utf-8").splitlines()
  )
  if alike <= KEPT:
    target = folder / f"{name}-{number}"
    write(target / "files", files)
    (target / "finding.txt").write_text(
      f"{found.kind}\n\n{found.detail}", "utf-8", errors="backslashreplace"
    )


def write(folder: pathlib.Path, files: Files) -> None:
  """Makes the folder hold exactly these files."""
  if folder.exists():
    for path in folder.iterdir():
      if path.is_dir():
        shutil.rmtree(path)
      elif path.name not in files:
        path.unlink()
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in files.items():
    if "/" in name:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def quiet() -> None:
  """Discards what this process prints and logs; parsers warn, and panics go to standard error."""
  import logging
  import warnings

  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 1)
  os.dup2(nowhere, 2)


def _wrong_message(message: str) -> Finding | None:
  if len(message.splitlines()) != 1:
    return Finding("message of several lines", message)
  if len(message) > LONGEST_MESSAGE:
    return Finding("message too long", message)
  return None


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
  """Raises TooLong in the block after some seconds."""

  def ring(*_: Any) -> None:
    raise TooLong

  former = signal.signal(signal.SIGALRM, ring)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)
