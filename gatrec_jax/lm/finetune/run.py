"""Fine-tunes decoders (low-rank adapters or all weights) on completions or choices of labels."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.lm.decoder.model import Lora, compute_dtype
from gatrec_jax.lm.finetune.examples import CompletionExample, LabelExample
from gatrec_jax.lm.finetune.lora import count_params, merge_lora
from gatrec_jax.lm.finetune.objectives import Objective, label_cross_entropy, next_token
from gatrec_jax.lm.finetune.packing import TokenRows, label_rows, one_per_row, pack
from gatrec_jax.lm.finetune.step import (
  FinetuneConfig,
  FinetuneState,
  Rows,
  StepSpec,
  evaluate_rows,
  init_state,
  train_step,
)
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.folders.memory import require_memory
from gatrec_jax.runs.checkpoints import Checkpoints, best, latest, newest, restore
from gatrec_jax.runs.log import SILENT, Log

BYTES_PER_WEIGHT = 16  # trained in full: the weight, its gradient, two moments, in float32
_PADDED = 32  # lengths of rows are rounded up to a multiple of this
_SHUFFLE = 2**31 - 2  # distinct from any step number
_UNRANKED = -1e30  # value of a checkpoint that was saved only to resume from

Example = CompletionExample | LabelExample


@dataclasses.dataclass(frozen=True)
class Finetuned:
  """Result of fine-tuning.

  Attributes:
    model: the given decoder (mode `lora`), or one with the new weights (mode `full`).
    lora: the adapters; None in mode `full`.
    history: one entry per evaluation: `step`, `loss` (mean since the previous entry) and, with
      validation examples, `valid_loss`.
    best_step: the step of these parameters: that of the lowest validation loss, else the last.
  """

  model: LanguageModel
  lora: Lora | None
  history: list[dict[str, float]]
  best_step: int

  def merged(self) -> LanguageModel:
    """Returns the model with the adapters merged into its weights, as needed by `export_folder`."""
    if self.lora is None:
      return self.model
    return dataclasses.replace(self.model, params=merge_lora(self.model.params, self.lora))


def finetune(
  model: LanguageModel,
  examples: Sequence[Example] | Callable[[int], Sequence[Example]],
  config: FinetuneConfig,
  *,
  workdir: Path,
  validation: Sequence[Example] = (),
  objective: Objective | None = None,
  stop: Callable[[], int] = lambda: 0,
  log: Log = SILENT,
) -> Finetuned:
  """Fine-tunes a decoder, resuming from the last checkpoint in `workdir`.

  All randomness is derived from the seed, the epoch and the step, so an interrupted and resumed run
  ends with bitwise the same parameters as an uninterrupted one.

  Args:
    model: the decoder, which is not modified. Mode `lora` supports int8 weights.
    examples: all of one kind; or a function from the epoch (0, 1, …) to its examples, for instance
      to shuffle the candidates in each epoch.
    config: settings.
    workdir: receives `checkpoints/` and `metrics.jsonl`.
    validation: examples of the same kind, for choosing the best checkpoint.
    objective: one of `objectives`; by default `next_token` or, for label examples,
      `label_cross_entropy`.
    stop: called after each step; returns the number of a signal that arrived, else 0.
    log: receives messages and progress.
  Raises:
    InputError: bad examples or settings, too little memory, a loss that is not finite, or
      checkpoints of another run.
    Interrupted: `stop` returned a signal; everything is saved.
  """
  workdir = runs.open_workdir(workdir)
  data = _Data(model, examples, config, log)
  spec = _spec_of(model, data, config, objective)
  valid = data.collate(validation) if len(validation) else None
  if valid is not None and type(valid) is not type(data.rows(0)):
    raise InputError("the validation examples are not of the same kind as the training examples")
  origin = _digest(model, spec, data.rows(0), valid)
  runs.require_same_origin(workdir, "fine-tuning examples, settings or model", origin)
  _require_memory(model, config)
  base = model.params if config.mode == "lora" else None
  folder = workdir / "checkpoints"
  state, progress = _resume(folder, model, spec, log)
  checkpoints = Checkpoints(folder)
  try:
    log.info(
      f"finetune: training {count_params(state.params):,} weights for {spec.total_steps} steps"
    )
    if progress.step < spec.total_steps:
      metrics = runs.MetricsFile(workdir / "metrics.jsonl", after_step=progress.step)
      with contextlib.closing(metrics):
        progress = _run(
          state,
          progress,
          base,
          data,
          valid,
          spec=spec,
          checkpoints=checkpoints,
          metrics=metrics,
          stop=stop,
          log=log,
        )
      checkpoints.wait()
    chosen = best(folder)
    like = jax.eval_shape(lambda: init_state(model, spec)).params
    params = restore(folder, chosen, {"params": like})[0]["params"]
  finally:
    checkpoints.close()
  history = list(progress.history)
  if config.mode == "lora":
    lora = Lora(params, config.lora_alpha / config.lora_rank, config.lora_dropout)
    return Finetuned(model, lora, history, chosen)
  params = jax.tree.map(lambda leaf: leaf.astype(spec.dtype), params)
  return Finetuned(dataclasses.replace(model, params=params), None, history, chosen)


def _require_memory(model: LanguageModel, config: FinetuneConfig) -> None:
  if config.mode == "full":
    require_memory(
      BYTES_PER_WEIGHT * count_params(model.params),
      what=f"full fine-tuning of {model.name}",
      remedy="use `mode=lora`, a smaller model or more devices",
      devices=sorted(jax.tree.leaves(model.params)[0].devices(), key=lambda device: device.id),
    )


@dataclasses.dataclass(frozen=True)
class Pace:
  """The speed of fine-tuning.

  Attributes:
    seconds_per_step: without compilation. tokens_per_step: with padding.
    steps_per_epoch: in which each row is used once.
  """

  seconds_per_step: float
  tokens_per_step: int
  steps_per_epoch: int


def pace_of(
  model: LanguageModel,
  examples: Sequence[Example],
  config: FinetuneConfig,
  objective: Objective | None = None,
) -> Pace:
  """Measures a step, after one that compiles. Nothing is written. Args, Raises: as `finetune`."""
  _require_memory(model, config)
  data = _Data(model, examples, config, SILENT)
  spec = _spec_of(model, data, config, objective)
  state, base = init_state(model, spec), model.params if config.mode == "lora" else None
  _, _, batch = next(data.batches(0, 0))
  for _ in range(2):
    begun = time.perf_counter()
    state, values = train_step(state, base, batch, spec=spec)
    values["loss"].block_until_ready()
  return Pace(time.perf_counter() - begun, batch.tokens.size, data.steps_in(0))


def _spec_of(
  model: LanguageModel, data: _Data, config: FinetuneConfig, objective: Objective | None
) -> StepSpec:
  return StepSpec(
    decoder=model.config,
    config=config,
    objective=objective or (next_token if data.tokens else label_cross_entropy),
    total_steps=config.steps or config.epochs * data.steps_in(0),
    dtype=str(compute_dtype(model.params)),
    # The kernel's backward pass is plain attention, so it has no advantage here.
    attention="xla" if model.attention == "pallas" else model.attention,
  )


@dataclasses.dataclass(frozen=True)
class _Progress:
  """Progress of training; saved with every checkpoint.

  Attributes:
    step: steps done. epoch, offset: of the next batch.
    losses: of the steps since the last evaluation. history: see `Finetuned`.
  """

  step: int = 0
  epoch: int = 0
  offset: int = 0
  losses: Sequence[float] = ()
  history: Sequence[dict[str, float]] = ()


class _Data:
  """Converts the examples of each epoch to rows, and yields the batches of a run."""

  def __init__(
    self,
    model: LanguageModel,
    examples: Sequence[Example] | Callable[[int], Sequence[Example]],
    config: FinetuneConfig,
    log: Log,
  ) -> None:
    self._model, self._config, self._log = model, config, log
    self._examples = examples if callable(examples) else None
    self._rows = self.collate(examples(0) if callable(examples) else examples)
    self._epoch = 0

  @property
  def tokens(self) -> bool:
    """Whether these are completion examples."""
    return isinstance(self._rows, TokenRows)

  def rows(self, epoch: int) -> Rows:
    """Returns the rows of an epoch."""
    if self._examples is not None and epoch != self._epoch:
      self._rows, self._epoch = self.collate(self._examples(epoch)), epoch
    return self._rows

  def steps_in(self, epoch: int) -> int:
    """Returns the number of steps of an epoch, in which every row is used once."""
    return -(-len(self.rows(epoch).tokens) // (self._config.batch_size * self._config.accumulate))

  def batches(self, epoch: int, offset: int) -> Iterator[tuple[int, int, Rows]]:
    """Yields (epoch and offset of the next batch, [accumulate, batch_size, …] rows) endlessly."""
    size, parts = self._config.batch_size, self._config.accumulate
    base_key = jax.random.fold_in(jax.random.key(self._config.seed), _SHUFFLE)
    while True:
      rows, steps = self.rows(epoch), self.steps_in(epoch)
      order = np.asarray(
        jax.random.permutation(jax.random.fold_in(base_key, epoch), len(rows.tokens))
      )
      for number in range(offset, steps):
        batch = _taken(rows, order[number * size * parts :], size * parts)
        batch = jax.tree.map(lambda array: array.reshape(parts, size, *array.shape[1:]), batch)
        yield *((epoch, number + 1) if number + 1 < steps else (epoch + 1, 0)), batch
      epoch, offset = epoch + 1, 0

  def collate(self, examples: Sequence[Example]) -> Rows:
    """Converts examples to rows. Raises InputError for none, mixed, too long or invalid ones."""
    kinds = {type(example) for example in examples}
    if kinds not in ({CompletionExample}, {LabelExample}):
      raise InputError(
        "there are no examples to learn from"
        if not kinds
        else "completion and label examples cannot be mixed; fine-tune on one kind at a time"
      )
    config, decoder = self._config, self._model.config
    limit = min(config.max_tokens, decoder.context)
    labeled = kinds == {LabelExample}
    lengths = [len(e.prompt) + (0 if labeled else len(e.completion)) for e in examples]
    wanted = sum(lengths) if config.packing and not labeled else max(lengths)
    make = label_rows if labeled else pack if config.packing else one_per_row
    rows, truncated = make(
      examples,
      row_tokens=min(limit, -(-wanted // _PADDED) * _PADDED),
      pad=decoder.pad,
      too_long=config.too_long,
    )
    for ids in (rows.tokens, rows.labels) if labeled else (rows.tokens,):
      if ids.min() < 0 or ids.max() >= decoder.vocabulary:
        raise InputError(
          f"token ids from {ids.min()} to {ids.max()}: the model's vocabulary has only "
          f"{decoder.vocabulary} tokens; tokenize the examples with its own tokenizer"
        )
    if truncated:
      self._log.info(
        f"finetune: {truncated} of {len(examples)} prompts truncated to {limit} tokens"
      )
    return rows


def _taken(rows: Rows, order: np.ndarray, count: int) -> Rows:
  """Takes `count` rows in the given order, padded with rows that do not count."""
  order = order[:count]
  filled = np.concatenate([order, np.full(count - len(order), order[0])])
  batch = type(rows)(*(array[filled] for array in rows))
  batch.where[len(order) :] = False
  return batch


def _resume(
  folder: Path, model: LanguageModel, spec: StepSpec, log: Log
) -> tuple[FinetuneState, _Progress]:
  found = newest(folder, _trees(jax.eval_shape(lambda: init_state(model, spec))), log=log)
  if found is None:
    return init_state(model, spec), _Progress()
  step, trees, meta = found
  log.info(f"finetune: resumed from the checkpoint of step {step}")
  return FinetuneState(trees["params"], **trees["training"]), _Progress(**meta)


def _trees(state: FinetuneState) -> dict[str, Any]:
  """Separates the parameters, so that they can be read without the rest of the state."""
  return {"params": state.params, "training": {"optimizer": state.optimizer, "step": state.step}}


def _run(
  state: FinetuneState,
  progress: _Progress,
  base: Any,
  data: _Data,
  valid: Rows | None,
  *,
  spec: StepSpec,
  checkpoints: Checkpoints,
  metrics: runs.MetricsFile,
  stop: Callable[[], int],
  log: Log,
) -> _Progress:
  config, total = spec.config, spec.total_steps
  with log.progress("finetune", total=total, done=progress.step) as show:
    for epoch, offset, batch in data.batches(progress.epoch, progress.offset):
      state, values = train_step(state, base, batch, spec=spec)
      values, step = {name: float(value) for name, value in values.items()}, progress.step + 1
      _require_finite([values["loss"], values["gradient_norm"]], step, checkpoints)
      losses = [*progress.losses, values["loss"]]
      progress = _Progress(step, epoch, offset, losses, progress.history)
      value = _UNRANKED
      if step % config.evaluate_every == 0 or step == total:
        entry = {"step": step, "loss": float(np.mean(losses))}
        value = float(step)  # without validation, the last checkpoint is the best
        if valid is not None:
          entry["valid_loss"] = _mean_loss(state.params, base, valid, spec)
          _require_finite([entry["valid_loss"]], step, checkpoints)
          values["valid_loss"], value = entry["valid_loss"], -entry["valid_loss"]
        progress = dataclasses.replace(progress, losses=(), history=[*progress.history, entry])
      # Before the checkpoint: a resume drops later lines but could not restore missing ones.
      metrics.write(step, **values)
      signum = stop() if step < total else 0
      if value != _UNRANKED or signum:
        meta = dataclasses.asdict(progress)
        checkpoints.save(step, _trees(state), value=value, meta=meta)
      show(step, **{name: values[name] for name in ("loss", "valid_loss") if name in values})
      if signum:
        checkpoints.wait()
        raise Interrupted(
          f"stopped by {signal.Signals(signum).name} at step {step} of {total}, saved; the same "
          "command resumes from there",
          signum,
        )
      if step == total:
        return progress
  raise AssertionError("batches never end")


def _mean_loss(params: Any, base: Any, rows: Rows, spec: StepSpec) -> float:
  """Mean loss over all targets of `rows`."""
  size, loss, targets = spec.config.batch_size, 0.0, 0
  for start in range(0, len(rows.tokens), size):
    batch = _taken(rows, np.arange(start, len(rows.tokens)), size)
    more_loss, more_targets = evaluate_rows(params, base, batch, spec=spec)
    loss, targets = loss + float(more_loss), targets + int(more_targets)
  return loss / max(targets, 1)


def _require_finite(values: Sequence[float], step: int, checkpoints: Checkpoints) -> None:
  """Raises InputError if a value is not finite, naming the last good checkpoint."""
  if np.all(np.isfinite(values)):
    return
  checkpoints.wait()
  good = latest(checkpoints.folder)
  kept = f"the last good checkpoint is that of step {good}" if good else "nothing was saved yet"
  raise InputError(
    f"the loss or its gradient is not finite at step {step}; {kept}; try a lower `learning_rate`"
  )


def _digest(model: LanguageModel, spec: StepSpec, rows: Rows, valid: Rows | None) -> str:
  """Hashes all that a run depends on; only a small part of each weight."""
  arrays = [*rows, *(valid or ()), *(leaf[:1] for leaf in jax.tree.leaves(model.params))]
  settings = (dataclasses.asdict(spec.config), repr(model.config), spec.objective.__name__)
  return runs.digest(*settings, *(np.asarray(array).tobytes() for array in arrays))
