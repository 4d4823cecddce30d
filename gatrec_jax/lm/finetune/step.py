"""One step of fine-tuning: settings, optimizer, state, loss over adapters or all weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Lora, hidden_states, logits_of
from gatrec_jax.lm.finetune.lora import init_lora
from gatrec_jax.lm.finetune.objectives import Objective
from gatrec_jax.lm.finetune.packing import LabelRows, TokenRows
from gatrec_jax.lm.folders.load import LanguageModel

MODES = ("lora", "full")
_INIT = 2**31 - 1  # apart from any step number

Rows = TokenRows | LabelRows


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
  """How to fine-tune.

  Attributes:
    mode: `lora` trains adapters beside frozen weights, `full` all weights (kept in float32).
    learning_rate: the highest; it rises over `warmup_share` of the steps, then falls to 0 as a
      cosine.
    weight_decay: of matrices, as in AdamW.
    clip_norm: largest norm of a step's gradient; 0 for none.
    epochs: passes over the examples. steps: of the optimizer; above 0 it takes the place of epochs.
    batch_size: rows that go through the model at once.
    accumulate: such batches in one step; the loss is the mean over all targets of the step.
    max_tokens: in a row, at most the model's context.
    too_long: `error`, or `truncate` to shorten prompts of over-long examples from the left.
    packing: several completion examples share a row.
    remat: activations are computed again in the backward pass, for less memory.
    lora_targets, lora_rank, lora_alpha, lora_dropout: see `init_lora`.
    evaluate_every: steps between checkpoints, each with the loss on the validation examples.
    seed: of adapters, order and dropout.
  """

  mode: str = "lora"
  learning_rate: float = 1e-4
  warmup_share: float = 0.05
  weight_decay: float = 0.0
  clip_norm: float = 1.0
  epochs: int = 1
  steps: int = 0
  batch_size: int = 8
  accumulate: int = 1
  max_tokens: int = 1024
  too_long: str = "error"
  packing: bool = True
  remat: bool = False
  lora_targets: tuple[str, ...] = ("q", "v")
  lora_rank: int = 8
  lora_alpha: float = 32.0
  lora_dropout: float = 0.0
  evaluate_every: int = 100
  seed: int = 0

  def __post_init__(self) -> None:
    if self.mode not in MODES:
      raise InputError(f"mode={self.mode}: must be one of {', '.join(MODES)}")
    for name in ("batch_size", "accumulate", "evaluate_every"):
      if getattr(self, name) < 1:
        raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
    if self.max_tokens < 2:
      raise InputError(f"max_tokens={self.max_tokens}: must be at least 2")
    if not (self.learning_rate > 0 and 0 <= self.warmup_share < 1):
      raise InputError(
        f"learning_rate={self.learning_rate} warmup_share={self.warmup_share}: the rate must be "
        "above 0 and the share in [0, 1)"
      )
    if self.steps < 0 or (self.steps == 0 and self.epochs < 1):
      raise InputError(f"steps={self.steps} epochs={self.epochs}: one of them must be at least 1")


class TrainState(NamedTuple):
  """What a step changes.

  Attributes:
    params: float32 tree of what is trained: the adapters, or the decoder.
    optimizer: optax state.
    step: [] int32, steps done; with the seed it determines the dropout that follows.
  """

  params: Any
  optimizer: Any
  step: jax.Array


class Recipe(NamedTuple):
  """All that a compiled step depends on beside its arrays; hashable."""

  decoder: DecoderConfig
  config: FinetuneConfig
  objective: Objective
  total_steps: int
  dtype: str
  attention: str


def make_optimizer(config: FinetuneConfig, total_steps: int) -> optax.GradientTransformation:
  """Clipping and AdamW under a linear rise and a cosine fall."""
  warmup = min(round(config.warmup_share * total_steps), total_steps - 1)
  rate = optax.join_schedules(
    [
      # The first step is already above 0: it would otherwise be lost.
      optax.linear_schedule(config.learning_rate / (warmup + 1), config.learning_rate, warmup),
      optax.cosine_decay_schedule(config.learning_rate, total_steps - warmup),
    ],
    [warmup],
  )

  def matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

  clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
  return optax.chain(*clip, optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices))


def init_state(model: LanguageModel, recipe: Recipe) -> TrainState:
  """Fresh adapters, or a float32 copy of the decoder, with the optimizer's state."""
  config = recipe.config
  if config.mode == "lora":
    key = jax.random.fold_in(jax.random.key(config.seed), _INIT)
    params = init_lora(
      key,
      recipe.decoder,
      targets=config.lora_targets,
      rank=config.lora_rank,
      alpha=config.lora_alpha,
      dropout=config.lora_dropout,
    ).params
  else:
    if any(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(model.params)):
      raise InputError("mode=full: int8 weights cannot be trained; load the model without int8")
    # A copy in any case, since the step gives its buffers away.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), model.params)
  optimizer = make_optimizer(config, recipe.total_steps)
  return TrainState(params, optimizer.init(params), jnp.int32(0))


@functools.partial(jax.jit, static_argnames=("recipe",), donate_argnames=("state",))
def train_step(
  state: TrainState, base: Any, rows: Rows, *, recipe: Recipe
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step of the optimizer.

  Args:
    state: donated.
    base: frozen parameters of the decoder; None in mode `full`.
    rows: arrays with two leading axes, [accumulate, batch_size].
    recipe: static.
  Returns:
    The new state; `loss`, the mean over all targets of the step, `targets`, their number, and
    `gradient_norm`, before clipping.
  """
  config = recipe.config
  step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  with_dropout = config.mode == "lora" and config.lora_dropout > 0

  def add(sums: Any, part: tuple[Rows, jax.Array]) -> tuple[Any, None]:
    key = jax.random.fold_in(step_key, part[1]) if with_dropout else None

    def value(params):
      return _loss_sum(params, base, part[0], key, recipe=recipe)

    (loss, targets), gradient = jax.value_and_grad(value, has_aux=True)(state.params)
    return jax.tree.map(jnp.add, sums, (loss, targets, gradient)), None

  zero = (jnp.float32(0), jnp.int32(0), jax.tree.map(jnp.zeros_like, state.params))
  numbers = jnp.arange(config.accumulate)
  (loss, targets, gradient), _ = jax.lax.scan(add, zero, (rows, numbers))
  share = 1 / jnp.maximum(targets, 1).astype(jnp.float32)
  gradient = jax.tree.map(lambda leaf: leaf * share, gradient)
  optimizer = make_optimizer(config, recipe.total_steps)
  updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
  metrics = {"loss": loss * share, "targets": targets, "gradient_norm": optax.global_norm(gradient)}
  params = optax.apply_updates(state.params, updates)
  return TrainState(params, optimizer_state, state.step + 1), metrics


@functools.partial(jax.jit, static_argnames=("recipe",))
def evaluate_rows(
  params: Any, base: Any, rows: Rows, *, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
  """Sum of the losses of `rows`, [batch_size, …] arrays, without dropout; number of targets."""
  return _loss_sum(params, base, rows, None, recipe=recipe)


def _loss_sum(
  params: Any, base: Any, rows: Rows, dropout_key: jax.Array | None, *, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
  config, lora = recipe.config, None
  if config.mode == "lora":
    scale = config.lora_alpha / config.lora_rank
    params, lora = base, Lora(params, scale, config.lora_dropout)
  else:
    params = jax.tree.map(lambda leaf: leaf.astype(recipe.dtype), params)
  where_in_row = (
    {"lengths": rows.lengths}
    if isinstance(rows, LabelRows)
    else {"segments": rows.segments, "positions": rows.positions}
  )
  hidden = hidden_states(
    params,
    rows.tokens,
    config=recipe.decoder,
    lora=lora,
    dropout_key=dropout_key,
    remat=config.remat,
    attention=recipe.attention,
    **where_in_row,
  )
  head = functools.partial(logits_of, params, config=recipe.decoder)
  values, where = recipe.objective(hidden, head, rows)
  return jnp.sum(jnp.where(where, values, 0.0)), where.sum(dtype=jnp.int32)
