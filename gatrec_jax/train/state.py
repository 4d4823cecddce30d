"""Training state, the data of a step, the optimiser, and epochs as one compiled program."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax

from gatrec_jax.config import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.gat import GatRecommender
from gatrec_jax.train.losses import hybrid_loss
from gatrec_jax.train.negatives import NegativeSampler, draw_negatives, make_sampler


class TrainState(NamedTuple):
  """What a step changes.

  Attributes:
    params: of `GatRecommender`.
    optimizer: optax state.
    step: [] int32, steps done; with the seed it determines every random draw that follows.
  """

  params: Any
  optimizer: Any
  step: jax.Array


class TrainingData(NamedTuple):
  """What a step reads, as arrays on device.

  Attributes:
    graph: training ratings, of `bipartite_graph`.
    text: [U + I, D] float32 text vectors.
    user, item: [P] int32, the positive pairs; items counted from 0.
    sampler: of negatives.
  """

  graph: jraph.GraphsTuple
  text: jax.Array
  user: jax.Array
  item: jax.Array
  sampler: NegativeSampler


def make_training_data(
  train: Interactions,
  graph: jraph.GraphsTuple,
  text: np.ndarray,
  *,
  config: TrainConfig,
  positive_threshold: float,
  negative_threshold: float,
) -> TrainingData:
  """Puts on device what training needs. Row order in `train` has no effect on the result.

  Args:
    train: training rows only.
    graph: their graph.
    text: [U + I, D] float32.
    config: which negatives.
    positive_threshold, negative_threshold: what counts as liked and as disliked.
  Raises:
    InputError: no positive among the training rows.
  """
  liked = train.rating >= positive_threshold
  if not liked.any():
    raise InputError(
      f"positive_threshold={positive_threshold}: no training rating reaches it, so there is "
      "nothing to learn; lower it"
    )
  user, item = train.user[liked], train.item[liked]
  order = np.lexsort((item, user))
  sampler = make_sampler(
    train,
    mode=config.negatives,
    positive_threshold=positive_threshold,
    negative_threshold=negative_threshold,
    popularity_power=config.popularity_power,
    explicit_share=config.explicit_share,
  )
  data = TrainingData(
    graph=graph,
    text=jnp.asarray(text, jnp.float32),
    user=jnp.asarray(user[order], jnp.int32),
    item=jnp.asarray(item[order], jnp.int32),
    sampler=sampler,
  )
  return jax.tree.map(jnp.asarray, data)


def make_model(config: ModelConfig, *, num_users: int, num_items: int) -> GatRecommender:
  """The Flax module for a catalogue of that size."""
  return GatRecommender(config, num_users, num_items)


def steps_per_epoch(config: TrainConfig, num_positives: int) -> int:
  """Steps in which every positive is seen once."""
  return -(-num_positives // config.batch_size) if config.batch_size else 1


def make_optimizer(config: TrainConfig, *, num_positives: int) -> optax.GradientTransformation:
  """AdamW with the configured schedule, warm-up and clipping.

  `plateau` lowers the rate when the mean training loss of `plateau_window` epochs has not fallen
  for more than `plateau_patience` epochs (with a window of 1, PyTorch's ReduceLROnPlateau).
  """
  per_epoch = steps_per_epoch(config, num_positives)
  total = config.epochs * per_epoch
  if config.schedule == "cosine":
    rate = optax.cosine_decay_schedule(
      config.learning_rate, max(total - config.warmup_steps, 1)
    )
  else:
    rate = optax.constant_schedule(config.learning_rate)
  if config.warmup_steps:
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    rate = optax.join_schedules([warmup, rate], [config.warmup_steps])
  parts = [optax.clip_by_global_norm(config.gradient_clip)] if config.gradient_clip else []
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


def init_state(
  data: TrainingData, *, model: GatRecommender, config: TrainConfig
) -> TrainState:
  """Fresh parameters and optimiser state from `config.seed`."""
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  params = jax.jit(model.init)(key, data.text, data.graph)["params"]
  optimizer = make_optimizer(config, num_positives=data.user.shape[0])
  return TrainState(params, jax.jit(optimizer.init)(params), jnp.int32(0))


@partial(
  jax.jit, static_argnames=("model", "config", "num_epochs"), donate_argnames=("state",)
)
def train_epochs(
  state: TrainState,
  data: TrainingData,
  *,
  model: GatRecommender,
  config: TrainConfig,
  num_epochs: int,
) -> tuple[TrainState, jax.Array]:
  """Runs whole epochs as one program.

  Each epoch visits the positives in a new random order, `batch_size` at a time (the last batch of
  an epoch is filled up with masked rows), each step with fresh negatives over the whole graph.

  Args:
    state: donated.
    data: graph, texts, positives.
    model, config, num_epochs: static.
  Returns:
    The new state and the [num_epochs, steps] float32 mean losses.
  """
  num_positives = data.user.shape[0]
  steps = steps_per_epoch(config, num_positives)
  batch = config.batch_size or num_positives
  optimizer = make_optimizer(config, num_positives=num_positives)
  base_key = jax.random.key(config.seed)
  weights = dict(
    bpr_weight=config.bpr_weight,
    cosine_weight=config.cosine_weight,
    l2_weight=config.l2_weight,
  )

  def loss_of(params: Any, rows: jax.Array, where: jax.Array, key: jax.Array) -> jax.Array:
    dropout_key, negative_key = jax.random.split(key)
    vectors = model.apply(
      {"params": params}, data.text, data.graph, deterministic=False,
      rngs={"dropout": dropout_key},
    )  # fmt: skip
    user, item = data.user[rows], data.item[rows]
    negative, possible = draw_negatives(
      negative_key, data.sampler, user, num=config.negatives_per_positive
    )
    items = vectors[model.num_users :]
    losses = hybrid_loss(
      vectors[user], items[item], items[negative], negative_where=possible, where=where, **weights
    )
    return jnp.sum(losses) / jnp.maximum(where.sum(), 1)

  def step(state: TrainState, xs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
    rows, where = xs
    key = jax.random.fold_in(base_key, state.step)
    loss, gradient = jax.value_and_grad(loss_of)(state.params, rows, where, key)
    updates, optimizer_state = optimizer.update(
      gradient, state.optimizer, state.params, value=loss
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, optimizer_state, state.step + 1), loss

  def epoch(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
    rows = jnp.arange(num_positives)
    if steps > 1:
      order_key = jax.random.fold_in(jax.random.fold_in(base_key, 2**31 - 2), state.step)
      rows = jax.random.permutation(order_key, rows)
    rows = jnp.pad(rows, (0, steps * batch - num_positives))
    where = jnp.arange(steps * batch) < num_positives
    return jax.lax.scan(step, state, (rows.reshape(steps, batch), where.reshape(steps, batch)))

  return jax.lax.scan(epoch, state, None, length=num_epochs)


@partial(jax.jit, static_argnames=("model",))
def node_vectors(
  params: Any,
  text: jax.Array,
  graph: jraph.GraphsTuple,
  new_text: jax.Array | None = None,
  *,
  model: GatRecommender,
) -> jax.Array:
  """[U + I + B, D] float32 final vectors without dropout; B users that were not in training."""
  return model.apply({"params": params}, text, graph, new_text=new_text)
