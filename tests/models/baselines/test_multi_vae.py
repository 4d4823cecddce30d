"""MultiVAE: the loss by hand, empty users, annealing, traced settings, planted data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gatrec_jax.config.models import MultiVaeConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines.multi_vae import MultiVaeRecommender, kl_weight_at
from gatrec_jax.models.inputs import Batch, NewUsers

TINY = MultiVaeConfig(
  hidden_widths=(), latent_width=1, input_dropout=0.0, kl_weight=1.0, anneal_steps=0
)


def setup(matrix, settings):
  user, item = np.nonzero(matrix)
  train = Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=np.ones(len(user), np.float32),
    timestamp=np.zeros(len(user), np.int64),
    user_ids=tuple(map(str, range(matrix.shape[0]))),
    item_ids=tuple(map(str, range(matrix.shape[1]))),
  )
  recommender = MultiVaeRecommender(settings, *matrix.shape)
  return recommender, make_inputs(
    recommender, train, text=np.zeros((1, 1)), feedback=Feedback(1.0, 0.0)
  )


def traced_loss(recommender, params, inputs, rows, *, where=None, step=0, key=0):
  rows = jnp.asarray(rows, jnp.int32)
  where = jnp.ones(rows.shape, bool) if where is None else jnp.asarray(where)
  batch = Batch(rows, where, jnp.int32(step))
  return recommender.loss(params, batch, jax.random.key(key), inputs=inputs)


loss_of = jax.jit(traced_loss, static_argnums=0)


def zero_params(items, *, mean=0.0, log_variance=0.0):
  """An encoder that always gives this code, and a decoder that gives every item the score 0."""
  return {
    "encoder": {
      "0": {"kernel": np.zeros((items, 2), np.float32), "bias": np.float32([mean, log_variance])}
    },
    "decoder": {
      "0": {"kernel": np.zeros((1, items), np.float32), "bias": np.zeros(items, np.float32)}
    },
  }


MATRIX = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_loss_by_hand():
  recommender, inputs = setup(MATRIX, TINY)
  # The standard normal code costs nothing; each of a user's items has the likelihood ¼.
  for key in (0, 1):
    got = loss_of(recommender, zero_params(4), inputs, np.array([0, 1]), key=key)
    np.testing.assert_allclose(got, (2 + 1) * np.log(4) / 2, rtol=1e-6)
  # KL of N(2, e) is ½ (e + 4 − 1 − 1), once for each of the two users.
  got = loss_of(recommender, zero_params(4, mean=2.0, log_variance=1.0), inputs, np.array([0, 1]))
  np.testing.assert_allclose(got, 1.5 * np.log(4) + 0.5 * (np.e + 2), rtol=1e-6)


def test_loss_with_a_decoder_that_prefers_items():
  recommender, inputs = setup(MATRIX, TINY)
  params = zero_params(4)
  params["decoder"]["0"]["bias"] = np.float32([1.0, 0.0, -1.0, 2.0])
  share = np.exp([1.0, 0.0, -1.0, 2.0]) / np.exp([1.0, 0.0, -1.0, 2.0]).sum()
  np.testing.assert_allclose(
    loss_of(recommender, params, inputs, np.array([0])), -np.log(share[:2]).sum(), rtol=1e-6
  )


def test_scores_come_from_the_mean_of_the_code_of_the_unit_history():
  recommender, inputs = setup(MATRIX, TINY)
  encoder = np.array([[1.0, 9.0], [3.0, -9.0], [5.0, 9.0], [7.0, 9.0]])
  decoder = np.array([[1.0, -2.0, 0.5, 0.0]])
  bias = np.array([0.0, 1.0, 0.0, 0.0])
  params = {
    "encoder": {"0": {"kernel": np.float32(encoder), "bias": np.float32([0.5, 0.0])}},
    "decoder": {"0": {"kernel": np.float32(decoder), "bias": np.float32(bias)}},
  }
  got = recommender.score(recommender.serving_state(params, inputs), np.array([0, 1, 2]))
  means = np.array([[(1 + 3) / np.sqrt(2) + 0.5], [5 + 0.5], [0.5]])
  np.testing.assert_allclose(got, means @ decoder + bias, rtol=1e-5)
  new = NewUsers(
    [np.array([1, 0]), np.array([], int)], [np.array([], int)] * 2, np.zeros((2, 1)), 5.0, 1.0
  )
  got_new = recommender.score_new(params, inputs, None, new)
  np.testing.assert_allclose(got_new, np.asarray(got)[[0, 2]], rtol=1e-6)


def test_rows_that_do_not_count_and_empty_users():
  settings = dataclasses.replace(TINY, hidden_widths=(5,), latent_width=3)
  recommender, inputs = setup(MATRIX, settings)
  params = jax.jit(recommender.init)(inputs, jax.random.key(0))
  value_and_grad = jax.jit(
    jax.value_and_grad(
      lambda params, inputs, rows, where: traced_loss(
        recommender, params, inputs, rows, where=where
      )
    )
  )

  def grad(params, rows, where):
    return value_and_grad(params, inputs, np.array(rows), np.array(where))

  alone, alone_grad = grad(params, [2, 2, 2, 2], [True] * 4)
  assert alone == 0 and not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(alone_grad))
  # The rows of a batch draw in order, so the first two draw the same with a fourth that is masked.
  three, three_grad = grad(params, [0, 1, 2, 3], [True, True, True, False])
  again, again_grad = grad(params, [0, 1, 2, 1], [True, True, True, False])
  assert np.isfinite(three) and three > 0
  np.testing.assert_allclose(three, again, rtol=1e-6)
  for left, right in zip(jax.tree.leaves(three_grad), jax.tree.leaves(again_grad), strict=True):
    assert np.isfinite(np.asarray(left)).all()
    np.testing.assert_allclose(left, right, atol=1e-7)
  two, _ = grad(params, [0, 1, 2, 3], [True, True, False, False])
  np.testing.assert_allclose(three * 3, two * 2, rtol=1e-6)
  none, none_grad = grad(params, [0, 1, 2, 0], [False] * 4)
  assert none == 0 and np.isfinite(jax.tree.leaves(none_grad)[0]).all()


@pytest.mark.parametrize(
  ("step", "anneal_steps", "expected"),
  [(0, 10, 0.0), (5, 10, 0.2), (10, 10, 0.4), (50, 10, 0.4), (0, 0, 0.4)],
)
def test_annealing(step, anneal_steps, expected):
  got = kl_weight_at(jnp.int32(step), kl_weight=0.4, anneal_steps=anneal_steps)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  settings = dataclasses.replace(TINY, kl_weight=0.4, anneal_steps=anneal_steps)
  recommender, inputs = setup(MATRIX, settings)
  loss = loss_of(recommender, zero_params(4, mean=2.0), inputs, np.array([1]), step=step)
  np.testing.assert_allclose(loss, np.log(4) + expected * 2, rtol=1e-6)


def test_dropout_rate_may_be_traced_and_hides_items():
  settings = dataclasses.replace(TINY, hidden_widths=(6,), latent_width=2)
  _, inputs = setup(MATRIX, settings)

  def loss(rate, kl_weight, params):
    recommender = MultiVaeRecommender(
      dataclasses.replace(settings, input_dropout=rate, kl_weight=kl_weight), *MATRIX.shape
    )
    return traced_loss(recommender, params, inputs, np.array([0, 1]))

  params = jax.jit(MultiVaeRecommender(settings, *MATRIX.shape).init)(inputs, jax.random.key(1))
  alone = [jax.jit(loss, static_argnums=0)(rate, 0.3, params) for rate in (0.0, 0.8)]
  mapped = jax.jit(jax.vmap(loss, (0, None, None)))(np.float32([0.0, 0.8]), 0.3, params)
  np.testing.assert_allclose(mapped, alone, rtol=1e-5)
  assert len({float(value) for value in alone}) > 1


def test_init_has_the_stated_shapes_and_scales():
  recommender, inputs = setup(
    np.ones((2, 300)), MultiVaeConfig(hidden_widths=(40,), latent_width=8)
  )
  params = jax.jit(recommender.init)(inputs, jax.random.key(0))
  shapes = jax.tree.map(jnp.shape, params)
  widths = {"encoder": [300, 40, 16], "decoder": [8, 40, 300]}
  for part, sizes in widths.items():
    for layer, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
      assert shapes[part][str(layer)] == {"kernel": (before, after), "bias": (after,)}
  assert (
    jax.tree.map(jnp.shape, jax.eval_shape(recommender.init, inputs, jax.random.key(0))) == shapes
  )
  kernel = np.asarray(params["encoder"]["0"]["kernel"])
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 340), rtol=0.05)
  bias = np.asarray(params["decoder"]["1"]["bias"])
  assert 0 < np.abs(bias).max() <= 2e-3


def test_learns_planted_groups():
  # Two groups of 30 items; each user has 12 of one group: the other 18 should come before the 30.
  rng, users = np.random.default_rng(0), 60
  matrix = np.zeros((users, 60), int)
  for user in range(users):
    matrix[user, rng.permutation(30)[:12] + 30 * (user % 2)] = 1
  settings = MultiVaeConfig(hidden_widths=(16,), latent_width=4, anneal_steps=20)
  recommender, inputs = setup(matrix, settings)
  optimizer = optax.adam(1e-2)

  @jax.jit
  def train(inputs):
    params = recommender.init(inputs, jax.random.key(2))

    def one_step(carry, step):
      params, state = carry
      key = jax.random.fold_in(jax.random.key(0), step)
      batch = Batch(jnp.arange(users), jnp.ones(users, bool), step)
      value, gradient = jax.value_and_grad(recommender.loss)(params, batch, key, inputs=inputs)
      updates, state = optimizer.update(gradient, state)
      return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(one_step, (params, optimizer.init(params)), jnp.arange(80))
    return params, values

  assert recommender.num_rows(inputs) == users
  params, values = train(inputs)
  assert values[-1] < values[0] - 5
  scores = np.asarray(
    jax.jit(recommender.score)(recommender.serving_state(params, inputs), jnp.arange(users))
  )
  group = (np.arange(60) // 30)[None] == (np.arange(users) % 2)[:, None]
  unseen = matrix == 0
  right = [
    (scores[user][group[user] & unseen[user]][:, None] > scores[user][~group[user]]).mean()
    for user in range(users)
  ]
  assert np.mean(right) > 0.95
