"""The softmax over a draw of the items, against the one over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.softmax_loss import drawn_size, make_targets, popularity_weight_of, softmax_loss

USERS, ITEMS = 30, 60


def made(drawn, popularity_weight=0.0):
  rng = np.random.default_rng(0)
  user, item = np.nonzero((rng.random((USERS, ITEMS)) < 0.2) & (np.arange(ITEMS) != 7))
  train = Interactions.from_indices(
    user, item, rng.integers(1, 6, len(user)), num_users=USERS, num_items=ITEMS
  )
  candidates = np.arange(ITEMS) != 7
  targets = make_targets(
    train,
    Feedback().judge(train.rating),
    relevance="graded",
    propagation="sparse",
    candidates=candidates,
    drawn=drawn,
    popularity_weight=popularity_weight,
  )
  targets = jax.device_put(targets)
  pair = tuple(jax.device_put(np.float32(rng.normal(size=(n, 4)))) for n in (USERS, ITEMS))
  return targets, pair


def losses(targets, pair, drawn, keys, users=USERS):
  def loss(pair, key):
    return softmax_loss(
      pair,
      pair,
      targets,
      jnp.arange(USERS),
      temperature=2.0,
      where=jnp.arange(USERS) < users,
      drawn=drawn,
      key=key,
    )

  return jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(pair, keys)


@pytest.mark.parametrize("popularity_weight", [0.0, 0.5])
def test_a_draw_of_all_candidates_gives_the_whole_softmax(popularity_weight):
  keys = jax.random.split(jax.random.key(0), 1)
  targets, pair = made(0, popularity_weight)
  expected = losses(targets, pair, 0, keys)
  targets, _ = made(ITEMS + 5, popularity_weight)  # more than there are: the rest is padding
  got = losses(targets, pair, ITEMS + 5, keys)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), got, expected)


def test_the_sum_over_a_draw_is_that_over_all_on_average():
  keys = jax.random.split(jax.random.key(0), 3000)
  value, gradient = losses(*made(0), 0, keys[:1], users=1)
  targets, pair = made(30)
  values, gradients = losses(targets, pair, 30, keys, users=1)
  # Of one user the loss is the logarithm of the sum and a constant.
  sums, expected = np.exp(values), np.exp(value[0])
  assert abs(sums.mean() - expected) < 4 * sums.std() / np.sqrt(len(sums))
  # The gradient of the sum, for each item, is that of the logarithm times the sum.
  of_items = (np.asarray(gradients[1]) * sums[:, None, None]).mean(axis=0)
  targets_alone = np.asarray(gradient[1][0]) * expected
  error = (np.asarray(gradients[1]) * sums[:, None, None]).std(axis=0) / np.sqrt(len(sums))
  own = np.asarray(targets.edges.item)[np.asarray(targets.edges.user) == 0]
  others = np.setdiff1d(np.arange(ITEMS), own)
  assert (np.abs(of_items - targets_alone)[others] <= 5 * error[others] + 1e-6).all()
  assert not np.asarray(gradients[1][:, 7]).any()  # no candidate


def test_how_many_items_are_drawn():
  assert drawn_size(0, num_users=6040, num_items=3706) == 0
  assert drawn_size(0, num_users=29_858, num_items=40_981) == 4096
  assert drawn_size(0, num_users=10**6, num_items=10**6) == 4096
  assert drawn_size(100, num_users=10, num_items=1000) == 100


def test_popularity_is_one_more_number_of_both_vectors():
  keys = jax.random.split(jax.random.key(0), 1)
  targets, pair = made(0, 0.5)
  times = np.bincount(np.asarray(targets.edges.item), minlength=ITEMS)
  wider = jnp.ones((USERS, 1)), jax.device_put(np.float32(0.5 * np.log1p(times)))[:, None]
  wider = tuple(jnp.concatenate(both, axis=1) for both in zip(pair, wider, strict=True))
  value, gradient = losses(targets, pair, 0, keys)
  expected, of_wider = losses(made(0)[0], wider, 0, keys)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for one, other in zip(gradient, of_wider, strict=True):
    np.testing.assert_allclose(one, other[..., :4], rtol=1e-4, atol=1e-6)


def test_how_much_popularity_counts():
  assert popularity_weight_of(None, num_items=3706) == 0
  assert popularity_weight_of(None, num_items=40_981) == pytest.approx(0.05)
  assert popularity_weight_of(0.0, num_items=10**6) == 0
