"""The small files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError


def read_json(path: Path) -> Any:
  """The file's content. Raises: InputError where it is missing or not JSON."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise InputError(f"{path}: not found") from None
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: not readable as JSON: {error}") from None
