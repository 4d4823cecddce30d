"""The composable step: any loss, any optimizer, several seeds at once, no configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gatrec_jax.train import init_state, train_step

X = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])
Y = jnp.array([1.0, 0.0, 2.0])


def squares(params, batch, key):
  """Least squares with noise on the targets, so that the key matters."""
  x, y = batch
  error = x @ params["w"] - y - 0.1 * jax.random.normal(key, y.shape)
  return (error**2).mean(), {"error": jnp.abs(error).max()}


def trained(params, key, *, optimizer, steps=5):
  step, state = train_step(squares, optimizer), init_state(params, optimizer)

  def one(state, key):
    return step(state, (X, Y), key)

  return jax.lax.scan(one, state, jax.random.split(key, steps))


def test_a_step_of_gradient_descent_by_hand():
  optimizer, key = optax.sgd(0.1), jax.random.key(0)
  state = init_state({"w": jnp.zeros(2)}, optimizer)
  new, metrics = jax.jit(train_step(squares, optimizer))(state, (X, Y), key)
  target = Y + 0.1 * jax.random.normal(key, (3,))
  np.testing.assert_allclose(new.params["w"], 0.1 * 2 * target @ X / 3, rtol=1e-5)
  assert int(new.step) == 1 and int(state.step) == 0
  assert set(metrics) == {"loss", "error"}  # of the parameters before the step
  assert metrics["loss"] == pytest.approx(float((target**2).mean()), rel=1e-5)


def test_a_loss_without_metrics_and_an_optimizer_that_reads_the_loss():
  optimizer = optax.chain(
    optax.sgd(1.0),
    optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=1e-4, accumulation_size=1),
  )
  step = jax.jit(train_step(lambda params, batch, key: jnp.float32(1.0) + 0 * params, optimizer))
  state = init_state(jnp.float32(0.0), optimizer)
  for _ in range(4):
    state, metrics = step(state, None, jax.random.key(0))
  assert set(metrics) == {"loss"} and float(state.opt_state[1].scale) < 1


@pytest.mark.parametrize("optimizer", [optax.sgd(0.05), optax.lion(0.01)], ids=["sgd", "lion"])
def test_seeds_train_together_as_they_do_alone(optimizer):
  keys = jax.random.split(jax.random.key(1), 3)
  params = {"w": jax.random.normal(jax.random.key(2), (3, 2))}
  run = jax.jit(lambda params, key: trained(params, key, optimizer=optimizer))
  states, metrics = jax.vmap(run)(params, keys)
  assert metrics["loss"].shape == (3, 5) and states.step.tolist() == [5, 5, 5]
  for n, key in enumerate(keys):
    alone, own = run({"w": params["w"][n]}, key)
    np.testing.assert_allclose(states.params["w"][n], alone.params["w"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"][n], own["loss"], rtol=1e-5)
  assert (metrics["loss"][:, -1] < metrics["loss"][:, 0]).all()
