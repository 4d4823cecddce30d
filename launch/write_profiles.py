"""Writes profiles of items and users with a local language model.

  python -m launch.write_profiles --llm=FOLDER --dataset=ml-100k --fold=u1 --workdir=runs/u1
  python -m launch.write_profiles --llm=FOLDER --write=users --profile_form=summary
  python -m launch.write_profiles --llm=smollm2 --write=items --limit=200 --audit=200
  python -m launch.train --dataset=ml-100k --fold=u1 --workdir=runs/u1-gat \\
      --item_profiles=runs/u1/written/items.jsonl --user_profiles=runs/u1/written/users.jsonl

Items are described from their title, genres and text: the model chooses tags, moods and dislikes,
and writes a sentence in words of the metadata. Users are described in batches of five, from the
profiles of the items that they most recently liked and disliked in training. Results are
WORKDIR/written/items.jsonl and users.jsonl, one profile per line, and manifest.json. If a run is
stopped or killed, the same command continues it. launch.train accepts the profiles with the same
--preset and data flags, and refuses them with others, because they would leak test ratings.
--audit measures the written profiles of items beside built ones, and beside --item_profiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import (
  DATA,
  FLAGS,
  LANGUAGE_MODEL,
  RUN,
  config_from_flags,
  data_label,
  define,
  path_flag,
  require_at_least,
  require_one_of,
  run,
  workdir_from_flags,
)

if TYPE_CHECKING:
  import pathlib

  from gatrec_jax.config.schema import Config
  from gatrec_jax.profiles.writer.local_author import LocalAuthor

define(
  *DATA,
  "item_profiles",
  "encoder",
  *RUN,
  *LANGUAGE_MODEL,
  "batch_size",
  "write",
  "profile_form",
  "items",
  "limit",
  "audit",
)


def main() -> None:
  """Flags -> config and model -> files."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.profiles.writer.answers import FORMS
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.stages.written_profiles import KINDS, Request, write_profiles

  _require_model()
  require_one_of("profile_form", tuple(FORMS))
  if FLAGS.write:
    require_one_of("write", tuple(KINDS))
  require_at_least("batch_size", 1)
  require_at_least("limit", 0)
  require_at_least("audit", 0)
  config = config_from_flags()
  request = Request(
    origin_from_flags(),
    open_author,
    kinds=FLAGS.write or (("users",) if FLAGS.item_profiles else KINDS),
    form=FLAGS.profile_form,
    batch_size=FLAGS.batch_size,
    seed=config.train.seed,
    items=FLAGS.items,
    limit=FLAGS.limit,
  )
  if FLAGS.audit and "items" not in request.kinds:
    raise InputError("measures profiles of items; add `write=items`", field="audit")
  folder = runs.open_workdir(workdir_from_flags(config))
  with runs.locked(folder):
    write_profiles(config, folder, request, log=CONSOLE)
    if FLAGS.audit:
      print_audit(config, folder)


def print_audit(config: Config, folder: pathlib.Path) -> None:
  """Measures the written profiles of items, prints the figures, and keeps them in the run."""
  from gatrec_jax.runs.log import SILENT
  from gatrec_jax.stages.data import prepare
  from gatrec_jax.stages.profile_audit import audit_profiles
  from gatrec_jax.stages.written_profiles import written_items
  from launch.cli.grid import print_grid
  from launch.cli.profile_audit import audit_table

  prepared = prepare(config.data, folder, log=SILENT)
  facts = audit_profiles(
    config,
    folder,
    prepared,
    written_items(folder, prepared),
    count=FLAGS.audit,
    seed=config.train.seed,
  )
  print_grid(audit_table(facts, title=data_label(config)))


def origin_from_flags() -> dict[str, str]:
  """What the manifest says about the model: its name, its hash, how it is run."""
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.lm.folders.decoder_source import resolve_decoder
  from gatrec_jax.stages.written_profiles import folder_hash

  found = resolve_decoder(FLAGS.llm)
  origin = {"model": found.name, "model hash": folder_hash(pathlib.Path(found.folder))}
  origin |= {name: FLAGS[name].value for name in ("dtype", "quantize", "attention", "mesh")}
  if FLAGS.lora:
    files = sorted(path_flag("lora").glob("adapter_*"))
    origin["lora hash"] = runs.digest([runs.file_digest(path) for path in files])
  return origin


def open_author() -> LocalAuthor:
  """The decoder of --llm with the adapter of --lora. Raises InputError."""
  from gatrec_jax.lm.finetune.lora import load_lora
  from gatrec_jax.lm.folders.load import open_decoder
  from gatrec_jax.profiles.writer.local_author import LocalAuthor
  from gatrec_jax.runs.log import CONSOLE

  model = open_decoder(
    FLAGS.llm,
    dtype=FLAGS.dtype,
    quantize=FLAGS.quantize,
    attention=FLAGS.attention,
    mesh=FLAGS.mesh,
  )
  CONSOLE.info(f"{model.name}: {model.config.family}, {model.parameters / 1e6:.3g} M parameters")
  lora = load_lora(FLAGS.lora, model.config) if FLAGS.lora else None
  return LocalAuthor(model, lora=lora, batch_size=FLAGS.batch_size)


def _require_model() -> None:
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.folders.decoder_source import NAMED

  wanted = f"name a decoder's folder, GGUF file or hub id, or one of {', '.join(NAMED)}"
  if FLAGS.llm in ("builtin", "none"):
    raise InputError(
      f"the built-in model re-ranks and cannot write profiles; {wanted} (without one, "
      "launch.prepare builds profiles)",
      field="llm",
      value=FLAGS.llm,
    )
  if not FLAGS.llm:
    raise InputError(wanted, field="llm")


if __name__ == "__main__":
  run(main, __doc__)
