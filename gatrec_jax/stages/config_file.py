"""config.json of a run folder: every setting, and what a reader needs to repeat the run."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

from gatrec_jax import runs
from gatrec_jax.config.overrides import from_json, to_json
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import DamagedFile, InputError

FORMAT = 3
"""Raised when run folders change so that those made before can no longer be read."""

_REMEDY = "delete it, and run the launch.train command that made this run again, which writes it"


def write_config(workdir: pathlib.Path, config: Config) -> None:
  """Writes config.json."""
  tree = {"format": FORMAT, "config": to_json(config), "environment": runs.environment()}
  runs.write_sealed(workdir / "config.json", tree)


def read_config(workdir: pathlib.Path) -> Config:
  """The settings that a run folder was made with.

  Raises: InputError where there are none, or where an earlier version made the folder;
    DamagedFile where they are not those that were written.
  """
  return from_json(read_format(workdir, "config.json", remedy=_REMEDY).get("config"))


def read_format(workdir: pathlib.Path, name: str, *, remedy: str) -> dict[str, Any]:
  """Reads a sealed JSON file of a run folder that says the folder's format.

  Args: remedy: what to do about damage, for the user.
  Raises: InputError where it is missing or says another format; DamagedFile.
  """
  content: Any = None
  with contextlib.suppress(DamagedFile):
    content = runs.read_json(workdir / name)
  # Earlier formats had no hashes.
  is_earlier = isinstance(content, dict) and "digest" not in content
  if not is_earlier or content.get("format", 1) == FORMAT:
    content = runs.read_sealed(workdir / name, remedy=remedy)
  if (found := content.get("format", 1)) != FORMAT:
    raise InputError(
      f"was made by another version of gatrec_jax (format {found}, this version reads {FORMAT}); "
      "use another `workdir`, or delete this one",
      field="workdir",
      value=workdir,
    )
  return content
