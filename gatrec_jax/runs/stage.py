"""Stages of a run folder: made once from the same inputs, and made again where damaged."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.folder import has_checkpoints
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.seals import read_sealed, recorded_files, require_intact, write_sealed

MANIFEST = "manifest.json"


def stage(
  folder: pathlib.Path,
  *,
  name: str,
  inputs: str,
  outputs: tuple[str, ...],
  make: Callable[[], Mapping[str, Any]],
  log: Log,
  says_kept: bool = True,
) -> Mapping[str, Any]:
  """Runs `make`, unless its outputs are there, whole, and made from the same inputs.

  Args:
    folder: of the stage; its `manifest.json` records inputs, hashes of the outputs, and what `make`
      returned.
    name: of the stage, for the user.
    inputs: hash of everything that the outputs depend on.
    outputs: names of files in `folder`, and of folders with all that is in them.
    make: writes the outputs (each whole or not at all), returns plain facts for the manifest.
    log: where lines for the user go.
    says_kept: whether a line says that nothing had to be made.
  Returns:
    The facts, of this call or of the one that made the outputs.
  """
  manifest = folder / MANIFEST
  former: Mapping[str, Any] = {}
  if manifest.exists():
    try:
      known = read_sealed(manifest)
      if known["inputs"] == inputs:
        former = recorded_files(manifest)
        require_intact(manifest, *outputs)
        if says_kept:
          log.info(f"{name}: unchanged, kept ({folder})")
        return known["facts"]
    except DamagedFile as damage:
      log.info(f"{name}: made again, since {str(damage).partition(';')[0]}")
    with contextlib.suppress(FileNotFoundError):
      manifest.unlink()
  facts = make()
  write_sealed(manifest, {"inputs": inputs, "facts": facts}, files=outputs)
  now = recorded_files(manifest)
  if former and {n: one["sha256"] for n, one in former.items()} != {
    n: one["sha256"] for n, one in now.items()
  }:
    log.info(f"warning: {name}: what was made again is not byte for byte what was there before")
  return facts


def is_made(folder: pathlib.Path, *, inputs: str, outputs: tuple[str, ...]) -> bool:
  """Whether `stage` would keep what is there. Args: as in `stage`."""
  manifest = folder / MANIFEST
  if not manifest.exists():
    return False
  with contextlib.suppress(DamagedFile):
    if read_sealed(manifest)["inputs"] == inputs:
      require_intact(manifest, *outputs)
      return True
  return False


def facts_of_stage(folder: pathlib.Path, *outputs: str) -> dict[str, Any]:
  """What the manifest of a stage says, its outputs checked.

  Args: outputs: those that will be read; none for all.
  Returns: `inputs` and `facts`.
  Raises: InputError where the stage is missing; DamagedFile where a file is not what was written.
  """
  content = read_sealed(folder / MANIFEST)
  require_intact(folder / MANIFEST, *outputs)
  return content


def require_same_origin(workdir: pathlib.Path, name: str, inputs: str) -> None:
  """Ties checkpoints to what they were trained on, before any of it is made again.

  Args:
    workdir: the run folder. Its `checkpoints.json` records the hash by name until something is
      trained, and is compared from then on.
    name: of the data that was trained on, for the user.
    inputs: its hash.
  Raises:
    InputError: there are checkpoints, and they were trained on something else.
    DamagedFile: the record is damaged.
  """
  path, trained = workdir / "checkpoints.json", has_checkpoints(workdir)
  known: dict[str, Any] = {}
  if path.exists():
    with contextlib.nullcontext() if trained else contextlib.suppress(DamagedFile):
      known = read_sealed(
        path,
        remedy="it says what the checkpoints were trained on; if nothing of it has changed, delete "
        "this file and run again",
      )
  if not trained:
    write_sealed(path, {**known, name: inputs})
  elif known.get(name, inputs) != inputs:
    raise InputError(
      f"{workdir}: its checkpoints were trained with other {name} than asked for now; use another "
      "`workdir`, or delete its checkpoints folder to train anew"
    )
