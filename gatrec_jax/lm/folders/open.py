"""From what a user names to a loaded model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.lm.folders.source import resolve_folder
from gatrec_jax.sharding.mesh import parse_mesh

EXAMPLE = "Qwen/Qwen3-0.6B"


def open_decoder(
  spec: str | None,
  *,
  dtype: str = "float32",
  quantize: str = "none",
  attention: str = "auto",
  mesh: str = "1x1",
) -> LanguageModel:
  """The decoder that `--llm` names: a folder, or a hub id in the cache or for download.

  Args: spec: what was named. mesh: devices as "data x model". The rest as in `load_decoder`.
  Raises: InputError that says what would have served.
  """
  if not spec:
    raise InputError("name a model folder, or a hub id such as " + EXAMPLE, field="llm")
  found = resolve_folder(spec, field="llm", example=EXAMPLE)
  model = load_decoder(
    found.folder, dtype=dtype, quantize=quantize, attention=attention, mesh=parse_mesh(mesh)
  )
  return dataclasses.replace(model, name=found.name, folder=Path(found.folder))
