"""Fine-tunes a language model to re-rank a run's candidates.

  python -m launch.finetune --workdir=RUN --llm=smollm2 --strategy=title
  python -m launch.rerank   --workdir=RUN --llm=smollm2 --strategy=title \\
    --lora=RUN/finetuned/NAME-title/adapter
  python -m launch.finetune --workdir=RUN --llm=FOLDER --tune=epochs=2 --tune=lora_rank=8
  python -m launch.finetune --workdir=RUN --llm=builtin     (launch.rerank does this on first use)

With --strategy=title the model learns to predict each line of users' histories. For the other
strategies it learns from out-of-fold candidates within the training ratings: for each fold a GAT is
trained without it, its candidates are shuffled in every epoch, and the fold's positives are the
targets. Validation ratings are not used, so launch.rerank can fit the model's weight on them. The
number of steps follows from --minutes and the measured time of a step, unless --tune says steps or
epochs. If a run is stopped, the same command continues it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from launch.cli import (
  FLAGS,
  config_from_flags,
  define,
  path_flag,
  require_agreement,
  require_one_of,
  require_writable,
  run,
  say,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from pathlib import Path

  from gatrec_jax.lm.finetune.run import Finetuned
  from gatrec_jax.lm.finetune.step import FinetuneConfig
  from gatrec_jax.lm.folders.load import LanguageModel
  from gatrec_jax.rerank.sources import Source

define(
  "preset",
  "set",
  "seed",
  "workdir",
  "verify",
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
  "objective",
  "out_of_fold",
  "minutes",
  "tune",
  "json_out",
)


def main() -> None:
  """Flags -> out-of-fold lists -> a model that re-ranks."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.learning.builtin import NAME, open_builtin
  from gatrec_jax.rerank.learning.examples import TASKS
  from gatrec_jax.rerank.learning.finetune import LEARNED_ALONE, OBJECTIVES, tuning_for
  from gatrec_jax.rerank.scoring_plan import require_sizes
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.runs.log import CONSOLE

  require_writable("json_out")
  require_one_of("strategy", (*TASKS, LEARNED_ALONE))
  if LEARNED_ALONE in FLAGS.strategy and len(FLAGS.strategy) > 1:
    chosen = ",".join(FLAGS.strategy)
    raise InputError(f"{LEARNED_ALONE} is learned alone", field="strategy", value=chosen)
  require_one_of("objective", tuple(OBJECTIVES))
  if LEARNED_ALONE in FLAGS.strategy and FLAGS.objective != "softmax":
    raise InputError(
      f"{LEARNED_ALONE} learns the next line, not an order",
      field="objective",
      value=FLAGS.objective,
    )
  require_sizes(users=None, minutes=FLAGS.minutes)
  tuning = _tuning(FLAGS.tune, tuning_for(FLAGS.strategy))
  source = open_source(
    workdir_from_flags(config_from_flags()), top=FLAGS.top_candidates, log=CONSOLE
  )
  require_agreement(source.config)
  if FLAGS.llm == NAME:
    if FLAGS.tune:
      raise InputError("the builtin model has its own recipe; omit this flag", field="tune")
    open_builtin(
      source.config,
      source.workdir,
      source.prepared,
      user_profiles=source.user_profiles,
      item_profiles=source.item_profiles,
      log=CONSOLE,
    )
    say(f"python -m launch.rerank --workdir={source.workdir}")
    return
  finetune(source, tuning)


def finetune(source: Source, tuning: FinetuneConfig) -> None:
  """Trains the decoder of --llm on the run's histories or lists and writes the result."""

  from gatrec_jax import runs
  from gatrec_jax.lm.folders.load import open_decoder
  from gatrec_jax.rerank.learning.examples import ExampleSettings
  from gatrec_jax.rerank.learning.finetune import LEARNED_ALONE, learn_histories, learn_to_rerank
  from gatrec_jax.rerank.learning.out_of_fold import out_of_fold_lists
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import history_lines

  model = open_decoder(
    FLAGS.llm,
    dtype=FLAGS.dtype,
    quantize=FLAGS.quantize,
    attention=FLAGS.attention,
    mesh=FLAGS.mesh,
  )
  folder = _folder_for(model, source.workdir)
  with runs.locked(source.workdir):
    if LEARNED_ALONE in FLAGS.strategy:
      learn = functools.partial(
        learn_histories, model, source.prepared, **history_lines(FLAGS.history)
      )
    else:
      settings = ExampleSettings(
        top=FLAGS.top_candidates,
        **history_lines(FLAGS.history),
        shares=dict.fromkeys(FLAGS.strategy, 1.0),
        seed=tuning.seed,
      )
      lists = out_of_fold_lists(
        source.config,
        source.workdir,
        source.prepared,
        folds=FLAGS.out_of_fold,
        length=50,
        log=CONSOLE,
      )
      learn = functools.partial(
        learn_to_rerank, model, lists, source.prepared, settings=settings, objective=FLAGS.objective
      )
    with runs.signals("finetune: stopping after this step", log=CONSOLE) as received:
      tuned = learn(
        tuning=tuning,
        workdir=folder,
        minutes=None if _says_steps(FLAGS.tune) else FLAGS.minutes,
        stop=lambda: received[0] if received else 0,
        log=CONSOLE,
      )
  written = _write(tuned, model, folder)
  for entry in tuned.history:
    say("  ".join(f"{name} {value:.4g}" for name, value in entry.items()))
  say(f"best step {tuned.best_step}; written to {written}; to re-rank with it:")
  given = f"--llm={FLAGS.llm} --lora={written}" if tuned.lora else f"--llm={written}"
  say(f"python -m launch.rerank --workdir={source.workdir} {given} --strategy={FLAGS.strategy[0]}")
  if FLAGS.json_out:
    runs.write_json(
      path_flag("json_out"),
      {"history": tuned.history, "best_step": tuned.best_step, "folder": str(written)},
    )


def _folder_for(model: LanguageModel, workdir: Path) -> Path:
  """WORKDIR/finetuned/<model>-<strategies>, and the objective unless it is the default."""
  import re

  name = re.sub(r"[^A-Za-z0-9.]+", "-", model.name.split("/")[-1]).strip("-").lower()
  parts = [name, *FLAGS.strategy, *([FLAGS.objective] if FLAGS.objective != "softmax" else [])]
  folder = workdir / "finetuned" / "-".join(parts)
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _says_steps(texts: list[str]) -> bool:
  """Whether the settings of fine-tuning say how long it is."""
  return any(text.partition("=")[0].strip() in ("steps", "epochs") for text in texts)


def _tuning(texts: list[str], base: FinetuneConfig) -> FinetuneConfig:
  """The settings of fine-tuning. Raises InputError for unknown fields and unreadable values."""
  import dataclasses

  from gatrec_jax.config.overrides import parse_assignments
  from gatrec_jax.errors import InputError

  known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
  values = {}
  for name, text in parse_assignments(texts, field="tune").items():
    if name not in known:
      raise InputError(
        f"no such field; the fields are {', '.join(known)}", field="tune", value=f"{name}={text}"
      )
    kind = type(known[name])
    try:
      if kind is bool:
        values[name] = {"true": True, "false": False}[text.lower()]
      else:
        values[name] = tuple(text.split(",")) if kind is tuple else kind(text)
    except (ValueError, KeyError):
      raise InputError(f"must be {kind.__name__}", field="tune", value=f"{name}={text}") from None
  return dataclasses.replace(base, **values)


def _write(tuned: Finetuned, model: LanguageModel, folder: Path) -> Path:
  """Writes the adapter, or the whole model if no adapter was trained. Returns: its folder."""
  from gatrec_jax.lm.finetune.lora import save_lora
  from gatrec_jax.lm.folders.export import export_folder

  if tuned.lora is None:
    return export_folder(tuned.model, folder / "model")
  save_lora(tuned.lora, model.config, folder / "adapter", base=str(model.folder))
  return folder / "adapter"


if __name__ == "__main__":
  run(main, __doc__)
