"""Schedules, warm-up and clipping of the configured optimizer, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.train import make_optimizer


def rates(config, losses, num_rows=10):
  """The learning rates that the optimizer applies, read off steps of a sign-like gradient."""
  optimizer, params = make_optimizer(config, num_rows=num_rows), jnp.zeros(1)

  def step(state, loss):
    updates, state = optimizer.update(jnp.ones(1), state, params, value=loss)
    return state, -updates[0]

  losses = jnp.asarray(losses, jnp.float32)
  return np.asarray(jax.jit(lambda: jax.lax.scan(step, optimizer.init(params), losses)[1])())


def test_plateau_acts_as_pytorch_s():
  config = TrainConfig(learning_rate=1.0, weight_decay=0.0, plateau_patience=2, plateau_factor=0.5)
  got = rates(config, [3, 2, 2, 2, 2, 2, 2, 2])
  # PyTorch lowers the rate after the third epoch without an improvement, for what follows; Optax
  # already within that step.
  np.testing.assert_allclose(got, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25], rtol=1e-4)


def test_plateau_window_averages_noise_away():
  # The mean falls from window to window; the lowest single value is in the first of them.
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
  optimizer = make_optimizer(config, num_rows=10)
  plain = make_optimizer(TrainConfig(schedule="constant"), num_rows=10)
  params = jnp.zeros(2)
  big = jnp.array([300.0, 400.0])
  clipped, _ = optimizer.update(big, optimizer.init(params), params)
  want, _ = plain.update(big / 500, plain.init(params), params)
  np.testing.assert_allclose(clipped, want, rtol=1e-6)
  assert optax.global_norm(big) == 500
