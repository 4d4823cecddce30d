"""Training gives the same by every implementation of attention, and nearly so in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers.programs import toy_ratings

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.ops.attention.selection import name_of
from gatrec_jax.train import start_training, train_epochs


@functools.cache
def toy_start():
  """Ratings, texts and one start for all: parameters do not depend on how attention is computed."""
  rows = toy_ratings()
  text = np.random.default_rng(1).normal(size=(21, 5)).astype(np.float32)
  recommender, inputs, config = toy_inputs(rows, text, attention_impl="segment")
  return rows, text, start_training(inputs, recommender=recommender, config=config)


def toy_inputs(rows, text, **fields):
  config = TrainConfig(schedule="constant", epochs=2, learning_rate=1e-2)
  own = dict(
    node_features="projected",
    feature_width=8,
    layer_widths=(6,),
    heads=(2,),
    loss="softmax",
    attention_dropout=0.2,
    feature_dropout=0.1,
  )
  settings = replaced(ModelConfig(), own | fields)
  recommender = GatRecommender(settings, rows.num_users, rows.num_items)
  inputs = make_inputs(recommender, rows, text=text)
  return recommender, inputs, config


@functools.cache
def trained(**fields):
  """Which implementation, the losses of two epochs with dropout, and the state behind them."""
  rows, text, start = toy_start()
  recommender, inputs, config = toy_inputs(rows, text, **fields)
  state, losses = train_epochs(
    jax.tree.map(jnp.copy, start), inputs, recommender=recommender, config=config, num_epochs=2
  )
  return name_of(inputs.own.layout), np.asarray(losses), state


def test_both_train_the_same():
  (name, losses, state), (other, same, other_state) = (
    trained(attention_impl=name) for name in ("segment", "dense")
  )
  assert (name, other) == ("segment", "dense")
  assert losses.size == 2 and losses[0] != losses[1]
  np.testing.assert_allclose(same, losses, rtol=1e-5)
  # Adam's first step divides a gradient by its size, so that one of nearly 0 may turn its sign.
  near = [
    np.isclose(a, b, atol=1e-5).mean()
    for a, b in zip(*map(jax.tree.leaves, (state.params, other_state.params)), strict=True)
  ]
  assert np.mean(near) > 0.9


def test_bfloat16_is_near_and_parameters_stay_float32():
  _, losses, _ = trained(attention_impl="segment")
  _, found, state = trained(attention_impl="segment", compute_dtype="bfloat16")
  np.testing.assert_allclose(found, losses, rtol=0.02)
  assert not np.array_equal(found, losses)  # something was computed in bfloat16
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state.params))
  moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
  assert moments and all(leaf.dtype == np.float32 for leaf in moments)
