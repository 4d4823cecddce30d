"""Attention over rows of events is the attention of the edges that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.ops.attention import Edges, attention_v2
from gatrec_jax.ops.attention.histories import attend_histories, history_logits


def test_it_equals_attention_v2_over_the_same_edges():
  rng = np.random.default_rng(0)
  heads, width, nodes, slope = 2, 3, 5, 0.2
  sources, targets = rng.normal(size=(2, nodes, heads, width)).astype(np.float32)
  vector = rng.normal(size=(heads, width)).astype(np.float32)
  kernel = rng.normal(size=(1, heads, width)).astype(np.float32)
  # Three receivers, of 2, 0 and 3 events.
  sender = np.array([[4, 0, 0], [0, 0, 0], [1, 2, 3]])
  inside = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
  feature = rng.normal(size=(3, 3)).astype(np.float32)
  receiver = np.nonzero(inside)[0]
  edges = Edges(jnp.array(sender[inside]), jnp.array(receiver), jnp.array(feature[inside])[:, None])
  expected, weights = attention_v2(
    jnp.array(sources), jnp.array(targets), edges, vector=vector, edge_kernel=kernel, slope=slope
  )
  flat = heads * width
  values = jnp.array(sources[sender].reshape(3, 3, flat))
  hidden = values + targets[:3].reshape(3, 1, flat)
  hidden += feature[:, :, None] * kernel.reshape(1, 1, flat)
  logits = history_logits(hidden, vector.ravel(), slope, heads=heads)
  found, found_weights = attend_histories(values, logits, jnp.array(inside))
  np.testing.assert_allclose(found, expected[:3].reshape(3, flat), atol=1e-5)
  np.testing.assert_allclose(found_weights[inside], weights, atol=1e-5)
  assert not found[1].any() and not found_weights[~inside].any()


def test_gradients_are_finite_without_events_and_0_at_padding():
  values = jnp.ones((2, 2, 4))
  inside = jnp.array([[True, False], [False, False]])

  def total(values, logits):
    return jnp.sum(attend_histories(values, logits, inside)[0])

  of_values, of_logits = jax.grad(total, argnums=(0, 1))(values, 1e4 * jnp.ones((2, 2, 2)))
  assert np.isfinite(of_logits).all()
  assert of_values[0, 0].tolist() == [1, 1, 1, 1]
  assert not of_values[0, 1].any() and not of_values[1].any()


def test_a_bias_is_added_to_each_head():
  logits = history_logits(jnp.zeros((1, 2, 4)), jnp.ones(4), 0.2, heads=2, bias=jnp.eye(2))
  assert logits.tolist() == [[[1, 0], [0, 1]]]
