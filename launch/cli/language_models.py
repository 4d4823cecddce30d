"""From flags to the language models that re-rank and that write reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatrec_jax.runs.log import CONSOLE
from launch.cli import flags as common

if TYPE_CHECKING:
  from gatrec_jax.explain.authors import Author
  from gatrec_jax.lm.decoder.model import Lora
  from gatrec_jax.lm.folders.load import LanguageModel
  from gatrec_jax.rerank.sources import Source

FLAGS = ("llm", "lora", "dtype", "quantize", "attention", "mesh")


def open_model(source: Source) -> tuple[LanguageModel, Lora | None, str]:
  """The decoder of --llm, the adapter of --lora, and a hash of both. Raises InputError."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.folders.source import content_hash
  from gatrec_jax.rerank.learning.builtin import NAME, open_builtin

  flags = {name: common.FLAGS[name].value for name in FLAGS}
  if flags["llm"] == "none":
    raise InputError("--llm=none: nothing to ask; name builtin, a model folder or a hub id")
  lora, adapter = None, []
  if flags["llm"] == NAME:
    _refuse_adapter()
    model = open_builtin(
      source.config,
      source.workdir,
      source.prepared,
      user_profiles=source.user_profiles,
      item_profiles=source.item_profiles,
      log=CONSOLE,
    )
  else:
    model, lora, adapter = _open_folder()
  if model.tokenizer is None:
    raise InputError(f"--llm={flags['llm']}: has no tokenizer.json, which prompts need")
  origin = runs.digest(content_hash(model.folder), adapter, flags["dtype"], flags["quantize"])
  return model, lora, origin


def open_author() -> Author:
  """Who writes reasons: templates for --llm=none, else a decoder. Raises InputError."""
  from gatrec_jax.explain.authors import LanguageModelAuthor, TemplateAuthor
  from gatrec_jax.explain.builtin_author import NAME, open_builtin_author

  name = common.FLAGS["llm"].value
  if name in ("none", NAME):
    _refuse_adapter()
  if name == "none":
    return TemplateAuthor()
  if name == NAME:
    return LanguageModelAuthor(open_builtin_author(log=CONSOLE), instructed=False)
  model, lora, _ = _open_folder()
  return LanguageModelAuthor(model, lora=lora)


def _refuse_adapter() -> None:
  from gatrec_jax.errors import InputError

  name = common.FLAGS["llm"].value
  if common.FLAGS["lora"].value:
    raise InputError(f"--lora: goes with a model folder, not with --llm={name}")


def _open_folder() -> tuple[LanguageModel, Lora | None, list[str]]:
  """The decoder of --llm, the adapter of --lora, and hashes of the adapter's files."""
  from pathlib import Path

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.finetune.lora import ADAPTER_FILES, load_lora
  from gatrec_jax.lm.folders.load import open_decoder

  flags = {name: common.FLAGS[name].value for name in FLAGS}
  model = open_decoder(
    flags["llm"],
    dtype=flags["dtype"],
    quantize=flags["quantize"],
    attention=flags["attention"],
    mesh=flags["mesh"],
  )
  if not flags["lora"]:
    return model, None, []
  if not (Path(flags["lora"]) / ADAPTER_FILES[0]).is_file():
    raise InputError(
      f"--lora={flags['lora']}: holds no {ADAPTER_FILES[0]}; name the folder that "
      "launch.finetune wrote"
    )
  hashes = [runs.file_digest(Path(flags["lora"]) / name) for name in ADAPTER_FILES]
  return model, load_lora(flags["lora"], model.config), hashes
