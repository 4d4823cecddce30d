"""Hashes by which files that a run stores are checked when they are read.

A JSON file and a line of a JSONL file hold their own hash; other files are recorded in the JSON
file that is written after them: `manifest.json` of a stage, `results.json` of a run.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.folder import digest, file_digest, read_json, write_json

_SEAL, _FILES = "digest", "files"
_RECORDS = ("manifest.json", "results.json")
_ALWAYS = 64 << 20  # bytes; larger files are hashed only where size or time of change differ
_REBUILD = "run launch.train with this `workdir` again, which makes it anew"


def sealed(tree: Mapping[str, Any]) -> dict[str, Any]:
  """`tree` with a hash of its content."""
  return {**tree, _SEAL: digest(_as_stored(tree))}


def unsealed(tree: Any) -> dict[str, Any] | None:
  """The content of a sealed tree; None where the hash is missing or of something else."""
  if not isinstance(tree, dict) or _SEAL not in tree:
    return None
  content = {name: value for name, value in tree.items() if name != _SEAL}
  return content if digest(content) == tree[_SEAL] else None


def write_sealed(path: pathlib.Path, tree: Mapping[str, Any], *, files: Iterable[str] = ()) -> None:
  """Writes JSON with its own hash, whole or not at all.

  Args: files: beside `path`, whose hashes are recorded in it; a folder stands for all in it.
  """
  recorded = {
    name: _record(path.parent / name) for given in files for name in _expanded(path.parent, given)
  }
  write_json(path, sealed({**tree, _FILES: recorded} if recorded else tree))


def read_sealed(path: pathlib.Path, *, remedy: str = _REBUILD) -> dict[str, Any]:
  """Reads what `write_sealed` wrote, without the hashes.

  Args: remedy: what to do about damage, for the user.
  Raises: InputError where it is missing; DamagedFile where its bytes are not those that were
    written.
  """
  content = _content_of(path, remedy)
  content.pop(_FILES, None)
  return content


def sealed_line(record: Mapping[str, Any]) -> str:
  """A line of a JSONL file with its own hash."""
  return json.dumps(sealed(record), ensure_ascii=False) + "\n"


def unsealed_line(line: str | bytes) -> dict[str, Any] | None:
  """The record of a line; None where the line is damaged."""
  try:
    return unsealed(json.loads(line))
  except (ValueError, RecursionError):
    return None


def require_intact(record: pathlib.Path, *names: str, remedy: str = _REBUILD) -> None:
  """Checks files against the hashes that were recorded when they were written.

  Files under 64 MiB are hashed; larger ones only where size or time of change differ.

  Args:
    record: the JSON file that `write_sealed` wrote.
    names: of files and folders beside it; none for all.
    remedy: what to do about damage, for the user.
  Raises: InputError where `record` is missing; DamagedFile names the first file that is missing or
    not what was written.
  """
  recorded = recorded_files(record, remedy=remedy)
  if unrecorded := [name for name in names if not any(map(_within(name), recorded))]:
    raise DamagedFile(f"{record}: damaged (it does not record {unrecorded[0]}); {remedy}")
  for one, known in recorded.items():
    path = record.parent / one
    wanted = not names or any(_within(name)(one) for name in names)
    if wanted and not _is_intact(path, known, whole=False):
      what = "is not what was written there" if path.exists() else "is missing"
      raise DamagedFile(f"{path}: damaged ({what}); {remedy}")


def require_written(path: pathlib.Path) -> None:
  """Checks a file of results against the `results.json` beside it, where that records it.

  Raises: DamagedFile, as `require_intact`.
  """
  record = path.parent / "results.json"
  if record.is_file() and isinstance(tree := read_json(record), dict):
    if _SEAL in tree and path.name in recorded_files(record):
      require_intact(record, path.name)


def verify(folder: pathlib.Path) -> int:
  """Hashes every recorded file below a folder, however large.

  Returns: the number of files. Raises: DamagedFile, as `require_intact`.
  """
  count = 0
  for record in sorted(folder.rglob("*.json")):
    if record.name not in _RECORDS or "digest" not in record.read_text("utf-8"):
      continue
    for name, known in recorded_files(record).items():
      count += 1
      if not _is_intact(record.parent / name, known, whole=True):
        is_there = (record.parent / name).exists()
        what = "is not what was written there" if is_there else "is missing"
        raise DamagedFile(
          f"{record.parent / name}: damaged ({what}); delete it, and run launch.train with this "
          "`workdir` again, which makes it anew"
        )
  return count


def _as_stored(tree: Mapping[str, Any]) -> Any:
  """The tree as JSON gives it back: lists for tuples, text for keys."""
  return json.loads(json.dumps(tree))


def recorded_files(record: pathlib.Path, *, remedy: str = _REBUILD) -> dict[str, dict[str, Any]]:
  """The hash, size and time of change of each file that a sealed JSON file records.

  Raises: as `read_sealed`.
  """
  return _content_of(record, remedy).get(_FILES, {})


def _content_of(path: pathlib.Path, remedy: str) -> dict[str, Any]:
  try:
    content = unsealed(read_json(path))
  except DamagedFile:
    content = None
  if content is None:
    raise DamagedFile(f"{path}: damaged (is not what was written there); {remedy}")
  return content


def _expanded(folder: pathlib.Path, name: str) -> list[str]:
  """The name, or the names of all files below it where it is a folder."""
  if not (folder / name).is_dir():
    return [name]
  files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
  return [path.relative_to(folder).as_posix() for path in files]


def _within(name: str) -> Callable[[str], bool]:
  """Whether a recorded file is that of this name, or below the folder of this name."""
  return lambda one: one == name or one.startswith(f"{name}/")


def _record(path: pathlib.Path) -> dict[str, Any]:
  stat = path.stat()
  return {"sha256": file_digest(path), "bytes": stat.st_size, "modified": stat.st_mtime_ns}


def _is_intact(path: pathlib.Path, known: Mapping[str, Any], *, whole: bool) -> bool:
  try:
    stat = path.stat()
    if stat.st_size != known["bytes"]:
      return False
    if not whole and stat.st_size >= _ALWAYS and stat.st_mtime_ns == known["modified"]:
      return True
    return file_digest(path) == known["sha256"]
  except (OSError, InputError):
    return False
