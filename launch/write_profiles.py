"""Writes profiles of items and users with a local language model, in JAX alone.

  python -m launch.write_profiles --llm=FOLDER --dataset=ml-100k --fold=u1 --workdir=runs/u1
  python -m launch.write_profiles --llm=FOLDER --write=users --profile_form=summary --workdir=runs/demo
  python -m launch.train --dataset=ml-100k --fold=u1 --workdir=runs/u1-gat \\
      --item_profiles=runs/u1/written/items.jsonl --user_profiles=runs/u1/written/users.jsonl

Items are described from title, genres and overview; users in turns, from the profiles of the films
that they liked and disliked last in training, 5 a turn. Results: WORKDIR/written/items.jsonl and
users.jsonl, one line a profile, and manifest.json. A run that was stopped or killed goes on when
the same command is given again. Training takes the profiles with the same --preset and flags of
the data, and refuses them with others, since they would leak.
"""

from launch.cli import flags as common

common.define(
  *common.DATA,
  "item_profiles",
  *common.RUN,
  "llm",
  "lora",
  "dtype",
  "quantize",
  "attention",
  "mesh",
  "batch_size",
  "write",
  "profile_form",
)


def main() -> None:
  """Flags -> config and model -> files."""
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.finetune.lora import load_lora
  from gatrec_jax.lm.folders.load import EXAMPLE, open_decoder
  from gatrec_jax.lm.folders.source import resolve_folder
  from gatrec_jax.profiles.writer.answers import FORMS
  from gatrec_jax.profiles.writer.local_author import LocalAuthor
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.stages.written_profiles import KINDS, Request, folder_hash, write_profiles

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  llm = flags["llm"]
  if llm in ("builtin", "none"):
    raise InputError(
      f"--llm={llm}: the built-in model re-ranks and does not write profiles; name the folder of a "
      f"decoder, or a hub id such as {EXAMPLE} (without one, launch.prepare builds profiles)"
    )
  if not llm:
    raise InputError(f"--llm: name the folder of a decoder, or a hub id such as {EXAMPLE}")
  if flags["profile_form"] not in FORMS:
    raise InputError(f"--profile_form={flags['profile_form']}: not one of {', '.join(FORMS)}")
  kinds = flags["write"] or (KINDS if not flags["item_profiles"] else ("users",))
  for kind in kinds:
    if kind not in KINDS:
      raise InputError(f"--write={','.join(kinds)}: {kind!r} is not one of {', '.join(KINDS)}")
  if flags["batch_size"] < 1:
    raise InputError(f"--batch_size={flags['batch_size']}: must be at least 1")
  config = common.config_from_flags()
  found = resolve_folder(llm, flag="--llm", example=EXAMPLE)
  origin = {"model": found.name, "model hash": folder_hash(pathlib.Path(found.folder))}
  origin |= {name: flags[name] for name in ("dtype", "quantize", "attention", "mesh")}
  if flags["lora"]:
    files = sorted(pathlib.Path(flags["lora"]).expanduser().glob("adapter_*"))
    origin["lora hash"] = runs.digest([runs.file_digest(path) for path in files])

  def open_author() -> LocalAuthor:
    model = open_decoder(
      llm,
      dtype=flags["dtype"],
      quantize=flags["quantize"],
      attention=flags["attention"],
      mesh=flags["mesh"],
    )
    CONSOLE.info(f"{model.name}: {model.config.family}, {model.parameters / 1e6:.3g} M parameters")
    lora = load_lora(flags["lora"], model.config) if flags["lora"] else None
    return LocalAuthor(model, lora=lora, batch_size=flags["batch_size"])

  folder = runs.open_workdir(common.workdir_from_flags(config))
  with runs.locked(folder):
    request = Request(
      origin,
      open_author,
      kinds=kinds,
      form=flags["profile_form"],
      batch_size=flags["batch_size"],
      seed=config.train.seed,
    )
    write_profiles(config, folder, request, log=CONSOLE)


if __name__ == "__main__":
  common.run(main, __doc__)
