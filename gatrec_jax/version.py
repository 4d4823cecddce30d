"""The version of the installed package."""

from __future__ import annotations

import importlib.metadata

try:
  VERSION = importlib.metadata.version("gatrec_jax")
except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
  VERSION = "0+unknown"
