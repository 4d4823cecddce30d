"""Many settings of one model in one compiled program: seeds, rates, weights, dropouts.

The numbers among the settings are arguments of the program (train/hyperparameters.py), here with a
leading axis of settings. On an accelerator that axis is a batch axis (`vmap`): one run of a small
model leaves most of the device idle. On a CPU a batch of runs is no faster than its parts (measured
by launch/benchmarks/sweep.py), so a program runs its settings one by one (`map`), with the
temporaries of one alone, and each core runs such a program in its own lane: gathers, scatters and
element-wise work of a step mostly use a single core.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import FittedRecommender, LearnedRecommender, Recommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.runs.log import Log
from gatrec_jax.sharding.placement import to_device
from gatrec_jax.train.epochs import new_state, run_epochs
from gatrec_jax.train.hyperparameters import Dynamic, recommender_with
from gatrec_jax.train.loop import Progress, Validate, advanced, all_finite, value_of
from gatrec_jax.train.state import TrainState
from gatrec_jax.train.sweep_plan import Plan, fitting_plan, stacked_dynamic, tree_bytes


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result of one setting.

  Attributes:
    setting: as given.
    best_value, best_epoch: as in `loop.Progress`. epochs: number of epochs that were run.
    losses: [epochs, steps] float32; None for a fitted model.
    params: of the best epoch, as arrays on the host.
    diverged: stopped because a loss, a parameter or a score was not finite; the best epoch is from
      before that, 0 where there was none.
  """

  setting: Mapping[str, Any]
  best_value: float
  best_epoch: int
  epochs: int
  losses: np.ndarray | None
  params: Any
  diverged: bool = False


@dataclasses.dataclass(frozen=True)
class SweepResult:
  """The outcomes in the order of the settings, and how the settings went through the device."""

  outcomes: Sequence[Outcome]
  plan: Plan


def sweep(
  inputs: Inputs,
  *,
  recommender: Recommender,
  config: TrainConfig,
  settings: Sequence[Mapping[str, Any]],
  validate: Validate | None,
  memory_mb: float,
  log: Log,
  spread: str = "",
) -> SweepResult:
  """Trains, or fits, one model per setting; each ends as a single run with that setting would.

  The settings run in one compiled program in groups that fit into `memory_mb`, which is determined
  before anything runs. Each is evaluated every `evaluate_every` epochs, keeps the parameters of its
  own best evaluation, and stops by its own `patience`.

  Args:
    inputs: what a step reads.
    recommender, config: what all settings have in common.
    settings: values by field; fields that a setting does not name are those of `recommender` and
      `config`.
    validate: params -> the selection metric, as in `loop.learn`; called from several threads.
    memory_mb: bound on the sum of inputs, parameters, optimizer states, gradients and temporaries.
    log: where lines for the user go.
    spread: `vmap` or `map` ("" = `map` on a CPU, else `vmap`).
  Raises:
    InputError: no settings, a field that is no number of the program, an impossible value, or a
      budget in which not even one setting fits.
  """
  spread = spread or ("map" if jax.default_backend() == "cpu" else "vmap")
  dynamic, recommender, config = stacked_dynamic(recommender, config, settings)
  if recommender.learned:
    work = _Learning(inputs, recommender, config, spread, validate)
  else:
    # In parallel, batched LAPACK calls on a CPU can deadlock.
    work = _Fitting(inputs, recommender, validate)
  plan = fitting_plan(work, inputs, dynamic, num_settings=len(settings), memory_mb=memory_mb)
  log.info(
    f"sweep: {len(settings)} settings of {recommender.settings.kind}, {plan.group_size} a group, "
    f"{plan.lanes} at a time, {plan.memory_mb:.0f} of {memory_mb} MB"
  )

  def run(first: int) -> list[Outcome]:
    # The last group is padded, so that one program serves all.
    rows = np.minimum(np.arange(first, first + plan.group_size), len(settings) - 1)
    group = to_device({name: values[rows] for name, values in dynamic.items()})
    return work.run(group, settings[first : first + plan.group_size])

  with ThreadPoolExecutor(plan.lanes) as lanes:
    try:
      groups = list(lanes.map(run, range(0, len(settings), plan.group_size)))
    except BaseException:
      work.stop.set()
      lanes.shutdown(cancel_futures=True)
      raise
  return SweepResult([outcome for group in groups for outcome in group], plan)


class _Learning:
  """Blocks of epochs of a group of settings, all by one program."""

  def __init__(
    self,
    inputs: Inputs,
    recommender: LearnedRecommender,
    config: TrainConfig,
    spread: str,
    validate: Validate | None,
  ) -> None:
    self.inputs, self.recommender, self.config, self.validate = (
      inputs,
      recommender,
      config,
      validate,
    )
    self.spread = spread
    self.stop = threading.Event()
    self.lanes = (os.cpu_count() or 1) if spread == "map" else 1
    self.program: Any = None
    self.starts: Any = jax.jit(
      partial(_start, recommender=recommender, config=config, spread=spread)
    )

  def least_bytes(self, dynamic: Dynamic) -> int:
    """Bytes of one setting: parameters, optimizer state, gradients, best parameters."""
    one = {name: values[:1] for name, values in dynamic.items()}
    state = jax.eval_shape(self.starts, self.inputs, one)
    return tree_bytes(state) + 2 * tree_bytes(state.params)

  def compile(self, dynamic: Dynamic) -> list[tuple[Any, int]]:
    """The program for a group of that size, and the bytes held beside its arguments and results."""
    state = jax.eval_shape(self.starts, self.inputs, dynamic)
    active = jnp.ones(state.step.shape, bool)
    block = partial(
      _block,
      recommender=self.recommender,
      config=self.config,
      most_epochs=min(self.config.evaluate_every, self.config.epochs),
      spread=self.spread,
    )
    jitted = jax.jit(block, donate_argnums=0, keep_unused=True)
    self.program = jitted.lower(state, self.inputs, dynamic, active, np.int32(1)).compile()
    return [(self.program, tree_bytes(state.params))]

  def run(self, dynamic: Dynamic, settings: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Trains a group to its end. Args: dynamic: [n] each; those after the settings are padding."""
    state = self.starts(self.inputs, dynamic)
    best = jax.tree.map(jnp.copy, state.params)
    size = state.step.shape[0]
    progress = [Progress(finished=row >= len(settings)) for row in range(size)]
    losses: list[list[np.ndarray]] = [[] for _ in settings]
    diverged = np.zeros(size, bool)
    epoch = 0
    while not all(one.finished for one in progress) and not self.stop.is_set():
      block = min(self.config.evaluate_every, self.config.epochs - epoch)
      active = np.array([not one.finished for one in progress])
      state, lost = self.program(state, self.inputs, dynamic, to_device(active), np.int32(block))
      lost, finite = np.asarray(lost)[:, :block], np.asarray(_finite_each(state.params))
      better = np.zeros(size, bool)
      for row in np.flatnonzero(active):
        value = value_of(
          _one_of(state.params, row),
          lost[row],
          step=epoch * lost.shape[2],
          config=self.config,
          validate=self.validate,
        )
        losses[row].append(lost[row])
        if not (np.isfinite(value) and np.isfinite(lost[row]).all() and finite[row]):
          diverged[row] = True
          progress[row] = dataclasses.replace(progress[row], epoch=epoch + block, finished=True)
          continue
        better[row] = value > progress[row].best_value
        progress[row] = advanced(progress[row], self.config, epochs=block, value=value, seconds=0.0)
      best = _better_of(to_device(better), state.params, best)
      epoch += block
    params = jax.device_get(best)
    return [
      Outcome(
        setting,
        one.best_value,
        one.best_epoch,
        one.epoch,
        np.concatenate(own),
        jax.tree.map(lambda leaf, row=row: leaf[row], params),
        bool(diverged[row]),
      )
      for row, (setting, one, own) in enumerate(zip(settings, progress, losses, strict=False))
    ]


class _Fitting:
  """Fits a group of settings as a batch; what does not depend on them is computed once."""

  lanes = 1

  def __init__(
    self, inputs: Inputs, recommender: FittedRecommender, validate: Validate | None
  ) -> None:
    self.inputs, self.recommender, self.validate = inputs, recommender, validate
    self.stop = threading.Event()
    self.program: Any = None

  def least_bytes(self, dynamic: Dynamic) -> int:
    """Bytes of one setting: parameters."""
    one = {name: values[:1] for name, values in dynamic.items()}
    return tree_bytes(jax.eval_shape(partial(_fit, recommender=self.recommender), self.inputs, one))

  def compile(self, dynamic: Dynamic) -> list[tuple[Any, int]]:
    jitted = jax.jit(partial(_fit, recommender=self.recommender), keep_unused=True)
    self.program = jitted.lower(self.inputs, dynamic).compile()
    return [(self.program, 0)]

  def run(self, dynamic: Dynamic, settings: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Fits a group. Args: as of `_Learning.run`."""
    params = self.program(self.inputs, dynamic)
    finite = np.asarray(_finite_each(params))
    outcomes = []
    for row, setting in enumerate(settings):
      own, good, value = _one_of(params, row), bool(finite[row]), -np.inf
      if good:
        value = self.validate(own) if self.validate else 0.0
      outcomes.append(Outcome(setting, value, int(good), 1, None, jax.device_get(own), not good))
    return outcomes


def _start(
  inputs: Inputs,
  dynamic: Dynamic,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  spread: str,
) -> TrainState:
  one = partial(new_state, inputs, recommender=recommender, config=config)
  return jax.vmap(one)(dynamic) if spread == "vmap" else jax.lax.map(one, dynamic)


def _block(
  state: TrainState,
  inputs: Inputs,
  dynamic: Dynamic,
  active: jax.Array,
  num_epochs: jax.Array,
  *,
  recommender: LearnedRecommender,
  config: TrainConfig,
  most_epochs: int,
  spread: str,
) -> tuple[TrainState, jax.Array]:
  """`run_epochs` for each of n settings; everything has a leading axis [n]. With `map`, settings
  that are not active stay as they are and cost nothing; their losses are 0."""

  def run(state: TrainState, dynamic: Dynamic) -> tuple[TrainState, jax.Array]:
    return run_epochs(
      state,
      inputs,
      dynamic,
      recommender=recommender,
      config=config,
      num_epochs=num_epochs,
      most_epochs=most_epochs,
    )

  if spread == "vmap":
    return jax.vmap(run)(state, dynamic)

  def run_active(xs: tuple[TrainState, Dynamic, jax.Array]) -> tuple[TrainState, jax.Array]:
    state, dynamic, active = xs
    losses = jax.eval_shape(run, state, dynamic)[1]

    def rest(state: TrainState, _: Dynamic) -> tuple[TrainState, jax.Array]:
      return state, jnp.zeros(losses.shape, losses.dtype)

    return jax.lax.cond(active, run, rest, state, dynamic)

  return jax.lax.map(run_active, (state, dynamic, active))


def _fit(inputs: Inputs, dynamic: Dynamic, *, recommender: FittedRecommender) -> Any:
  def fit(dynamic: Dynamic) -> Any:
    return recommender_with(recommender, dynamic).fit(inputs, jax.random.key(dynamic["seed"]))

  return jax.vmap(fit)(dynamic)


_finite_each = jax.jit(jax.vmap(all_finite))


@jax.jit
def _one_of(params: Any, row: jax.Array) -> Any:
  return jax.tree.map(lambda leaf: leaf[row], params)


@partial(jax.jit, donate_argnames=("best",))
def _better_of(better: jax.Array, params: Any, best: Any) -> Any:
  """The new parameters [n, …] where `better` [n], else the old ones."""

  def choose(new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

  return jax.tree.map(choose, params, best)
