"""Losses of fine-tuning: hand-solved values, masks, extreme inputs, vmap, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gatrec_jax.lm.finetune import losses, objectives
from gatrec_jax.lm.finetune.packing import TokenRows

# Compiled as wholes: operation by operation, each would be a program of its own.
LABEL_LOSS = jax.jit(losses.label_loss)
SOFTMAX, LISTNET, RANKNET = LISTWISE = tuple(
  map(jax.jit, (losses.listwise_softmax_loss, losses.listnet_loss, losses.ranknet_loss))
)
NAMES = ("softmax", "listnet", "ranknet")


def logits_of(probabilities):
  return np.log(np.array(probabilities, np.float32))


@jax.jit
def next_token(logits, tokens, where):
  """`objectives.next_token` of a head that returns its input: losses, and which of them count."""
  return objectives.next_token(logits, lambda hidden: hidden, TokenRows(tokens, None, None, where))


def test_next_token_by_hand():
  # Row 0: p(1 | 0) = .5 and p(2 | 0 1) = .25; row 1: only its last token is a target, p = .1.
  logits = logits_of(
    [
      [[0.3, 0.5, 0.2], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]],
      [[0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]],
    ]
  )
  tokens = np.array([[0, 1, 2], [2, 1, 0]])
  # The first token is no target, whatever the mask says.
  values, where = next_token(logits, tokens, np.array([[True, True, True], [False, False, True]]))
  assert where.tolist() == [[False, True, True], [False, False, True]]
  np.testing.assert_allclose(values[where], [-np.log(0.5), -np.log(0.25), -np.log(0.1)], rtol=1e-6)
  _, where = next_token(logits, tokens, np.array([[True, False, False], [False, False, False]]))
  assert not where.any()


def test_label_loss_is_over_allowed_labels():
  logits = logits_of([[0.1, 0.3, 0.6]] * 3)
  where = np.array([[True, True, True], [True, True, False], [True, True, False]])
  values = LABEL_LOSS(logits, np.array([1, 1, 2]), where=where)
  np.testing.assert_allclose(values, [-np.log(0.3), -np.log(0.75), 0.0], rtol=1e-5)


def test_listwise_softmax_loss_by_hand():
  logits = logits_of([[0.2, 0.3, 0.5]] * 3)
  relevance = np.array([[1.0, 3.0, 0.0], [0.0, 7.0, 9.0], [0.0, 0.0, 1.0]])
  where = np.array([[True, True, True], [True, True, False], [True, True, True]])
  expected = [-0.25 * np.log(0.2) - 0.75 * np.log(0.3), -np.log(0.3 / 0.5), -np.log(0.5)]
  np.testing.assert_allclose(SOFTMAX(logits, relevance, where=where), expected, rtol=1e-5)
  # With one relevant label it is the loss of that label.
  label = LABEL_LOSS(logits, np.array([0, 1, 2]), where=where)
  np.testing.assert_allclose(SOFTMAX(logits, np.eye(3), where=where), label, rtol=1e-6)


def test_listnet_loss_by_hand():
  # softmax(log 1, log 3) = (1/4, 3/4).
  relevance = np.log(np.array([[1.0, 3.0, 99.0]] * 3))
  where = np.array([[True, True, False]] * 3)
  logits = logits_of([[0.2, 0.2, 0.6], [0.1, 0.4, 0.5], [0.2, 0.2, 0.6]])
  values = LISTNET(logits, relevance, where=where)
  expected = [np.log(2), -0.25 * np.log(0.2) - 0.75 * np.log(0.8), np.log(2)]
  np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_listnet_is_least_where_scores_equal_relevance():
  relevance = np.array([[2.0, 0.0, 1.0]] * 3, np.float32)
  where = np.ones((3, 3), bool)
  _, gradient = with_gradient(LISTNET)(relevance + 5, relevance, where)
  np.testing.assert_allclose(gradient, np.zeros((3, 3)), atol=1e-6)
  _, gradient = with_gradient(LISTNET)(np.zeros((3, 3), np.float32), relevance, where)
  assert gradient[0, 0] < -0.1


def test_ranknet_loss_by_hand():
  # Pairs: (0 over 1), (0 over 2), (2 over 1); the masked fourth label forms none. Ties form none.
  scores = np.array([[2.0, 0.0, 1.0, 9.0]] * 2)
  relevance = np.array([[3.0, 0.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
  values = RANKNET(scores, relevance, where=np.array([[True, True, True, False]] * 2))
  expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(-1))])
  np.testing.assert_allclose(values, [expected, 0.0], rtol=1e-6)


def with_gradient(loss):
  """Row by row: value and gradient of a listwise loss, [B] and [B, L]."""

  def one(scores, relevance, where):
    return loss(scores[None], relevance[None], where=where[None])[0]

  return jax.jit(jax.vmap(jax.value_and_grad(one)))


@pytest.mark.parametrize("loss", LISTWISE, ids=NAMES)
def test_extreme_scores_and_empty_rows_have_finite_values_and_gradients(loss):
  scores = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [3.0, 1.0, 2.0]], np.float32)
  relevance = np.array([[1.0, 0.0, 0.0]] * 3, np.float32)
  where = np.array([[True, True, True], [True, True, True], [False, False, False]])
  value, gradient = map(np.asarray, with_gradient(loss)(scores, relevance, where))
  assert np.isfinite(value).all() and np.isfinite(gradient).all()
  assert value[2] == 0 and not np.any(gradient[2])
  assert value[1] > 5000 and gradient[1, 0] < -0.1
  assert value[0] < value[1]
  np.testing.assert_array_equal(value, loss(scores, relevance, where=where))  # vmap is the batch
  # Garbage at masked labels changes nothing.
  scores = np.array([[1.0, 2.0, 7.0], [1.0, 2.0, np.inf], [1.0, 2.0, np.nan]], np.float32)
  relevance = np.array([[0.0, 1.0, 3.0], [0.0, 1.0, np.inf], [0.0, 1.0, np.nan]], np.float32)
  value, gradient = with_gradient(loss)(scores, relevance, np.array([[True, True, False]] * 3))
  assert np.isfinite(value).all() and np.isfinite(gradient).all()
  np.testing.assert_allclose(value, np.full(3, np.log1p(np.exp(-1)) + LEFT_OUT[loss]), rtol=1e-6)


# What ListNet adds: its target is softmax(0, 1), not (0, 1).
LEFT_OUT = {SOFTMAX: 0.0, RANKNET: 0.0, LISTNET: 1 / (1 + np.e)}


def test_extreme_logits_of_tokens():
  logits = np.array([[[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]]], np.float32)
  tokens, where = np.array([[0, 0, 0]]), np.ones((1, 3), bool)

  def total(logits):
    values, counted = next_token(logits, tokens, where)
    return jnp.where(counted, values, 0.0).sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(logits)
  assert value == 2e4
  assert np.isfinite(gradient).all() and gradient[0, 1, 0] == -1.0
  labels = LABEL_LOSS(logits[0], np.array([0, 0, 0]), where=np.ones((3, 2), bool))
  np.testing.assert_allclose(labels, [0, 2e4, np.log(2)], rtol=1e-6)


def test_label_loss_of_fully_masked_rows_has_zero_gradient():
  scores = np.array([[1e4, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32)

  def total(scores):
    return LABEL_LOSS(scores, np.array([0, 2]), where=np.zeros((2, 3), bool)).sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(scores)
  assert value == 0 and not np.any(gradient)


def test_bfloat16_logits_give_float32_losses():
  logits = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(jnp.bfloat16)
  tokens, where = np.ones((2, 3), np.int32), np.ones((2, 3), bool)
  values, _ = next_token(logits, tokens, where)
  assert values.dtype == jnp.float32
  exact, _ = next_token(logits.astype(np.float32), tokens, where)
  np.testing.assert_array_equal(values, exact)


@pytest.mark.parametrize("loss", LISTWISE, ids=NAMES)
def test_gradients_equal_finite_differences(loss):
  scores = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
  relevance = np.array([[0.0, 1.0, 2.0, 0.0]] * 3)
  where = np.array([[True, True, True, False], [True] * 4, [False, True, True, False]])

  @jax.jit
  def value(scores):
    return loss(scores, relevance, where=where)

  check_grads(value, (scores,), order=1, modes=["rev"])
