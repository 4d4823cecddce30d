"""The training loop on the host: blocks of compiled epochs, choice, checkpoints, signals."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config import TrainConfig
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.models.gat import GatRecommender
from gatrec_jax.parallel.checkpoint import Checkpoints
from gatrec_jax.train.state import TrainingData, TrainState, init_state, train_epochs


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where training stands; saved with every checkpoint.

  Attributes:
    epoch: done so far.
    best_value: highest value of the selection measure (minus the loss for `train_loss`).
    best_epoch: where it was seen.
    seconds: spent in training so far, compilation included.
    finished: no further epoch is to come.
  """

  epoch: int = 0
  best_value: float = -np.inf
  best_epoch: int = 0
  seconds: float = 0.0
  finished: bool = False


def fit(
  data: TrainingData,
  *,
  model: GatRecommender,
  config: TrainConfig,
  workdir: pathlib.Path,
  validate: Callable[[Any], float] | None,
  say: Callable[[str], None],
) -> tuple[Any, Progress]:
  """Trains until the selection measure stops rising, resuming where a former process stopped.

  Every `evaluate_every` epochs the measure is taken and a checkpoint written. A run that was
  stopped at any point and started again ends with the same parameters, bit for bit, as one that
  was not, since all randomness follows from the seed and the step.

  Args:
    data: what a step reads.
    model, config: static settings.
    workdir: gets `checkpoints/` and `metrics.jsonl`.
    validate: params -> NDCG@10 on the validation part; None selects on the training loss.
    say: where lines for the user go.
  Returns:
    The parameters of the best checkpoint, and where training stands.
  Raises:
    InputError: the loss is not finite, or the checkpoints belong to another configuration.
    Interrupted: SIGINT or SIGTERM came; everything is saved.
  """
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    state, progress = _resume(checkpoints, data, model=model, config=config, say=say)
    if not progress.finished:
      metrics = runs.MetricsFile(workdir / "metrics.jsonl", after_step=int(state.step))
      with contextlib.closing(metrics):
        progress = _run(
          state, progress, data, model=model, config=config, checkpoints=checkpoints,
          metrics=metrics, validate=validate,
        )  # fmt: skip
      checkpoints.wait()
    return restore_params(checkpoints, progress.best_epoch, data.text, data.graph, model), progress
  finally:
    checkpoints.close()


def _resume(
  checkpoints: Checkpoints,
  data: TrainingData,
  *,
  model: GatRecommender,
  config: TrainConfig,
  say: Callable[[str], None],
) -> tuple[TrainState, Progress]:
  latest = checkpoints.latest()
  if latest is None:
    return init_state(data, model=model, config=config), Progress()
  like = jax.eval_shape(lambda: init_state(data, model=model, config=config))
  trees, meta = checkpoints.restore(latest, _trees(like))
  state = TrainState(trees["params"], **trees["training"])
  progress = Progress(**meta)
  if progress.finished:
    say(f"train: finished before at epoch {progress.epoch}, kept")
  else:
    say(f"train: resumed from the checkpoint of epoch {latest} (step {int(state.step)})")
  return state, progress


def restore_params(
  checkpoints: Checkpoints,
  epoch: int,
  text: jax.Array | np.ndarray,
  graph: jraph.GraphsTuple,
  model: GatRecommender,
) -> Any:
  """The parameters alone of the checkpoint of `epoch`. Raises InputError as `restore` does."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), text, graph)["params"]
  trees, _ = checkpoints.restore(epoch, {"params": shapes})
  return trees["params"]


def _trees(state: TrainState) -> dict[str, Any]:
  """Parameters apart from the rest, so that serving reads only them."""
  return {
    "params": state.params,
    "training": {"optimizer": state.optimizer, "step": state.step},
  }


def _run(
  state: TrainState,
  progress: Progress,
  data: TrainingData,
  *,
  model: GatRecommender,
  config: TrainConfig,
  checkpoints: Checkpoints,
  metrics: runs.MetricsFile,
  validate: Callable[[Any], float] | None,
) -> Progress:
  examples = data.user.shape[0]
  with (
    _signals() as received,
    runs.progress_bar("train", total=config.epochs, done=progress.epoch) as show,
  ):
    while not progress.finished:
      started, step = time.monotonic(), int(state.step)
      block = min(config.evaluate_every, config.epochs - progress.epoch)
      state, losses = train_epochs(
        state, data, model=model, config=config, num_epochs=block
      )
      losses = np.asarray(losses)
      epoch_losses = losses.mean(axis=1)
      value = -float(epoch_losses.mean())
      if validate and np.isfinite(value):
        try:
          value = validate(state.params)
        except FloatingPointError:  # the ranking's word for scores that are not finite
          value = np.nan
      _require_finite(losses, state.params, value, step, checkpoints)
      epoch = progress.epoch + block
      better = value > progress.best_value
      best_epoch = epoch if better else progress.best_epoch
      seconds = time.monotonic() - started
      progress = Progress(
        epoch=epoch,
        best_value=value if better else progress.best_value,
        best_epoch=best_epoch,
        seconds=progress.seconds + seconds,
        finished=epoch >= config.epochs or epoch - best_epoch >= config.patience,
      )
      # Before the checkpoint: a resume drops lines behind it, but could not make up missing ones.
      for i, loss in enumerate(epoch_losses):
        metrics.write(step + (i + 1) * losses.shape[1], loss=loss)
      shown = {"loss": float(epoch_losses[-1])}
      if validate:
        metrics.write(int(state.step), **{"valid_ndcg@10": value})
        shown["valid_ndcg@10"] = value
      checkpoints.save(epoch, _trees(state), value=value, meta=dataclasses.asdict(progress))
      show(epoch, **shown, **{"examples/s": block * examples / seconds})
      if received and not progress.finished:
        checkpoints.wait()
        raise Interrupted(
          f"stopped by {signal.Signals(received[0]).name} at epoch {epoch} (step "
          f"{int(state.step)}), saved; the same command goes on from there",
          received[0],
        )
  return progress


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
  elif not np.isfinite(value) or not _all_finite(params):
    what, where = "the parameters became infinite or NaN", step + losses.size
  else:
    return
  checkpoints.wait()
  good = checkpoints.latest()
  kept = f"the last good checkpoint is that of epoch {good}" if good else "nothing was saved yet"
  raise InputError(
    f"{what} at step {where}; {kept}; try a lower --set learning_rate=… or --set gradient_clip=1"
  )


@jax.jit
def _all_finite(params: Any) -> jax.Array:
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM instead of dying of them; a second one ends the process."""
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield received
    return
  former: dict[int, Any] = {}

  def note(signum: int, _: Any) -> None:
    received.append(signum)
    print("stopping after these epochs; once more ends at once", file=sys.stderr, flush=True)
    signal.signal(signum, former[signum])

  for signum in (signal.SIGINT, signal.SIGTERM):
    former[signum] = signal.signal(signum, note)
  try:
    yield received
  finally:
    for signum, handler in former.items():
      signal.signal(signum, handler)
