"""What the programs share: flags, the configuration they describe, and running `main`."""

from launch.cli.config_flags import (
  config_from_flags,
  data_label,
  given_fields,
  require_agreement,
  workdir_from_flags,
)
from launch.cli.entry import run
from launch.cli.flags import (
  COMPARING,
  DATA,
  EVALUATE,
  FLAGS,
  LANGUAGE_MODEL,
  RUN,
  TABLE,
  TEXT,
  define,
  flag_values,
  path_flag,
  require_at_least,
  require_one_of,
  require_writable,
  whole_numbers,
)
from launch.cli.output import say, say_text

__all__ = [
  "COMPARING",
  "DATA",
  "EVALUATE",
  "FLAGS",
  "LANGUAGE_MODEL",
  "RUN",
  "TABLE",
  "TEXT",
  "config_from_flags",
  "data_label",
  "define",
  "flag_values",
  "given_fields",
  "path_flag",
  "require_agreement",
  "require_at_least",
  "require_one_of",
  "require_writable",
  "run",
  "say",
  "say_text",
  "whole_numbers",
  "workdir_from_flags",
]
