"""Damages stored files one at a time, and sees what the programs that read them do."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.resumable import in_chunks
from launch.fuzzing.damages import DAMAGES, damaged
from launch.fuzzing.reading_programs import READERS, Reader, artifact, contents

SAME, AGAIN, REFUSED = "same", "made again", "refused"
SILENT, TRACEBACK, OTHER = "silent", "traceback", "other"
GOOD, BAD = (SAME, AGAIN, REFUSED), (SILENT, TRACEBACK, OTHER)
_PROGRESS = re.compile("[a-z]+: ")  # what a program says about its own work
# Artifacts that take minutes to be made again are drawn less often than others, whose weight is 1.
_WEIGHTS = {"cache/builtin": 0.02, "cache/author": 0.1}
_TIME = re.compile(r"[0-9.]+ ?(?:s|ms|lists/s|texts/s|MB|GB)\b")


def try_damages(
  workdir: pathlib.Path,
  *,
  trials: int,
  seed: int,
  log: Log,
  readers: Mapping[str, Reader] = READERS,
) -> list[Mapping[str, Any]]:
  """Damages one file after another, each in a fresh copy, and lets a program read it.

  Args:
    workdir: gets the undamaged folders, the copy, `trials-SEED.jsonl`, and `findings/NUMBER` for
      every trial with a bad outcome. Trials that it holds are not repeated.
    trials: number of damaged files. seed: of all draws. readers: calls of programs by name.
  Returns: for each trial: file, damage, reader, outcome, and what the program printed.
  Raises: InputError: an undamaged folder gives different results from call to call.
  """
  now, base = workdir / "now", workdir / "base"
  with _Workers(now, workdir / "compiled") as workers:
    if not (base / "complete").exists():
      _build(now, base, readers, workers, log)
    reference = _reference(now, base, readers, workers, log)
    files = _files(base, readers)

    def make(places: range) -> list[Mapping[str, Any]]:
      return [_trial(place, seed, workdir, files, readers, workers, reference) for place in places]

    keys = [str(number) for number in range(trials)]
    return in_chunks(workdir / f"trials-{seed}.jsonl", keys, make, chunk=20, name="damage", log=log)


def by_outcome(found: Sequence[Mapping[str, Any]], field: str) -> dict[str, collections.Counter]:
  """Numbers of outcomes by the value of a field, in order of the values."""
  counts: dict[str, collections.Counter] = {}
  for one in sorted(found, key=lambda one: one[field]):
    counts.setdefault(one[field], collections.Counter())[one["outcome"]] += 1
  return counts


class _Workers:
  """A process for each program, started when it is first needed."""

  def __init__(self, place: pathlib.Path, compiled: pathlib.Path) -> None:
    """Args: place: the working folder of all. compiled: where JAX keeps compiled programs."""
    self._place, self._compiled = place.absolute(), compiled.absolute()
    self._processes: dict[str, subprocess.Popen[str]] = {}

  def __enter__(self) -> _Workers:
    return self

  def __exit__(self, *_: object) -> None:
    for process in self._processes.values():
      process.kill()
      process.wait()

  def __call__(self, reader: Reader) -> dict[str, Any]:
    """Exit code, output, errors and traceback of a call."""
    process = self._processes.get(reader.program)
    if process is None or process.poll() is not None:
      process = self._processes[reader.program] = self._start(reader.program)
    process.stdin.write(json.dumps(reader.flags) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
      return {"code": process.wait(), "out": "", "err": "", "trace": "the process died"}
    return json.loads(line)

  def _start(self, program: str) -> subprocess.Popen[str]:
    self._place.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
      [sys.executable, "-c", _CHANGED_FOLDER, str(self._place), program],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      env=os.environ
      | {
        "GATREC_CACHE": str(self._place / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(self._compiled),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[2]),
      },
    )


# The working folder is deleted and made again from trial to trial, so each call enters it anew.
_CHANGED_FOLDER = """
import os, sys
place = sys.argv.pop(1)
os.chdir(place)
import launch.fuzzing.program_worker as worker
worker.main(place)
"""


def _build(
  now: pathlib.Path, base: pathlib.Path, readers: Mapping[str, Reader], workers: _Workers, log: Log
) -> None:
  """Makes the undamaged folders, or goes on with them."""
  from launch.soaking.subjects import write_small

  shutil.rmtree(base, ignore_errors=True)
  now.mkdir(parents=True, exist_ok=True)
  if not (now / "model").exists():
    write_small(now)
  for name, reader in readers.items():
    if reader.makes:
      log.info(f"damage: making what {name} leaves")
      answer = workers(reader)
      if answer["code"] or answer["trace"]:
        raise InputError(f"launch.{name} failed: {answer['err'] or answer['trace']}")
  (now / "complete").touch()
  shutil.copytree(now, base)


def _reference(
  now: pathlib.Path, base: pathlib.Path, readers: Mapping[str, Reader], workers: _Workers, log: Log
) -> dict[str, Any]:
  """What each reader gives where nothing is damaged. Each is called twice, and must agree."""
  found = {}
  for name, reader in readers.items():
    seen = []
    for _ in range(2):
      _fresh(now, base)
      seen.append(_seen(now, reader, workers(reader)))
    if seen[0] != seen[1] or seen[0]["code"]:
      raise InputError(f"launch.{name} does not give the same twice: {_difference(*seen)}")
    found[name] = seen[0]
  log.info(f"damage: {len(found)} ways to read a folder give the same twice")
  return found


def _files(base: pathlib.Path, readers: Mapping[str, Reader]) -> list[str]:
  """The stored files that some reader reads."""
  files = [path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()]
  return sorted(file for file in files if not file.endswith(".lock") and _readers_of(file, readers))


def _readers_of(file: str, readers: Mapping[str, Reader]) -> list[str]:
  return [name for name, reader in readers.items() if artifact(file).startswith(reader.reads)]


def _trial(
  number: int,
  seed: int,
  workdir: pathlib.Path,
  files: Sequence[str],
  readers: Mapping[str, Reader],
  workers: _Workers,
  reference: Mapping[str, Any],
) -> dict[str, Any]:
  now, random = workdir / "now", np.random.default_rng([seed, number])
  while True:
    file = _drawn_file(files, random)
    kind = str(random.choice(list(DAMAGES)))
    _fresh(now, workdir / "base")
    if damaged(now / file, kind, random):
      break
  name = str(random.choice(_readers_of(file, readers)))
  with _kept_if_bad(workdir, number) as keep:
    answer = workers(readers[name])
    seen = _seen(now, readers[name], answer)
    outcome = _outcome(answer, seen, reference[name], file)
    if outcome in BAD:
      keep({"file": file, "damage": kind, "reader": name, "outcome": outcome, **answer})
  shown = answer["trace"].strip().split("\n")[-1] or answer["err"].strip() or answer["out"][-200:]
  return {
    "file": file,
    "artifact": artifact(file),
    "damage": kind,
    "reader": name,
    "outcome": outcome,
    "said": shown[-300:],
  }


@contextlib.contextmanager
def _kept_if_bad(workdir: pathlib.Path, number: int) -> Iterator[Any]:
  """Keeps the damaged folder of a trial, with what happened, under findings/."""
  reports: list[Mapping[str, Any]] = []
  yield reports.append
  for report in reports:
    folder = workdir / "findings" / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(workdir / "now", folder)
    (folder / "report.json").write_text(json.dumps(report, indent=2))


def _drawn_file(files: Sequence[str], random: np.random.Generator) -> str:
  """A file of an artifact that is drawn first, since checkpoints have the most files."""
  by_artifact: dict[str, list[str]] = {}
  for file in files:
    by_artifact.setdefault(artifact(file), []).append(file)
  names = sorted(by_artifact)
  weights = np.array([_WEIGHTS.get(name, 1.0) for name in names])
  chosen = by_artifact[str(random.choice(names, p=weights / weights.sum()))]
  return str(random.choice(chosen))


def _fresh(now: pathlib.Path, base: pathlib.Path) -> None:
  """Makes the working folder equal to the undamaged one; the folder itself stays."""
  for path in now.iterdir():
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()
  shutil.copytree(base, now, dirs_exist_ok=True)


def _seen(now: pathlib.Path, reader: Reader, answer: Mapping[str, Any]) -> dict[str, Any]:
  seen: dict[str, Any] = {"code": answer["code"]}
  if answer["code"] == 0 and not answer["trace"]:
    with contextlib.suppress(FileNotFoundError):
      seen |= contents(now, reader)
    if not reader.outputs:
      lines = [line for line in answer["out"].split("\n") if not _PROGRESS.match(line)]
      seen["out"] = _TIME.sub("…", "\n".join(lines))
  return seen


def _outcome(answer: Mapping[str, Any], seen: Any, expected: Any, file: str) -> str:
  if answer["trace"]:
    return TRACEBACK
  if answer["code"] == 0:
    if seen != expected:
      return SILENT
    return AGAIN if "made again" in answer["out"] or "going on from" in answer["out"] else SAME
  errors = [line for line in answer["err"].split("\n") if line.startswith("error: ")]
  folder, name = file.partition("/")[0], pathlib.PurePosixPath(file).name
  is_named = len(errors) == 1 and (f"{folder}/" in errors[0] or name in errors[0])
  return REFUSED if answer["code"] == 1 and is_named else OTHER


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
  names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
  return ", ".join(names)
