"""One training step of fine-tuning, for adapters or all weights: settings, optimizer, state."""

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
from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.finetune.lora import init_lora
from gatrec_jax.lm.finetune.objectives import Objective
from gatrec_jax.lm.finetune.packing import LabelRows, TokenRows
from gatrec_jax.lm.folders.load import LanguageModel

MODES = ("lora", "full")
_INIT = 2**31 - 1  # distinct from any step number

Rows = TokenRows | LabelRows


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
  """Settings of fine-tuning.

  Attributes:
    mode: `lora` trains adapters and freezes the weights; `full` trains all weights in float32.
    learning_rate: the peak rate, reached by linear warmup over `warmup_share` of the steps and
      followed by a cosine decay to 0.
    weight_decay: of matrices, as in AdamW.
    clip_norm: largest norm of a step's gradient; 0 for no clipping.
    epochs: passes over the examples. steps: of the optimizer; if above 0, overrides epochs.
    batch_size: rows per forward pass.
    accumulate: forward passes per step; the loss is the mean over all targets of the step.
    max_tokens: most tokens of a row; also limited by the model's context.
    too_long: what to do with longer examples: `error`, or `truncate` prompts on the left.
    packing: whether several completion examples share a row.
    remat: whether to recompute activations in the backward pass, which saves memory.
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
      raise InputError(f"must be one of {', '.join(MODES)}", field="mode", value=self.mode)
    for name in ("batch_size", "accumulate", "evaluate_every"):
      if getattr(self, name) < 1:
        raise InputError("must be at least 1", field=name, value=getattr(self, name))
    if self.max_tokens < 2:
      raise InputError("must be at least 2", field="max_tokens", value=self.max_tokens)
    if not (self.learning_rate > 0 and 0 <= self.warmup_share < 1):
      raise InputError(
        f"learning_rate={self.learning_rate} warmup_share={self.warmup_share}: the rate must be "
        "above 0 and the share in [0, 1)"
      )
    if self.steps < 0 or (self.steps == 0 and self.epochs < 1):
      raise InputError(f"steps={self.steps} epochs={self.epochs}: one of them must be at least 1")


class FinetuneState(NamedTuple):
  """State of fine-tuning, updated by each step.

  Attributes:
    params: float32 tree of the trained parameters: the adapters, or the decoder.
    optimizer: optax state.
    step: [] int32, steps done; together with the seed it determines the dropout.
  """

  params: Any
  optimizer: Any
  step: jax.Array


class StepSpec(NamedTuple):
  """Static arguments of a training step: all that it depends on besides arrays; hashable."""

  decoder: DecoderConfig
  config: FinetuneConfig
  objective: Objective
  total_steps: int
  dtype: str
  attention: str


def make_optimizer(config: FinetuneConfig, total_steps: int) -> optax.GradientTransformation:
  """Gradient clipping and AdamW with linear warmup and cosine decay."""
  warmup = min(round(config.warmup_share * total_steps), total_steps - 1)
  rate = optax.join_schedules(
    [
      # Starts above 0, so that the first step is not wasted.
      optax.linear_schedule(config.learning_rate / (warmup + 1), config.learning_rate, warmup),
      optax.cosine_decay_schedule(config.learning_rate, total_steps - warmup),
    ],
    [warmup],
  )

  def matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

  clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
  return optax.chain(*clip, optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices))


def init_state(model: LanguageModel, spec: StepSpec) -> FinetuneState:
  """Initializes new adapters, or a float32 copy of the decoder, and the optimizer's state."""
  config = spec.config
  if config.mode == "lora":
    key = jax.random.fold_in(jax.random.key(config.seed), _INIT)
    params = init_lora(
      key,
      spec.decoder,
      targets=config.lora_targets,
      rank=config.lora_rank,
      alpha=config.lora_alpha,
      dropout=config.lora_dropout,
    ).params
  else:
    leaves = jax.tree.leaves(model.params, is_leaf=lambda leaf: isinstance(leaf, Packed))
    packed = any(isinstance(leaf, Packed) for leaf in leaves)
    if packed or any(leaf.dtype == jnp.int8 for leaf in leaves):
      raise InputError(
        f"{'packed' if packed else 'int8'} weights cannot be trained; load the model with "
        "`quantize=none`",
        field="mode",
        value="full",
      )
    # Always a copy, because the step donates its buffers.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), model.params)
  optimizer = make_optimizer(config, spec.total_steps)
  return FinetuneState(params, optimizer.init(params), jnp.int32(0))


@functools.partial(jax.jit, static_argnames=("spec",), donate_argnames=("state",))
def train_step(
  state: FinetuneState, base: Any, rows: Rows, *, spec: StepSpec
) -> tuple[FinetuneState, dict[str, jax.Array]]:
  """Runs one optimizer step.

  Args:
    state: is donated.
    base: frozen parameters of the decoder; None in mode `full`.
    rows: arrays with two leading axes, [accumulate, batch_size].
    spec: static.
  Returns:
    The new state, and metrics: `loss`, the mean over all targets of the step; `targets`, their
    number; and `gradient_norm`, before clipping.
  """
  config = spec.config
  step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  with_dropout = config.mode == "lora" and config.lora_dropout > 0

  def add(sums: Any, part: tuple[Rows, jax.Array]) -> tuple[Any, None]:
    key = jax.random.fold_in(step_key, part[1]) if with_dropout else None

    def value(params: Any) -> tuple[jax.Array, jax.Array]:
      return _loss_sum(params, base, part[0], key, spec=spec)

    (loss, targets), gradient = jax.value_and_grad(value, has_aux=True)(state.params)
    return jax.tree.map(jnp.add, sums, (loss, targets, gradient)), None

  zero = (jnp.float32(0), jnp.int32(0), jax.tree.map(jnp.zeros_like, state.params))
  numbers = jnp.arange(config.accumulate)
  (loss, targets, gradient), _ = jax.lax.scan(add, zero, (rows, numbers))
  share = 1 / jnp.maximum(targets, 1).astype(jnp.float32)
  gradient = jax.tree.map(lambda leaf: leaf * share, gradient)
  optimizer = make_optimizer(config, spec.total_steps)
  updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
  metrics = {"loss": loss * share, "targets": targets, "gradient_norm": optax.global_norm(gradient)}
  params = optax.apply_updates(state.params, updates)
  return FinetuneState(params, optimizer_state, state.step + 1), metrics


@functools.partial(jax.jit, static_argnames=("spec",))
def evaluate_rows(
  params: Any, base: Any, rows: Rows, *, spec: StepSpec
) -> tuple[jax.Array, jax.Array]:
  """Returns the summed loss of [batch_size, …] rows without dropout, and the number of targets."""
  return _loss_sum(params, base, rows, None, spec=spec)


def _loss_sum(
  params: Any, base: Any, rows: Rows, dropout_key: jax.Array | None, *, spec: StepSpec
) -> tuple[jax.Array, jax.Array]:
  config, lora = spec.config, None
  if config.mode == "lora":
    scale = config.lora_alpha / config.lora_rank
    params, lora = base, Lora(params, scale, config.lora_dropout)
  else:
    params = jax.tree.map(lambda leaf: leaf.astype(spec.dtype), params)
  where_in_row = (
    {"lengths": rows.lengths}
    if isinstance(rows, LabelRows)
    else {"segments": rows.segments, "positions": rows.positions}
  )
  hidden = hidden_states(
    params,
    rows.tokens,
    config=spec.decoder,
    lora=lora,
    dropout_key=dropout_key,
    remat=config.remat,
    attention=spec.attention,
    **where_in_row,
  )
  head = functools.partial(logits_of, params, config=spec.decoder)
  values, where = spec.objective(hidden, head, rows)
  return jnp.sum(jnp.where(where, values, 0.0)), where.sum(dtype=jnp.int32)
