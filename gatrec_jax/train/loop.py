"""The training loop on the host: blocks of compiled epochs, selection, checkpoints, signals."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gatrec_jax import runs
from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.models.base import LearnedRecommender, Recommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.runs import tracing
from gatrec_jax.runs.checkpoints import Checkpoints, latest, newest, restore
from gatrec_jax.runs.log import Log
from gatrec_jax.sharding.peers import common_folder
from gatrec_jax.train.epochs import train_epochs
from gatrec_jax.train.sharded import Place
from gatrec_jax.train.state import TrainState

Validate = Callable[[Any], float]
"""params -> the selection metric on the validation part."""


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far training is; saved with every checkpoint.

  Attributes:
    epoch: epochs done so far.
    best_value: highest value of the selection measure (minus the loss for `train_loss`, the number
      of steps for `last`).
    best_epoch: the epoch that had it.
    seconds: spent in training so far, compilation included.
    finished: no further epoch will be trained.
  """

  epoch: int = 0
  best_value: float = -np.inf
  best_epoch: int = 0
  seconds: float = 0.0
  finished: bool = False


def learn(
  inputs: Inputs,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  workdir: pathlib.Path,
  validate: Validate | None,
  log: Log,
  mesh: Mesh | None = None,
  until: int | None = None,
) -> tuple[Any, Progress]:
  """Trains until the selection measure stops rising, resuming from the last checkpoint.

  Every `evaluate_every` epochs the measure is taken and a checkpoint written. A run that was
  stopped at any point and started again ends with the same parameters, bit for bit, as one that was
  not, since all randomness follows from the seed and the step.

  Args:
    inputs: what a step reads.
    recommender, config: static settings.
    workdir: gets `checkpoints/` and `metrics.jsonl`.
    validate: params -> the selection metric on the validation part; None selects by the training
      loss, or takes the last epoch.
    log: where lines for the user go.
    mesh: the devices that share each step; None for one device. Checkpoints are the same on any
      number of devices.
    until: stop for now after this many epochs; None trains to the end.
  Returns:
    The parameters of the best checkpoint, and how far training is.
  Raises:
    InputError: the loss is not finite, or the checkpoints belong to another configuration.
    Interrupted: SIGINT or SIGTERM came; everything is saved.
  """
  folder = common_folder(workdir) / "checkpoints"
  end = config.epochs if until is None else min(until, config.epochs)
  place = Place(mesh, recommender=recommender, inputs=inputs, config=config)
  state, progress = _resume(folder, place, log=log)
  checkpoints = Checkpoints(folder)
  try:
    if not progress.finished and progress.epoch < end:
      metrics = runs.MetricsFile(workdir / "metrics.jsonl", after_step=int(state.step))
      with contextlib.closing(metrics):
        progress = _train_blocks(
          state,
          progress,
          place,
          checkpoints=checkpoints,
          metrics=metrics,
          validate=validate,
          end=end,
          log=log,
        )
      checkpoints.wait()
    like = {"params": place.like().params}
    trees, _ = restore(folder, progress.best_epoch, like)
    return place.local(trees["params"]), progress
  finally:
    checkpoints.close()


def _resume(folder: pathlib.Path, place: Place, *, log: Log) -> tuple[TrainState, Progress]:
  found = newest(folder, _trees(place.like()), log=log)
  if found is None:
    return place.init(), Progress()
  epoch, trees, meta = found
  training = trees["training"]
  state = place.put(TrainState(trees["params"], training["optimizer"], training["step"]))
  progress = Progress(**meta)
  if progress.finished:
    log.info(f"train: already finished at epoch {progress.epoch}, kept")
  else:
    log.info(f"train: resumed from the checkpoint of epoch {epoch} (step {int(state.step)})")
  return state, progress


def shapes_of_params(inputs: Inputs, recommender: Recommender) -> Any:
  """Parameters as ShapeDtypeStructs, to restore a checkpoint by."""
  make = recommender.init if recommender.learned else recommender.fit
  return jax.eval_shape(make, inputs, jax.random.key(0))


def _trees(state: TrainState) -> dict[str, Any]:
  """Parameters apart from the rest, so that serving reads only them."""
  return {"params": state.params, "training": {"optimizer": state.opt_state, "step": state.step}}


def _train_blocks(
  state: TrainState,
  progress: Progress,
  place: Place,
  *,
  checkpoints: Checkpoints,
  metrics: runs.MetricsFile,
  validate: Validate | None,
  end: int,
  log: Log,
) -> Progress:
  """Trains blocks of `evaluate_every` epochs, each with a value and a checkpoint, up to `end`."""
  config, examples = place.config, place.recommender.num_rows(place.inputs)
  with (
    runs.signals("stopping after these epochs", log=log) as received,
    log.progress("train", total=config.epochs, done=progress.epoch) as show,
  ):
    while not progress.finished and progress.epoch < end:
      started, step = time.monotonic(), int(state.step)
      block = min(config.evaluate_every, end - progress.epoch)
      last = progress.epoch + block
      with (
        tracing.part(f"epochs {progress.epoch + 1} to {last}", last=last >= end),
        place.entered(),
      ):
        state, losses = train_epochs(
          state, place.inputs, recommender=place.recommender, config=config, num_epochs=block
        )
        losses = np.asarray(losses)
      epoch_losses, saved = losses.mean(axis=1), place.saved(state)
      params = place.local(saved.params)
      value = value_of(params, losses, step=step, config=config, validate=validate)
      _require_finite(losses, params, value, step, checkpoints)
      seconds = time.monotonic() - started
      progress = advanced(progress, config, epochs=block, value=value, seconds=seconds)
      epoch = progress.epoch
      # Before the checkpoint: a resume drops later lines, but could not make up missing ones.
      for i, loss in enumerate(epoch_losses):
        metrics.write(step + (i + 1) * losses.shape[1], loss=loss)
      shown = {"loss": float(epoch_losses[-1])}
      if validate:
        metrics.write(int(state.step), **{f"valid_{config.select_metric}": value})
        shown[f"valid_{config.select_metric}"] = value
      checkpoints.save(epoch, _trees(saved), value=value, meta=dataclasses.asdict(progress))
      show(epoch, **shown, **{"examples/s": block * examples / seconds})
      if received and not progress.finished:
        checkpoints.wait()
        raise Interrupted(
          f"stopped by {signal.Signals(received[0]).name} at epoch {epoch} (step "
          f"{int(state.step)}), saved; the same command goes on from there",
          received[0],
        )
  return progress


def value_of(
  params: Any, losses: np.ndarray, *, step: int, config: TrainConfig, validate: Validate | None
) -> float:
  """The selection measure after a block of epochs; NaN where scores are not finite.

  Args:
    losses: [epochs, steps] of the block. step: number of steps before it.
    validate: as in `learn`.
  """
  # With `last` each evaluation counts as better than the one before it.
  value = float(step + 1) if config.select_on == "last" else -float(losses.mean())
  if validate and np.isfinite(value):
    try:
      value = validate(params)
    except FloatingPointError:  # what the ranking raises for scores that are not finite
      value = np.nan
  return value


def advanced(
  progress: Progress, config: TrainConfig, *, epochs: int, value: float, seconds: float
) -> Progress:
  """The progress after `epochs` more that ended with `value` and took `seconds`."""
  epoch, better = progress.epoch + epochs, value > progress.best_value
  best_epoch = epoch if better else progress.best_epoch
  return Progress(
    epoch=epoch,
    best_value=value if better else progress.best_value,
    best_epoch=best_epoch,
    seconds=progress.seconds + seconds,
    finished=epoch >= config.epochs or epoch - best_epoch >= config.patience,
  )


def _require_finite(
  losses: np.ndarray, params: Any, value: float, step: int, checkpoints: Checkpoints
) -> None:
  """Raises InputError naming the first step of a block with a non-finite loss or update.

  Args:
    losses: [epochs, steps] of the block.
    params: after the block.
    value: of the selection measure after the block; NaN where scores were not finite.
    step: number of steps before the block.
    checkpoints: to say what is left.
  """
  bad = np.flatnonzero(~np.isfinite(losses.ravel()))
  if bad.size:
    what, where = f"the loss became {losses.ravel()[bad[0]]}", step + int(bad[0]) + 1
  elif not np.isfinite(value) or not all_finite(params):
    what, where = "the parameters became infinite or NaN", step + losses.size
  else:
    return
  checkpoints.wait()
  good = latest(checkpoints.folder)
  kept = f"the last good checkpoint is that of epoch {good}" if good else "nothing was saved yet"
  raise InputError(
    f"{what} at step {where}; {kept}; try a lower `learning_rate` or `gradient_clip=1`"
  )


@jax.jit
def all_finite(params: Any) -> jax.Array:
  """[] bool, whether every number of a tree of arrays is finite."""
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))
