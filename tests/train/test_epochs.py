"""Epochs as compiled programs: batches, keys, blocks, no recompilation, donation."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import arrays_equal, toy_ratings

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.models import BprMfConfig
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import Batch
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.train import (
  epochs,
  init_state,
  make_optimizer,
  run_epochs,
  start_training,
  train_epochs,
  train_step,
)

GAT = replaced(
  ModelConfig(), dict(node_features="ids", feature_width=8, layer_widths=(4,), heads=(2,))
)
ROWS = 21


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
  scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class OneNumber:
  """A recommender of one number a row, whose loss is that number times its share of a batch."""

  settings: Settings = Settings()

  def num_rows(self, inputs):
    return ROWS

  def init(self, inputs, key):
    return {"value": jnp.arange(1.0, ROWS + 1)}

  def loss(self, params, batch, key, *, inputs):
    values = params["value"][batch.rows] * self.settings.scale
    return jnp.sum(jnp.where(batch.where, values, 0.0)) / jnp.maximum(batch.where.sum(), 1)


def inputs_of(rows, settings=GAT, feedback=Feedback()):
  return make_inputs(
    make_recommender(settings, num_users=12, num_items=9),
    rows,
    text=np.zeros((21, 1), np.float32),
    feedback=feedback,
  )


@functools.cache
def setup(settings=BprMfConfig(width=4)):
  recommender = make_recommender(settings, num_users=12, num_items=9)
  return recommender, inputs_of(toy_ratings(), settings)


def run(num_epochs, calls=1, settings=BprMfConfig(width=4), **fields):
  config = TrainConfig(**{"schedule": "constant", "epochs": 20} | fields)
  recommender, inputs = setup(settings)
  state, losses = start_training(inputs, recommender=recommender, config=config), []
  for _ in range(calls):
    state, loss = train_epochs(
      state, inputs, recommender=recommender, config=config, num_epochs=num_epochs
    )
    losses.append(loss)
  return state, np.concatenate(losses)


# One program for up to so many epochs.
PROGRAM = dict(evaluate_every=6, learning_rate=0.02)


@pytest.mark.parametrize("batch_size", [0, 8])
def test_loss_falls_and_blocks_of_epochs_do_not_matter(batch_size):
  whole, losses = run(6, batch_size=batch_size, **PROGRAM)
  halves, again = run(3, calls=2, batch_size=batch_size, **PROGRAM)
  assert losses[-1].mean() < losses[0].mean()
  np.testing.assert_array_equal(losses, again)
  assert arrays_equal(jax.tree.leaves(whole), jax.tree.leaves(halves))
  positives = int((toy_ratings().rating >= 4).sum())
  assert losses.shape == (6, -(-positives // 8) if batch_size else 1)
  assert int(whole.step) == losses.size


@pytest.mark.parametrize("batch_size", [0, 8])
def test_one_program_serves_short_blocks_and_any_number_of_epochs(batch_size):
  fields = dict(batch_size=batch_size, **PROGRAM)
  whole, losses = run(6, **fields)
  before = epochs._run_epochs._cache_size(), epochs._new_state._cache_size()
  part, first = run(3, **fields, epochs=11, patience=3)
  assert first.shape == losses[:3].shape
  np.testing.assert_array_equal(first, losses[:3])
  recommender, inputs = setup()
  config = TrainConfig(schedule="constant", select_on="last", **fields)
  rest, last = train_epochs(part, inputs, recommender=recommender, config=config, num_epochs=3)
  assert before == (epochs._run_epochs._cache_size(), epochs._new_state._cache_size())
  np.testing.assert_array_equal(last, losses[3:])
  assert arrays_equal(jax.tree.leaves(rest), jax.tree.leaves(whole))


def test_the_epochs_of_a_decay_do_matter():
  fields = dict(schedule="cosine", learning_rate=0.1, warmup_steps=0)
  long = run(4, **fields, epochs=20)[1]
  np.testing.assert_array_equal(long, run(4, **fields, epochs=4, decay_epochs=20)[1])
  assert not np.allclose(long, run(4, **fields, epochs=4)[1])


def test_every_row_is_seen_once_an_epoch_in_a_new_order_and_padding_counts_nothing():
  config = TrainConfig(batch_size=8, learning_rate=0.0, schedule="constant")
  recommender = OneNumber()
  state = epochs.new_state(None, recommender=recommender, config=config)
  _, losses = run_epochs(
    state, None, recommender=recommender, config=config, num_epochs=3, most_epochs=3
  )
  sums = np.asarray(losses) * np.array([8, 8, 5])
  np.testing.assert_allclose(sums.sum(axis=1), ROWS * (ROWS + 1) / 2, rtol=1e-5)
  assert len({tuple(row) for row in sums.round(2).tolist()}) == 3


def test_seeds_of_a_gat_differ_and_repeat_compile_nothing_and_the_old_state_is_donated():
  first, again, other = (run(2, settings=GAT, seed=seed)[1] for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other)
  before = epochs._run_epochs._cache_size()
  run(2, calls=3, settings=GAT, seed=2, learning_rate=0.1)
  assert epochs._run_epochs._cache_size() == before
  recommender, inputs = setup(GAT)
  config = TrainConfig(schedule="constant", epochs=20)
  state = start_training(inputs, recommender=recommender, config=config)
  train_epochs(state, inputs, recommender=recommender, config=config, num_epochs=2)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_an_epoch_is_train_step_with_the_recommender_s_loss():
  config = TrainConfig(schedule="constant", learning_rate=0.02)
  recommender, inputs = setup()
  trained, losses = run(2, **PROGRAM)
  rows = recommender.num_rows(inputs)
  optimizer = make_optimizer(config, num_rows=rows)
  step = jax.jit(train_step(partial(recommender.loss, inputs=inputs), optimizer))
  params = start_training(inputs, recommender=recommender, config=config).params
  state = init_state(params, optimizer)
  for number in range(2):
    batch = Batch(jnp.arange(rows), jnp.ones(rows, bool), state.step)
    state, metrics = step(state, batch, jax.random.fold_in(jax.random.key(0), number))
    assert metrics["loss"] == pytest.approx(losses[number, 0], abs=1e-6)
  for ours, theirs in zip(*map(jax.tree.leaves, (state.params, trained.params)), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_order_of_training_rows_does_not_matter():
  rows = toy_ratings()
  shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
  both = [inputs_of(one) for one in (rows, shuffled)]
  assert arrays_equal(*(jax.tree.leaves(inputs) for inputs in both))


def test_nothing_positive():
  with pytest.raises(InputError, match="positive_threshold=9"):
    inputs_of(toy_ratings(), feedback=Feedback(9.0))
