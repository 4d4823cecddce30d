"""Finds model folders: a path, the hub's cache, an installed package, or a download."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.gguf import gguf_parts
from gatrec_jax.lm.folders.weights import inside, weight_files
from gatrec_jax.runs.log import CONSOLE, SILENT, Log
from gatrec_jax.runs.paths import user_path

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Files to download: all that a model needs here; never pickles or code.
FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")
PROBE_SECONDS = 5.0
MOST_JSON_BYTES = 64 << 20  # of a config or an index of shards
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclasses.dataclass(frozen=True)
class ModelFolder:
  """A model's folder or GGUF file: its path, display name, and how it was found."""

  folder: Path
  name: str
  where: str


class HubError(InputError):
  """The model is not on this machine and could not be downloaded; `reason` says why."""

  def __init__(self, message: str, reason: str, *, field: str, value: str) -> None:
    super().__init__(message, field=field, value=value)
    self.reason = reason


def resolve_folder(
  spec: str,
  *,
  field: str,
  package: Callable[[], ModelFolder | None] | None = None,
  example: str = MINILM,
  log: Log = CONSOLE,
) -> ModelFolder:
  """Finds a model folder: a path, then the hub's cache, then `package`, then a download.

  Args:
    spec: a folder's path or a hub id.
    field: name of the argument, for messages.
    package: returns the model folder of an installed package, or None.
    example: a hub id, for messages.
    log: SILENT hides the progress bars of a download.
  Raises: HubError if the model is not on this machine and cannot be downloaded; InputError for a
    bad path.
  """
  path = user_path(spec)
  if spec.strip() and path.is_dir():
    if not any((path / name).is_file() for name in ("config.json", "modules.json")):
      raise InputError(
        "the folder has no config.json; it is not a model folder", field=field, value=spec
      )
    return ModelFolder(path, path.resolve().name, f"folder {path}")
  if path.is_file() or not HUB_ID.fullmatch(spec):
    raise InputError(f"neither a folder nor a hub id like {example}", field=field, value=spec)
  cached = _cached(spec)
  if cached is not None:
    return ModelFolder(cached, spec, f"hub cache {cached}")
  packaged = package() if package is not None else None
  return packaged or _downloaded(spec, field, log)


def content_hash(folder: Path) -> str:
  """sha256 of the names and contents of all files that determine what a model computes.

  Args: folder: of an encoder or a decoder, or a GGUF file.
  """
  if folder.is_file():
    return hashlib.sha256("\n".join(map(file_sha256, gguf_parts(folder))).encode()).hexdigest()
  modules = []
  if (folder / "modules.json").is_file():
    modules = [path for _, path in module_folders(folder)]
  transformer = modules[0] if modules else folder
  files = {folder / "modules.json", folder / "config_sentence_transformers.json"}
  files |= {transformer / "sentence_bert_config.json", *weight_files(transformer)}
  tokenizer = transformer / "tokenizer.json"
  files |= {tokenizer} if tokenizer.is_file() else set(transformer.glob("*.txt"))
  for module in {transformer, *modules}:
    files |= {module / "config.json", module / "model.safetensors"}
  digest = hashlib.sha256()
  # Sorted by path within the folder, so that a copy elsewhere has the same hash.
  for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
    if path.is_file():
      digest.update(f"{name}\0{file_sha256(path)}\n".encode())
  return digest.hexdigest()


def module_folders(folder: Path) -> list[tuple[str, Path]]:
  """The kind and the folder of each module that a sentence-transformers folder lists.

  Raises: InputError: modules.json is no such list, or a module lies outside the folder.
  """
  path = folder / "modules.json"
  entries = read_json(path)
  if not isinstance(entries, list) or not all(
    isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("type", "path"))
    for entry in entries
  ):
    raise InputError(f"{path}: not a list of modules with type and path")
  return [
    (entry["type"].rsplit(".", 1)[-1], inside(folder, entry["path"], path)) for entry in entries
  ]


def hub_problem(endpoint: str, *, seconds: float) -> str | None:
  """Returns why the hub cannot be reached, or None if it answers; takes at most `seconds`.

  Runs in a separate thread because name resolution has no timeout.
  """
  problem = [f"{endpoint} did not answer within {seconds:g} s"]

  def probe() -> None:
    try:
      request = urllib.request.Request(endpoint, method="HEAD")
      with urllib.request.urlopen(request, timeout=seconds):
        problem[0] = ""
    except urllib.error.HTTPError:
      problem[0] = ""  # It answered; the download will show whether it has the model.
    except (OSError, ValueError) as error:
      problem[0] = f"{endpoint} cannot be reached ({getattr(error, 'reason', error)})"

  thread = threading.Thread(target=probe, daemon=True)
  thread.start()
  thread.join(seconds)
  return problem[0] or None


def _cached(model_id: str) -> Path | None:
  """Returns the model's folder in the hub's cache if it has config and weights, else None."""
  from huggingface_hub import snapshot_download

  try:
    folder = Path(snapshot_download(model_id, local_files_only=True))
  except (OSError, ValueError):
    return None
  return folder if _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
  try:
    modules = module_folders(folder) if (folder / "modules.json").is_file() else []
    transformer = modules[0][1] if modules else folder
    return bool(weight_files(transformer)) and (transformer / "config.json").is_file()
  except InputError:
    return False


def _downloaded(model_id: str, field: str, log: Log) -> ModelFolder:
  import huggingface_hub
  from huggingface_hub import constants

  if constants.HF_HUB_OFFLINE:
    problem = "HF_HUB_OFFLINE is set"
  else:
    problem = hub_problem(constants.ENDPOINT, seconds=PROBE_SECONDS)
  if problem is None:
    try:
      with _download_bars(shown=log is not SILENT):
        folder = Path(huggingface_hub.snapshot_download(model_id, allow_patterns=list(FILES)))
      return ModelFolder(folder, model_id, f"downloaded from {constants.ENDPOINT} to {folder}")
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
      problem = f"the download failed: {str(error).strip().splitlines()[0]}"
  raise HubError(
    f"no such folder, not in the hub's cache, and {problem}; give the path of "
    "a folder with config.json, model.safetensors and tokenizer.json",
    problem,
    field=field,
    value=model_id,
  )


@contextlib.contextmanager
def _download_bars(*, shown: bool) -> Iterator[None]:
  """Whether huggingface_hub draws progress bars within the block."""
  from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
  )

  if shown or are_progress_bars_disabled():
    yield
    return
  disable_progress_bars()
  try:
    yield
  finally:
    enable_progress_bars()


def file_sha256(path: Path) -> str:
  """A file's sha256. Raises: InputError if it cannot be read."""
  try:
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> Any:
  """Parses a JSON file. Raises: InputError if it is missing, huge or not JSON."""
  try:
    if (size := path.stat().st_size) > MOST_JSON_BYTES:
      raise InputError(f"{path}: has {size >> 20} MiB; at most {MOST_JSON_BYTES >> 20} are read")
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise InputError(f"{path}: not found") from None
  except RecursionError:
    raise InputError(f"{path}: not readable as JSON: nests too deeply") from None
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: not readable as JSON: {error}") from None
