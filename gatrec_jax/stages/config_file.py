"""config.json of a run folder: every setting, and what a reader needs to repeat the run."""

from __future__ import annotations

import pathlib

from gatrec_jax import runs
from gatrec_jax.config.overrides import from_json, to_json
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError

FORMAT = 2
"""Raised when run folders change so that those made before can no longer be read."""


def write_config(workdir: pathlib.Path, config: Config) -> None:
  """Writes config.json."""
  tree = {"format": FORMAT, "config": to_json(config), "environment": runs.environment()}
  runs.write_json(workdir / "config.json", tree)


def read_config(workdir: pathlib.Path) -> Config:
  """The settings that a run folder was made with.

  Raises: InputError where there are none, or where an earlier version made the folder.
  """
  path = workdir / "config.json"
  tree = runs.read_json(path)
  if not isinstance(tree, dict):
    raise InputError(f"{path}: damaged (not a JSON object); train again")
  require_format(workdir, tree.get("format", 1))
  return from_json(tree.get("config"))


def require_format(workdir: pathlib.Path, found: int) -> None:
  """Raises InputError where a folder has another format than this version reads."""
  if found != FORMAT:
    raise InputError(
      f"was made by another version of gatrec_jax (format {found}, this version reads {FORMAT}); "
      "use another `workdir`, or delete this one",
      field="workdir",
      value=workdir,
    )
