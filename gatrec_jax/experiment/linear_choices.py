"""What is chosen for the linear channel on the validation part: powers before training, its weight
after it.

The configured value stays unless another one is better by two standard errors of the difference,
taken user by user: a choice between values that are nearly alike would be one by chance.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import DamagedFile
from gatrec_jax.experiment.validation import make_values
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.channels import Channels, linear_channel
from gatrec_jax.models.linear.ridge import Weights
from gatrec_jax.runs.log import Log
from gatrec_jax.serve.kept import kept_linear, read_choices, write_choices
from gatrec_jax.train.fitted import fit_params

# Multiples of the configured weight that are tried; 0 leaves the channel out.
MULTIPLES = (0.0, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 64.0)
# Other powers that are tried: of the numbers of ratings of the user and of the item, and of scores.
OTHER_POWERS = (0.25, 0.25, 0.15)
_POWERS = ("linear_user_power", "linear_item_power", "linear_score_power")
_STANDARD_ERRORS = 2.0
T = TypeVar("T")


def choose(
  configured: T, others: Sequence[T], values_of: Callable[[T], np.ndarray]
) -> tuple[T, Mapping[T, float]]:
  """The option with the highest mean value, if it is clearly above that of the configured one.

  Args:
    configured: stays where nothing else is clearly better. others: what else is tried.
    values_of: option -> [n] float, a value of each validation user, in one order.
  Returns: the chosen option, and the mean value of each that was tried.

  >>> gains = {"a": 0.0, "b": 0.3}
  >>> choose("a", ["b"], lambda option: np.array([0.1, 0.2, 0.4]) + gains[option])[0]
  'b'
  """
  base = values_of(configured)
  best, gain = configured, 0.0
  means = {configured: float(base.mean())}
  for other in others:
    difference = values_of(other) - base
    means[other] = means[configured] + float(difference.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    if difference.mean() > max(gain, _STANDARD_ERRORS * error):
      best, gain = other, float(difference.mean())
  return best, means


def has_choices(config: Config) -> bool:
  """Whether anything is chosen for the linear channel."""
  model = config.model
  return (
    isinstance(model, ModelConfig)
    and model.linear_choice == "valid"
    and model.linear_weight > 0
    and config.train.select_on == "valid"
  )


def choose_powers(
  config: Config, prepared: Prepared, folder: pathlib.Path, *, mesh: Mesh | None, log: Log
) -> Config:
  """The configuration with the powers of the linear channel that validation users favor.

  The channel is compared alone. The weights of the chosen powers are kept in the run folder, and so
  is the choice.
  """
  if known := _known(folder, log=log):
    return with_fields(config, known)
  started = time.monotonic()
  fitted: dict[tuple[float, ...], Weights] = {}

  def values_of(powers: tuple[float, ...]) -> np.ndarray:
    own = with_fields(config, _named(powers))
    linear = linear_channel(
      own.model,
      num_users=prepared.interactions.num_users,
      num_items=prepared.interactions.num_items,
    )
    inputs = make_inputs(linear, prepared.train, feedback=prepared.feedback)
    params = fit_params(inputs, jax.random.key(0), recommender=linear)
    fitted[powers] = params["weights"]
    values = make_values(prepared, inputs, recommender=linear, config=own, mesh=mesh)
    return values(linear.serving_state(params, inputs))

  configured = _configured(config)
  powers, means = choose(configured, [OTHER_POWERS], values_of)
  chosen = with_fields(config, _named(powers))
  spent = time.monotonic() - started
  kept_linear(chosen, prepared, folder, log=log, spent=spent)(lambda: fitted[powers])
  write_choices(folder, _named(powers))
  if powers != configured:
    log.info(
      f"linear: powers {', '.join(f'{power:g}' for power in powers)} of the numbers of ratings of "
      f"users, of items, and for scores, with which valid_{config.train.select_metric} of this "
      f"channel alone is {means[powers]:.4f} instead of {means[configured]:.4f}"
    )
  return chosen


def choose_weight(
  config: Config,
  state: Channels,
  values: Callable[[Channels], np.ndarray],
  folder: pathlib.Path,
  *,
  log: Log,
) -> Config:
  """The configuration with the weight of the linear channel that validation users favor.

  Args: config: with the chosen powers. state: serving state of the trained model. values: of each
    validation user.
  """
  known = _known(folder, log=log) or _named(_configured(config))
  if "linear_weight" not in known:
    configured = config.model.linear_weight
    weight, means = choose(
      configured,
      [configured * multiple for multiple in MULTIPLES],
      lambda weight: values(state._replace(weight=jnp.float32(weight))),
    )
    known = {**known, "linear_weight": weight}
    write_choices(folder, known)
    if weight != configured:
      log.info(
        f"train: linear_weight {weight:g} instead of {configured:g}, with which valid_"
        f"{config.train.select_metric} is {means[weight]:.4f} instead of {means[configured]:.4f}"
      )
  return with_fields(config, known)


def _known(folder: pathlib.Path, *, log: Log) -> dict[str, float]:
  """What was chosen before; empty where nothing was, or where the record is damaged: the same data
  lead to the same choices."""
  try:
    return read_choices(folder)
  except DamagedFile as damage:
    log.info(f"choices: made again, since {str(damage).partition(';')[0]}")
    return {}


def _configured(config: Config) -> tuple[float, ...]:
  return tuple(getattr(config.model, name) for name in _POWERS)


def _named(powers: tuple[float, ...]) -> dict[str, float]:
  return dict(zip(_POWERS, powers, strict=True))
