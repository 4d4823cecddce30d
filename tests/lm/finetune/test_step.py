"""Optimizer and settings of fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.finetune.step import FinetuneConfig, make_optimizer


def test_the_learning_rate_rises_then_falls():
  config = FinetuneConfig(learning_rate=1.0, warmup_share=0.25, clip_norm=0.0)
  optimizer = make_optimizer(config, 8)
  params = {"w": jnp.ones((1, 1))}
  state = optimizer.init(params)
  update, rates = jax.jit(optimizer.update), []
  for _ in range(8):
    updates, state = update({"w": jnp.ones((1, 1))}, state, params)
    rates.append(-float(updates["w"][0, 0]))  # with a constant gradient, Adam's step is the rate
  cosine = [0.5 * (1 + np.cos(np.pi * n / 6)) for n in range(6)]
  np.testing.assert_allclose(rates, [1 / 3, 2 / 3, *cosine], rtol=1e-4)


def test_only_matrices_decay():
  config = FinetuneConfig(learning_rate=0.1, weight_decay=0.5, warmup_share=0.0)
  optimizer = make_optimizer(config, 10)
  params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(params), params)
  after = optax.apply_updates(params, updates)
  np.testing.assert_allclose(after["kernel"], np.full((2, 2), 0.95))
  np.testing.assert_array_equal(after["scale"], np.ones(2))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"mode": "qlora"}, "mode=qlora: must be one of lora, full"),
    ({"accumulate": 0}, "accumulate=0: must be at least 1"),
    ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ({"epochs": 0}, "steps=0 epochs=0"),
    ({"max_tokens": 1}, "max_tokens=1"),
  ],
)
def test_invalid_settings_are_reported(fields, message):
  with pytest.raises(InputError, match=message):
    FinetuneConfig(**fields)
