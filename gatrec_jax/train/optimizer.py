"""The optimizer of a training configuration: AdamW, its schedule, warm-up and clipping."""

from __future__ import annotations

from typing import Any

import optax

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.ops.numeric import is_off


def steps_per_epoch(config: TrainConfig, num_rows: int) -> int:
  """The number of steps in which every row (positive, or user) is seen once."""
  return -(-num_rows // config.batch_size) if config.batch_size else 1


def make_optimizer(
  config: TrainConfig, *, num_rows: int, multiple: Any = 1.0
) -> optax.GradientTransformation:
  """AdamW with the configured schedule, warm-up and clipping.

  `plateau` lowers the rate when the mean training loss of `plateau_window` epochs has not fallen
  for more than `plateau_patience` epochs (with a window of 1, PyTorch's ReduceLROnPlateau).

  Args:
    config: numbers among it may be traced. num_rows: rows of an epoch.
    multiple: of the configured learning rate; may be traced.
  """
  learning_rate = config.learning_rate * multiple
  per_epoch = steps_per_epoch(config, num_rows)
  total = (config.decay_epochs or config.epochs) * per_epoch
  if config.schedule == "cosine":
    rate = optax.cosine_decay_schedule(learning_rate, max(total - config.warmup_steps, 1))
  else:
    rate = optax.constant_schedule(learning_rate)
  if config.warmup_steps:
    warmup = optax.linear_schedule(0.0, learning_rate, config.warmup_steps)
    rate = optax.join_schedules([warmup, rate], [config.warmup_steps])
  parts = []
  if not is_off(config.gradient_clip):
    parts.append(optax.clip_by_global_norm(config.gradient_clip))
  parts.append(optax.adamw(rate, weight_decay=config.weight_decay))
  if config.schedule == "plateau":
    parts.append(
      optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor,
        # Counted in windows; Optax acts at its patience, PyTorch (and our setting) beyond it.
        patience=-(-(config.plateau_patience + 1) // config.plateau_window),
        rtol=1e-4,
        accumulation_size=per_epoch * config.plateau_window,
      )
    )
  return optax.chain(*parts)
