"""Objectives of fine-tuning: hand-solved values, masks, extremes, vmap, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gatrec_jax.lm.finetune import losses as lm_losses

LISTWISE = (lm_losses.listwise_softmax_loss, lm_losses.listnet_loss, lm_losses.ranknet_loss)


def logits_of(probabilities):
  return jnp.log(jnp.array(probabilities, jnp.float32))


def test_next_token_loss_by_hand():
  # Row 0: p(1 | 0) = .5 and p(2 | 0 1) = .25; row 1: only its last token is a target, p = .1.
  logits = logits_of(
    [
      [[0.3, 0.5, 0.2], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]],
      [[0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]],
    ]
  )
  tokens = jnp.array([[0, 1, 2], [2, 1, 0]])
  where = jnp.array([[False, True, True], [False, False, True]])
  losses = lm_losses.next_token_loss(logits, tokens, where=where)
  np.testing.assert_allclose(losses, [-np.log(0.5 * 0.25) / 2, -np.log(0.1)], rtol=1e-6)
  each = lm_losses.target_losses(logits[0, :2], tokens[0, 1:])
  np.testing.assert_allclose(each, [-np.log(0.5), -np.log(0.25)], rtol=1e-6)


def test_the_first_token_and_masked_rows_do_not_count():
  logits = logits_of(np.full((2, 3, 4), 0.25))
  tokens = jnp.zeros((2, 3), jnp.int32)
  where = jnp.array([[True, True, False], [True, False, False]])
  losses = lm_losses.next_token_loss(logits, tokens, where=where)
  np.testing.assert_allclose(losses, [np.log(4), 0.0], rtol=1e-6)


def test_label_loss_is_over_allowed_labels():
  logits = logits_of([[0.1, 0.3, 0.6], [0.1, 0.3, 0.6], [0.1, 0.3, 0.6]])
  where = jnp.array([[True, True, True], [True, True, False], [True, True, False]])
  losses = lm_losses.label_loss(logits, jnp.array([1, 1, 2]), where=where)
  np.testing.assert_allclose(losses, [-np.log(0.3), -np.log(0.75), 0.0], rtol=1e-5)


def test_softmax_loss_by_hand():
  logits = logits_of([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
  relevance = jnp.array([[1.0, 3.0, 0.0], [0.0, 7.0, 9.0]])
  where = jnp.array([[True, True, True], [True, True, False]])
  losses = lm_losses.listwise_softmax_loss(logits, relevance, where=where)
  np.testing.assert_allclose(
    losses, [-0.25 * np.log(0.2) - 0.75 * np.log(0.3), -np.log(0.3 / 0.5)], rtol=1e-5
  )


def test_softmax_loss_of_one_relevant_is_label_loss():
  logits = jax.random.normal(jax.random.key(0), (5, 4))
  label = jnp.array([0, 1, 2, 3, 0])
  where = jnp.ones((5, 4), bool)
  np.testing.assert_allclose(
    lm_losses.listwise_softmax_loss(logits, jax.nn.one_hot(label, 4), where=where),
    lm_losses.label_loss(logits, label, where=where),
    rtol=1e-6,
  )


def test_listnet_loss_by_hand():
  # softmax(log 1, log 3) = (1/4, 3/4).
  relevance = jnp.log(jnp.array([[1.0, 3.0, 99.0]]))
  where = jnp.array([[True, True, False]])
  loss = lm_losses.listnet_loss(logits_of([[0.2, 0.2, 0.6]]), relevance, where=where)
  np.testing.assert_allclose(loss, [np.log(2)], rtol=1e-6)
  loss = lm_losses.listnet_loss(logits_of([[0.1, 0.4, 0.5]]), relevance, where=where)
  np.testing.assert_allclose(loss, [-0.25 * np.log(0.2) - 0.75 * np.log(0.8)], rtol=1e-5)


def test_listnet_is_least_where_scores_equal_relevance():
  relevance = jnp.array([[2.0, 0.0, 1.0]])
  where = jnp.ones((1, 3), bool)
  gradient = jax.grad(lambda s: lm_losses.listnet_loss(s, relevance, where=where).sum())
  np.testing.assert_allclose(gradient(relevance + 5), np.zeros((1, 3)), atol=1e-6)
  assert gradient(jnp.zeros((1, 3)))[0, 0] < -0.1


def test_ranknet_loss_by_hand():
  # Pairs: (0 over 1), (0 over 2), (2 over 1); the masked fourth label forms none.
  scores = jnp.array([[2.0, 0.0, 1.0, 9.0]])
  relevance = jnp.array([[3.0, 0.0, 1.0, 2.0]])
  where = jnp.array([[True, True, True, False]])
  loss = lm_losses.ranknet_loss(scores, relevance, where=where)
  expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(-1))])
  np.testing.assert_allclose(loss, [expected], rtol=1e-6)
  tied = lm_losses.ranknet_loss(scores, jnp.ones((1, 4)), where=where)
  assert tied.tolist() == [0.0]


@pytest.mark.parametrize("loss", LISTWISE)
def test_extreme_scores_and_empty_rows_have_finite_values_and_gradients(loss):
  scores = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [3.0, 1.0, 2.0]])
  relevance = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
  where = jnp.array([[True, True, True], [True, True, True], [False, False, False]])
  value, gradient = jax.vmap(
    jax.value_and_grad(lambda s, r, w: loss(s[None], r[None], where=w[None])[0])
  )(scores, relevance, where)
  assert np.isfinite(value).all() and np.isfinite(gradient).all()
  assert value[2] == 0 and not np.any(gradient[2])
  assert value[1] > 5000 and gradient[1, 0] < -0.1
  assert value[0] < value[1]
  np.testing.assert_array_equal(value, loss(scores, relevance, where=where))


def test_masked_garbage_changes_nothing():
  scores = jnp.array([[1.0, 2.0, jnp.inf], [1.0, 2.0, jnp.nan]])
  relevance = jnp.array([[0.0, 1.0, jnp.inf], [0.0, 1.0, jnp.nan]])
  where = jnp.array([[True, True, False]] * 2)
  for loss in LISTWISE:
    value, gradient = jax.value_and_grad(
      lambda s, loss=loss: loss(s, relevance, where=where).sum()
    )(scores)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    clean = loss(scores[:, :2], relevance[:, :2], where=where[:, :2]).sum()
    np.testing.assert_allclose(value, clean, rtol=1e-6)


def test_extreme_logits_of_tokens():
  logits = jnp.array([[[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]]])
  tokens = jnp.array([[0, 0, 0]])
  where = jnp.ones((1, 3), bool)

  def loss(logits):
    return lm_losses.next_token_loss(logits, tokens, where=where)[0]

  value, gradient = jax.value_and_grad(loss)(logits)
  assert value == 1e4
  assert np.isfinite(gradient).all() and gradient[0, 1, 0] == -0.5
  labels = lm_losses.label_loss(logits[0], jnp.array([0, 0, 0]), where=jnp.ones((3, 2), bool))
  np.testing.assert_allclose(labels, [0, 2e4, np.log(2)], rtol=1e-6)


def test_label_loss_of_fully_masked_rows_has_zero_gradient():
  where = jnp.zeros((2, 3), bool)
  value, gradient = jax.value_and_grad(
    lambda s: lm_losses.label_loss(s, jnp.array([0, 2]), where=where).sum()
  )(jnp.array([[1e4, 0.0, 1.0], [0.0, 0.0, 0.0]]))
  assert value == 0 and not np.any(gradient)


def test_bfloat16_logits_give_float32_losses():
  logits = jax.random.normal(jax.random.key(1), (2, 3, 8), jnp.bfloat16)
  tokens = jnp.ones((2, 3), jnp.int32)
  losses = lm_losses.next_token_loss(logits, tokens, where=tokens > 0)
  assert losses.dtype == jnp.float32
  exact = lm_losses.next_token_loss(logits.astype(jnp.float32), tokens, where=tokens > 0)
  np.testing.assert_array_equal(losses, exact)


@pytest.mark.parametrize("loss", LISTWISE)
def test_gradients_equal_finite_differences(loss):
  key = jax.random.key(2)
  scores = jax.random.normal(key, (3, 4))
  relevance = jnp.array([[0.0, 1.0, 2.0, 0.0]] * 3)
  where = jnp.array([[True, True, True, False], [True] * 4, [False, True, True, False]])
  check_grads(lambda s: loss(s, relevance, where=where), (scores,), order=1, modes=["rev"])
