"""Defining a program's flags and reading their values."""

from __future__ import annotations

import os
import pathlib
import sys

try:
  from absl import flags
except ModuleNotFoundError:
  sys.exit(
    "error: the packages are not installed in this Python; run bash launch/quickstart.sh once, "
    "then source .venv/bin/activate"
  )

from launch.cli import flag_table

FLAGS = flags.FLAGS
TABLE = {flag.name: flag for topic in flag_table.TOPICS.values() for flag in topic}

# Groups of flags that several programs define.
DATA = tuple(flag.name for flag in (*flag_table.DATA, *flag_table.SPLIT))
TEXT = tuple(flag.name for flag in flag_table.TEXT)
RUN = ("preset", "model", "set", "seed", "workdir", "verify")
EVALUATE = ("protocol", "ks", "bootstrap", "evaluate_memory_mb")
COMPARING = (
  *(name for name in DATA if name != "fold"),
  *TEXT,
  *EVALUATE,
  *("folds", "split_seeds", "seeds", "refit", "metrics", "below"),
  *("workdir", "json_out", "markdown"),
)
"""What programs that train models alike and compare them have in common."""
LANGUAGE_MODEL = ("llm", "lora", "dtype", "quantize", "attention", "mesh")


def define(*names: str, **defaults: str) -> None:
  """Defines flags of the table for this program. Args: defaults: those that differ here."""
  for name in names:
    flag = TABLE[name]
    getattr(flags, f"DEFINE_{flag.kind}")(name, defaults.get(name, flag.default), flag.help)


def defined() -> list[str]:
  """The names of this program's flags, in the order of the table (absl's own are left out)."""
  return [name for name in TABLE if name in FLAGS]


def flag_values() -> dict[str, object]:
  """The values of this program's flags by name."""
  return {name: FLAGS[name].value for name in defined()}


def whole_numbers(name: str) -> list[int]:
  """The distinct whole numbers of a list flag. Raises InputError for anything else."""
  from gatrec_jax.errors import InputError

  texts = FLAGS[name].value
  try:
    numbers = [int(text) for text in texts]
  except ValueError:
    numbers = []
  if len(set(numbers)) < len(texts):
    raise InputError(
      "must be distinct whole numbers, such as 0,1,2", field=name, value=_joined(texts)
    )
  return numbers


def require_one_of(name: str, choices: tuple[str, ...] | list[str]) -> None:
  """Raises InputError if a flag, or an entry of a list flag, is not among `choices`."""
  from gatrec_jax.errors import InputError

  values = FLAGS[name].value
  for value in values if isinstance(values, list) else [values]:
    if value not in choices:
      raise InputError(f"must be one of {', '.join(choices)}", field=name, value=value)


def require_at_least(name: str, least: int) -> None:
  """Raises InputError if a numeric flag is below `least`."""
  from gatrec_jax.errors import InputError

  if FLAGS[name].value < least:
    raise InputError(f"must be at least {least}", field=name, value=FLAGS[name].value)


def path_flag(name: str) -> pathlib.Path:
  """The path that a flag names, with `~` expanded."""
  from gatrec_jax.runs.paths import user_path

  return user_path(FLAGS[name].value)


def require_writable(name: str) -> None:
  """Raises InputError if the file that a flag names cannot be written; call it before the work."""
  from gatrec_jax.errors import InputError

  value = FLAGS[name].value
  if not value:
    return
  path = path_flag(name)
  if path.is_dir():
    raise InputError("is a folder; name a file", field=name, value=value)
  folder = path.absolute().parent
  if not folder.is_dir() or not os.access(folder, os.W_OK):
    raise InputError("its folder does not exist or is not writable", field=name, value=value)


def _joined(values: list[str]) -> str:
  return ",".join(values)
