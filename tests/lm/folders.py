"""The committed golden folders, and copies of them that a test may damage."""

import json
import shutil
from pathlib import Path

GOLDENS = Path(__file__).parent / "goldens"


def copy_golden(name: str, target: Path) -> Path:
  """A writable copy of a golden folder under `target`."""
  folder = target / name
  shutil.copytree(GOLDENS / name, folder)
  return folder


def edit_json(path: Path, change: dict) -> None:
  """Sets top-level fields of a JSON file."""
  path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
