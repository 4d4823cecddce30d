"""Teaches a language model to re-rank a run's candidates:

  python -m launch.finetune --workdir=RUN --llm=FOLDER --tune=epochs=2 --tune=lora_rank=8
  python -m launch.rerank   --workdir=RUN --llm=FOLDER --lora=RUN/finetuned/NAME-label/adapter
  python -m launch.finetune --workdir=RUN --llm=builtin      (what launch.rerank does on first use)

It learns from out-of-fold candidates within the training ratings: a GAT is trained without each
part of them, and its candidates are shuffled anew in every epoch, the part's positives being the
truth. Validation ratings stay unseen, so that launch.rerank can learn on them what the result is
worth. A run that was stopped goes on when it is started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common

if TYPE_CHECKING:
  from pathlib import Path

  from gatrec_jax.lm.finetune.run import Finetuned
  from gatrec_jax.lm.finetune.step import FinetuneConfig
  from gatrec_jax.lm.folders.load import LanguageModel

common.define(
  "preset",
  "set",
  "seed",
  "workdir",
  "dataset",
  "fold",
  "llm",
  "dtype",
  "quantize",
  "attention",
  "mesh",
  "strategy",
  "top_candidates",
  "history",
  "out_of_fold",
  "tune",
  "json_out",
)


def main() -> None:
  """Flags -> lists -> a model that re-ranks."""
  import pathlib
  import re

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.finetune.step import FinetuneConfig
  from gatrec_jax.lm.folders.open import open_decoder
  from gatrec_jax.rerank.learning.builtin import NAME, open_builtin
  from gatrec_jax.rerank.learning.examples import TASKS, ExampleSettings
  from gatrec_jax.rerank.learning.finetune import learn_to_rerank
  from gatrec_jax.rerank.learning.out_of_fold import out_of_fold_lists
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.runs.log import CONSOLE

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  common.require_writable("json_out")
  tasks = flags["strategy"]
  if unknown := [task for task in tasks if task not in TASKS]:
    raise InputError(f"--strategy={unknown[0]}: can be taught are {', '.join(TASKS)}")
  tuning = _tuning(flags["tune"], FinetuneConfig())
  settings = ExampleSettings(
    top=flags["top_candidates"],
    liked=flags["history"],
    disliked=flags["history"] // 3,
    shares=dict.fromkeys(tasks, 1.0),
    seed=tuning.seed,
  )
  workdir = common.workdir_from_flags(common.config_from_flags())
  source = open_source(workdir, top=settings.top, log=CONSOLE)
  common.require_agreement(source.config)
  if flags["llm"] == NAME:
    if flags["tune"]:
      raise InputError("--tune: the builtin model has a recipe of its own; leave it out")
    open_builtin(
      source.config,
      source.workdir,
      source.prepared,
      user_profiles=source.user_profiles,
      item_profiles=source.item_profiles,
      log=CONSOLE,
    )
    print(f"python -m launch.rerank --workdir={source.workdir}")
    return
  model = open_decoder(
    flags["llm"],
    dtype=flags["dtype"],
    quantize=flags["quantize"],
    attention=flags["attention"],
    mesh=flags["mesh"],
  )
  name = re.sub(r"[^A-Za-z0-9.]+", "-", model.name.split("/")[-1]).strip("-").lower()
  folder = source.workdir / "finetuned" / f"{name}-{'-'.join(tasks)}"
  folder.mkdir(parents=True, exist_ok=True)
  with runs.locked(source.workdir):
    lists = out_of_fold_lists(
      source.config,
      source.workdir,
      source.prepared,
      folds=flags["out_of_fold"],
      length=50,
      log=CONSOLE,
    )
    with runs.signals("finetune: stopping after this step", log=CONSOLE) as received:
      tuned = learn_to_rerank(
        model,
        lists,
        source.prepared,
        settings=settings,
        tuning=tuning,
        workdir=folder,
        stop=lambda: received[0] if received else 0,
        log=CONSOLE,
      )
  written = _write(tuned, model, folder)
  for entry in tuned.history:
    print("  ".join(f"{name} {value:.4g}" for name, value in entry.items()))
  print(f"best step {tuned.best_step}; written to {written}; re-rank with")
  given = f"--llm={flags['llm']} --lora={written}" if tuned.lora else f"--llm={written}"
  print(f"python -m launch.rerank --workdir={source.workdir} {given} --strategy={tasks[0]}")
  if flags["json_out"]:
    runs.write_json(
      pathlib.Path(flags["json_out"]),
      {"history": tuned.history, "best_step": tuned.best_step, "folder": str(written)},
    )


def _tuning(texts: list[str], base: FinetuneConfig) -> FinetuneConfig:
  """The settings of fine-tuning. Raises InputError for unknown fields and unreadable values."""
  import dataclasses

  from gatrec_jax.config.overrides import parse_assignments
  from gatrec_jax.errors import InputError

  known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
  values = {}
  for name, text in parse_assignments(texts, flag="--tune").items():
    if name not in known:
      raise InputError(f"--tune={name}={text}: no such field; there are {', '.join(known)}")
    kind = type(known[name])
    try:
      if kind is bool:
        values[name] = {"true": True, "false": False}[text.lower()]
      else:
        values[name] = tuple(text.split(",")) if kind is tuple else kind(text)
    except (ValueError, KeyError):
      raise InputError(f"--tune={name}={text}: must be {kind.__name__}") from None
  return dataclasses.replace(base, **values)


def _write(tuned: Finetuned, model: LanguageModel, folder: Path) -> Path:
  from gatrec_jax.lm.finetune.lora import save_lora
  from gatrec_jax.lm.folders.export import export_folder

  if tuned.lora is None:
    return export_folder(tuned.model, folder / "model")
  save_lora(tuned.lora, model.config, folder / "adapter", base=str(model.folder))
  return folder / "adapter"


if __name__ == "__main__":
  common.run(main, __doc__)
