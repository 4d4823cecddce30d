"""Long jobs in chunks, whose records are kept in an append-only file."""

from __future__ import annotations

import io
import os
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatrec_jax import runs
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.runs.folder import writing
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.seals import sealed_line, unsealed_line

Record = Mapping[str, Any]


def in_chunks(
  path: pathlib.Path,
  keys: Sequence[str],
  make: Callable[[range], Sequence[Record]],
  *,
  chunk: int,
  name: str,
  log: Log,
  most: int | None = None,
) -> list[Record]:
  """Makes a record for each key, resuming where a former process stopped, however it ended.

  Every line holds its own hash. From a damaged one on, records are made again, and a line says so.

  Chunks are the same in every process, so that results that depend on a chunk's members are the
  same, and so is the file, byte for byte. A kill loses only the chunk in progress.

  Args:
    path: JSON lines, {"key": …, **record, "digest": …}; appended to chunk by chunk.
    keys: n distinct keys.
    make: positions in `keys` -> their records, plain values.
    chunk: number of keys at a time.
    name: of the job, for the user.
    log: where progress is shown.
    most: only this many of the first keys; a later call may ask for more or fewer of them.
  Returns:
    a record for each of these keys, "key" included.
  Raises:
    InputError: the file holds other keys.
    Interrupted: SIGINT or SIGTERM arrived; what is done is kept.
  """
  total = len(keys) if most is None else min(most, len(keys))
  records = _kept(path, keys, total, chunk, name=name, log=log)
  path.parent.mkdir(parents=True, exist_ok=True)
  with (
    writing(path),
    open(path, "ab", buffering=0) as out,
    runs.signals(f"{name}: stopping after these {chunk}", log=log) as received,
    log.progress(name, total=total, done=min(len(records), total)) as show,
  ):
    while len(records) < total:
      places = range(len(records), min(len(records) + chunk, total))
      fresh = [
        {"key": keys[place], **record} for place, record in zip(places, make(places), strict=True)
      ]
      lines = [sealed_line(record) for record in fresh]
      _append(out, "".join(lines).encode())
      records += fresh
      show(len(records))
      if received:
        raise Interrupted(
          f"stopped by {signal.Signals(received[0]).name} after {len(records)} of {total}, "
          "saved; the same command goes on from there",
          received[0],
        )
  return records[:total]


def _append(out: io.FileIO, data: bytes) -> None:
  """Appends all of `data`, or nothing where that fails."""
  start = out.seek(0, os.SEEK_END)
  try:
    left = memoryview(data)
    while left:
      left = left[out.write(left) :]
    os.fsync(out.fileno())
  except OSError:
    out.truncate(start)
    raise


def _kept(
  path: pathlib.Path, keys: Sequence[str], total: int, chunk: int, *, name: str, log: Log
) -> list[Record]:
  """The records before any damage, and of whole chunks where `total` needs more; the file is
  truncated after them."""
  if not path.exists():
    return []
  lines = path.read_bytes().splitlines(keepends=True)
  records: list[Record] = []
  for line in lines:
    record = unsealed_line(line) if line.endswith(b"\n") else None
    if record is None:
      break
    records.append(record)
  known = records or [one for one in map(unsealed_line, lines) if one is not None]
  is_other = [record.get("key") for record in records] != list(keys[: len(records)])
  if is_other or (not known and len(lines) > 1):
    raise InputError(f"{path}: damaged or of another job; delete it and run again")
  if len(records) < len(lines) - 1:
    log.info(f"{name}: made again from line {len(records) + 1} of {path} on, which is damaged")
  if len(records) < total:
    records = records[: len(records) // chunk * chunk]
  size = sum(map(len, lines[: len(records)]))
  if size < path.stat().st_size:
    os.truncate(path, size)
  return records
