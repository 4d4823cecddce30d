"""From flags to the language models that re-rank and that write reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatrec_jax.runs.log import CONSOLE
from launch.cli.flags import FLAGS, path_flag

if TYPE_CHECKING:
  from gatrec_jax.explain.authors import Author
  from gatrec_jax.lm.decoder.model import Lora
  from gatrec_jax.lm.folders.load import LanguageModel
  from gatrec_jax.rerank.sources import Source


def open_model(source: Source) -> tuple[LanguageModel, Lora | None, str]:
  """The decoder of --llm, the adapter of --lora, and a hash of both. Raises InputError."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.learning.builtin import NAME, open_builtin

  if FLAGS.llm == "none":
    raise InputError(
      "re-ranking needs a model; name builtin, a model folder or a hub id",
      field="llm",
      value=FLAGS.llm,
    )
  lora, adapter = None, []
  if FLAGS.llm == NAME:
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
    raise InputError(
      "prompts need a tokenizer.json, which it does not have", field="llm", value=FLAGS.llm
    )
  return model, lora, _hash_of(model, adapter)


def history_lines(liked: int | None = None) -> dict[str, int]:
  """The most liked and disliked titles in a prompt: as given, or what suits --llm.

  Args: liked: --history. Raises: InputError for a number below 0.
  """
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.learning.builtin import NAME
  from gatrec_jax.rerank.prompting.contexts import LIKED, SHORT

  most = liked if liked is not None else LIKED if FLAGS.llm == NAME else SHORT
  if most < 0:
    raise InputError("must be at least 0", field="history", value=most)
  return {"liked": most, "disliked": most // 3}


def open_author() -> Author:
  """The author of reasons: templates for --llm=none, otherwise a decoder. Raises InputError."""
  from gatrec_jax.explain.authors import TemplateAuthor
  from gatrec_jax.explain.builtin_author import NAME, open_builtin_author
  from gatrec_jax.explain.language_model_author import LanguageModelAuthor

  if FLAGS.llm in ("none", NAME):
    _refuse_adapter()
  if FLAGS.llm == "none":
    return TemplateAuthor()
  if FLAGS.llm == NAME:
    builtin = open_builtin_author(log=CONSOLE)
    return LanguageModelAuthor(builtin, model_hash=_hash_of(builtin, []), instructed=False)
  model, lora, adapter = _open_folder()
  return LanguageModelAuthor(model, lora=lora, model_hash=_hash_of(model, adapter))


def _hash_of(model: LanguageModel, adapter: list[str]) -> str:
  """A hash of a decoder, its adapter and its arithmetic."""
  from gatrec_jax import runs
  from gatrec_jax.lm.folders.source import content_hash

  return runs.digest(content_hash(model.folder), adapter, FLAGS.dtype, FLAGS.quantize)


def _refuse_adapter() -> None:
  from gatrec_jax.errors import InputError

  if FLAGS.lora:
    raise InputError(f"needs a model folder, not `llm={FLAGS.llm}`", field="lora")


def _open_folder() -> tuple[LanguageModel, Lora | None, list[str]]:
  """The decoder of --llm, the adapter of --lora, and hashes of the adapter's files."""

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.finetune.lora import ADAPTER_FILES, load_lora
  from gatrec_jax.lm.folders.load import open_decoder

  model = open_decoder(
    FLAGS.llm,
    dtype=FLAGS.dtype,
    quantize=FLAGS.quantize,
    attention=FLAGS.attention,
    mesh=FLAGS.mesh,
  )
  if not FLAGS.lora:
    return model, None, []
  if not (path_flag("lora") / ADAPTER_FILES[0]).is_file():
    raise InputError(
      f"has no {ADAPTER_FILES[0]}; name the folder that launch.finetune wrote",
      field="lora",
      value=FLAGS.lora,
    )
  hashes = [runs.file_digest(path_flag("lora") / name) for name in ADAPTER_FILES]
  return model, load_lora(FLAGS.lora, model.config), hashes
