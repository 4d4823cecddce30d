"""Losses: values by hand, masks, extremes, zero vectors, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.ops import losses

# One program a call; operation by operation, compiling takes longer.
bpr_loss, cosine_distance = jax.jit(losses.bpr_loss), jax.jit(losses.cosine_distance)
hybrid_loss = jax.jit(losses.hybrid_loss)


def test_bpr_by_hand():
  got = bpr_loss(jnp.array([1.0, 0.0]), jnp.array([[0.0, 1.0], [0.0, 0.0]]))
  softplus = np.log1p(np.exp([-1.0, 0.0]))
  np.testing.assert_allclose(got, [softplus.mean(), np.log(2)], rtol=1e-6)


def test_bpr_masks_negatives_and_is_zero_without_any():
  negative = jnp.array([[0.0, 50.0], [9.0, 9.0]])
  got = bpr_loss(jnp.zeros(2), negative, where=jnp.array([[True, False], [False, False]]))
  np.testing.assert_allclose(got, [np.log(2), 0.0], rtol=1e-6)


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_bpr_at_extremes_is_finite_with_finite_gradient(gap):
  value, gradient = jax.value_and_grad(lambda s: bpr_loss(s, jnp.zeros((1, 1))).sum())(
    jnp.array([gap])
  )
  assert np.isfinite(value) and np.isfinite(gradient).all()
  np.testing.assert_allclose(value, max(0.0, -gap))


def test_cosine_distance_by_hand_and_at_zero():
  a = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
  b = jnp.array([[0.0, 3.0], [5.0, 0.0], [1.0, 1.0]])
  np.testing.assert_allclose(cosine_distance(a, b), [1.0, 0.0, 1.0], atol=1e-6)
  gradient = jax.grad(lambda a: cosine_distance(a, b).sum())(a)
  assert np.isfinite(gradient).all() and not np.asarray(gradient[2]).any()


def test_hybrid_by_hand_with_every_part():
  user, positive = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])
  negative = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
  got = hybrid_loss(user, positive, negative, bpr_weight=2.0, cosine_weight=0.5, l2_weight=0.1)
  bpr = np.log1p(np.exp([1.0, 0.0])).mean()
  np.testing.assert_allclose(got, [2 * bpr + 0.5 * 1.0 + 0.05 * (1 + 4 + 1)], rtol=1e-6)


def test_hybrid_masked_rows_add_nothing_not_even_to_the_gradient():
  draw = np.random.default_rng(0).normal
  user, positive = jax.device_put(draw(size=(3, 4))), jax.device_put(draw(size=(3, 4)))
  negative = jax.device_put(draw(size=(3, 2, 4)))
  where = jnp.array([True, False, True])

  def total(user):
    return hybrid_loss(user, positive, negative, l2_weight=1.0, where=where).sum()

  gradient = jax.grad(total)(user)
  assert not np.asarray(gradient[1]).any() and np.asarray(gradient[0]).any()
  none = hybrid_loss(user, positive, negative, where=jnp.zeros(3, bool))
  assert not np.asarray(none).any()


def test_vmap_equals_the_batch():
  draw = np.random.default_rng(1).normal
  parts = [jax.device_put(np.float32(draw(size=s))) for s in ((5, 4), (5, 4), (5, 3, 4))]
  single = jax.vmap(lambda u, p, n: hybrid_loss(u[None], p[None], n[None])[0])(*parts)
  np.testing.assert_allclose(single, hybrid_loss(*parts), rtol=1e-5)
