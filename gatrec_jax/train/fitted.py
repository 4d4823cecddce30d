"""Recommenders that are fitted in a single step, without epochs."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from gatrec_jax.errors import InputError
from gatrec_jax.models.base import FittedRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.runs import tracing
from gatrec_jax.runs.checkpoints import Checkpoints, newest
from gatrec_jax.runs.log import Log
from gatrec_jax.train.hyperparameters import Dynamic, recommender_with, split_settings
from gatrec_jax.train.loop import Progress, all_finite, shapes_of_params


def fit(
  inputs: Inputs,
  *,
  recommender: FittedRecommender,
  seed: int,
  workdir: pathlib.Path,
  validate: Callable[[Any], float] | None,
  log: Log,
) -> tuple[Any, Progress]:
  """Fits a recommender, or restores its checkpoint where there is one.

  Args, returned, raised: as in `loop.learn`; the progress is that of one epoch.
  """
  folder = workdir / "checkpoints"
  if found := newest(folder, {"params": shapes_of_params(inputs, recommender)}, log=log):
    _, trees, meta = found
    log.info("train: already fitted, kept")
    return trees["params"], Progress(**meta)
  checkpoints = Checkpoints(folder)
  try:
    started = time.monotonic()
    with tracing.part("the fit", last=True):
      params = jax.block_until_ready(
        fit_params(inputs, jax.random.key(seed), recommender=recommender)
      )
    seconds = time.monotonic() - started
    if not all_finite(params):
      raise InputError(
        f"the parameters of {recommender.settings.kind} became infinite or NaN; nothing was saved; "
        "stronger regularization helps"
      )
    value = validate(params) if validate else 0.0
    progress = Progress(1, value, 1, seconds, finished=True)
    checkpoints.save(1, {"params": params}, value=value, meta=dataclasses.asdict(progress))
    checkpoints.wait()
    return params, progress
  finally:
    checkpoints.close()


def fit_params(inputs: Inputs, key: jax.Array, *, recommender: FittedRecommender) -> Any:
  """The parameters of a recommender that is fitted without epochs. `key` is consumed."""
  dynamic, recommender = split_settings(recommender)
  return _fit_params(inputs, key, dynamic, recommender=recommender)


@partial(jax.jit, static_argnames=("recommender",))
def _fit_params(
  inputs: Inputs, key: jax.Array, dynamic: Dynamic, *, recommender: FittedRecommender
) -> Any:
  return recommender_with(recommender, dynamic).fit(inputs, key)
