"""Epochs and the optimizer: schedules by hand, batches, keys, no recompilation, donation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.programs import arrays_equal

from gatrec_jax.config.convolutions import FullConvolution
from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.train import state as training

MODEL = ModelConfig(
  node_features="ids", feature_width=8, convolution=FullConvolution(layer_widths=(4,), heads=(2,))
)


def interactions(num_users=12, num_items=9):
  rng = np.random.default_rng(0)
  user, item = np.nonzero(rng.random((num_users, num_items)) < 0.5)
  return Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=rng.integers(1, 6, len(user)).astype(np.float32),
    timestamp=np.zeros(len(user), np.int64),
    user_ids=tuple(map(str, range(num_users))),
    item_ids=tuple(map(str, range(num_items))),
  )


def setup(model=MODEL, **fields):
  rows, config = interactions(), TrainConfig(**{"schedule": "constant", "epochs": 20} | fields)
  recommender = GatRecommender(model, 12, 9)
  inputs = inputs_of(rows, config)
  return (
    training.init_state(inputs, recommender=recommender, config=config),
    inputs,
    recommender,
    config,
  )


def inputs_of(rows, config, positive_threshold=4):
  return training.training_inputs(
    GatRecommender(MODEL, 12, 9),
    rows,
    text=np.zeros((21, 1), np.float32),
    config=config,
    positive_threshold=positive_threshold,
    negative_threshold=2,
  )


def run(epochs, calls=1, **fields):
  state, inputs, recommender, config = setup(**fields)
  losses = []
  for _ in range(calls):
    state, loss = training.train_epochs(
      state, inputs, recommender=recommender, config=config, num_epochs=epochs
    )
    losses.append(loss)
  return state, np.concatenate(losses)


@pytest.mark.parametrize("batch_size", [0, 8])
def test_loss_falls_and_blocks_of_epochs_do_not_matter(batch_size):
  whole, losses = run(6, batch_size=batch_size, learning_rate=0.02)
  halves, again = run(3, calls=2, batch_size=batch_size, learning_rate=0.02)
  assert losses[-1].mean() < losses[0].mean()
  np.testing.assert_array_equal(losses, again)
  assert arrays_equal(jax.tree.leaves(whole), jax.tree.leaves(halves))
  positives = int((interactions().rating >= 4).sum())
  assert losses.shape == (6, -(-positives // 8) if batch_size else 1)
  assert int(whole.step) == losses.size


def test_every_positive_is_seen_once_an_epoch_and_the_fill_counts_nothing():
  """With rate 0 and no negatives' weight, the weighted mean over batches is the full-batch loss."""
  model = replaced(MODEL, {"bpr_weight": 0.0})
  _, full = run(1, model=model, batch_size=0, learning_rate=0.0)
  positives = int((interactions().rating >= 4).sum())
  _, parts = run(1, model=model, batch_size=8, learning_rate=0.0)
  sizes = [min(8, positives - start) for start in range(0, positives, 8)]
  np.testing.assert_allclose(np.average(parts[0], weights=sizes), full[0, 0], rtol=1e-5)


def test_seeds_differ_and_repeat():
  a, b, c = (run(2, seed=s)[1] for s in (0, 0, 1))
  np.testing.assert_array_equal(a, b)
  assert not np.allclose(a, c)


def test_order_of_training_rows_does_not_matter():
  rows = interactions()
  shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
  config = TrainConfig()
  both = [inputs_of(r, config) for r in (rows, shuffled)]
  assert arrays_equal(*(jax.tree.leaves(inputs) for inputs in both))


def test_a_second_block_compiles_nothing():
  state, inputs, recommender, config = setup(batch_size=8)
  state, _ = training.train_epochs(
    state, inputs, recommender=recommender, config=config, num_epochs=1
  )
  before = training._train_epochs._cache_size()
  for _ in range(3):
    state, _ = training.train_epochs(
      state, inputs, recommender=recommender, config=config, num_epochs=1
    )
  assert training._train_epochs._cache_size() == before


def test_the_old_state_is_donated():
  state, inputs, recommender, config = setup()
  training.train_epochs(state, inputs, recommender=recommender, config=config, num_epochs=1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def rates(config, losses, num_rows=10):
  """The learning rates that the optimizer applies, read off steps of a sign-like gradient."""
  optimizer = training.make_optimizer(config, num_rows=num_rows)
  params = jnp.zeros(1)
  state, out = optimizer.init(params), []
  for loss in losses:
    updates, state = optimizer.update(jnp.ones(1), state, params, value=jnp.float32(loss))
    out.append(-float(updates[0]))
  return np.array(out)


def test_plateau_acts_as_pytorch_s():
  config = TrainConfig(learning_rate=1.0, weight_decay=0.0, plateau_patience=2, plateau_factor=0.5)
  got = rates(config, [3, 2, 2, 2, 2, 2, 2, 2])
  # PyTorch lowers the rate after the third epoch without an improvement, for what follows; Optax
  # already within that step.
  np.testing.assert_allclose(got, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25], rtol=1e-4)


def test_plateau_window_averages_noise_away():
  # The mean falls from window to window; the lowest single value stands in the first of them.
  swing = np.repeat(np.linspace(0.5, 0.1, 6), 5) * np.tile([1, -1, 0, 0, 0], 6)
  noisy = np.repeat(np.linspace(2, 1.9, 6), 5) + swing
  config = TrainConfig(learning_rate=1.0, weight_decay=0.0, plateau_patience=5)
  assert rates(config, noisy)[-1] < 0.5
  smooth = TrainConfig(learning_rate=1.0, weight_decay=0.0, plateau_patience=5, plateau_window=5)
  np.testing.assert_allclose(rates(smooth, noisy), 1.0, rtol=1e-4)
  flat = rates(smooth, np.ones(20))
  np.testing.assert_allclose(flat[[13, 14]], [1.0, 0.4], rtol=1e-4)  # two windows without a fall


def test_warmup_and_cosine():
  config = TrainConfig(
    learning_rate=1.0, weight_decay=0.0, schedule="cosine", warmup_steps=4, epochs=12
  )
  got = rates(config, np.ones(12))
  want = [0, 0.25, 0.5, 0.75] + [0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8)]
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_clipping_bounds_the_gradient():
  config = TrainConfig(gradient_clip=1.0, schedule="constant")
  optimizer = training.make_optimizer(config, num_rows=10)
  plain = training.make_optimizer(TrainConfig(schedule="constant"), num_rows=10)
  params = jnp.zeros(2)
  big = jnp.array([300.0, 400.0])
  clipped, _ = optimizer.update(big, optimizer.init(params), params)
  want, _ = plain.update(big / 500, plain.init(params), params)
  np.testing.assert_allclose(clipped, want, rtol=1e-6)
  assert optax.global_norm(big) == 500


def test_nothing_positive():
  rows = interactions()
  with pytest.raises(InputError, match="positive_threshold=9"):
    inputs_of(rows, TrainConfig(), positive_threshold=9)
