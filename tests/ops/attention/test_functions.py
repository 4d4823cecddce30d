"""Graph attention against slow references, at its edges, and in its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.ops.attention import (
  Edges,
  attention_light,
  attention_v1,
  attention_v2,
  segment_softmax,
)

HEADS, WIDTH, FEATURES = 2, 3, 2
# One program a case; operation by operation, compiling takes longer.
attend = jax.jit(attention_v2, static_argnames="chunk")
attend_v1 = jax.jit(attention_v1, static_argnames="chunk")
attend_light = jax.jit(attention_light, static_argnames="chunk")


def random_case(seed, *, num_nodes=7, num_edges=20):
  rng = np.random.default_rng(seed)
  receivers = np.sort(rng.integers(0, num_nodes, num_edges)).astype(np.int32)
  edges = Edges(
    jax.device_put(np.int32(rng.integers(0, num_nodes, num_edges))),
    jax.device_put(receivers),
    jax.device_put(np.float32(rng.normal(size=(num_edges, FEATURES)))),
  )

  def draw(*shape):
    return jax.device_put(np.float32(rng.normal(size=shape)))

  return edges, draw


def naive(values, logits, edges, where=None, keep=None):
  """Loops over nodes and heads in float64."""
  values, logits = np.asarray(values, np.float64), np.asarray(logits, np.float64)
  out, weights = np.zeros_like(values), np.zeros_like(logits)
  for node in range(values.shape[0]):
    rows = np.flatnonzero(np.asarray(edges.receivers) == node)
    if where is not None:
      rows = rows[np.asarray(where)[rows]]
    if not len(rows):
      continue
    exponentials = np.exp(logits[rows] - logits[rows].max(axis=0))
    weights[rows] = exponentials / exponentials.sum(axis=0)
    used = weights[rows] * (1 if keep is None else np.asarray(keep)[rows])
    out[node] = (used[:, :, None] * values[np.asarray(edges.senders)[rows]]).sum(axis=0)
  return out, weights


def leaky(x, slope=0.2):
  return np.where(x > 0, x, slope * x)


# More sizes of chunks, and gradients, in test_dispatch.py.
@pytest.mark.parametrize(("chunk", "masked"), [(1, False), (7, True), (20, True), (1000, False)])
def test_v2_equals_the_loops_for_every_chunk_size(chunk, masked):
  edges, draw = random_case(0)
  sources, targets = draw(7, HEADS, WIDTH), draw(7, HEADS, WIDTH)
  vector, kernel = draw(HEADS, WIDTH), draw(FEATURES, HEADS, WIDTH)
  keep = jnp.abs(draw(20, HEADS))
  where = np.random.default_rng(1).random(20) < 0.5 if masked else None
  out, weights = attend(
    sources,
    targets,
    edges._replace(where=None if where is None else jax.device_put(where)),
    vector=vector,
    edge_kernel=kernel,
    keep=keep,
    chunk=chunk,
  )
  hidden = np.asarray(sources)[edges.senders] + np.asarray(targets)[edges.receivers]
  hidden = hidden + np.einsum("ef,fhd->ehd", edges.features, kernel)
  logits = (leaky(hidden) * np.asarray(vector)).sum(-1)
  want_out, want_weights = naive(sources, logits, edges, where, keep)
  np.testing.assert_allclose(out, want_out, atol=2e-6)
  np.testing.assert_allclose(weights, want_weights, atol=2e-6)


def test_light_equals_the_loops():
  edges, draw = random_case(3)
  values = draw(7, HEADS, WIDTH)
  from_source, from_target = draw(HEADS, WIDTH), draw(HEADS, WIDTH)
  edge_vector, keep = draw(FEATURES, HEADS), jnp.abs(draw(20, HEADS))
  out, weights = attend_light(
    values,
    edges,
    source_vector=from_source,
    target_vector=from_target,
    edge_vector=edge_vector,
    keep=keep,
    chunk=3,
  )
  left = (np.asarray(values) * from_source).sum(-1)[np.asarray(edges.senders)]
  right = (np.asarray(values) * from_target).sum(-1)[np.asarray(edges.receivers)]
  logits = leaky(left + right) + np.asarray(edges.features) @ np.asarray(edge_vector)
  want_out, want_weights = naive(values, logits, edges, keep=keep)
  np.testing.assert_allclose(out, want_out, atol=2e-6)
  np.testing.assert_allclose(weights, want_weights, atol=2e-6)


def test_light_attention_to_log_weights_is_the_weighted_mean():
  edges = Edges(jnp.array([0, 1]), jnp.array([2, 2]), jnp.log(jnp.array([[1.0], [0.25]])))
  none = jnp.zeros((1, 2))
  out, _ = attend_light(
    jnp.array([[[10.0, 0.0]], [[0.0, 5.0]], [[7.0, 7.0]]]),
    edges,
    source_vector=none,
    target_vector=none,
    edge_vector=jnp.ones((1, 1)),
  )
  np.testing.assert_allclose(out[2, 0], [8.0, 1.0], rtol=1e-6)
  assert not np.asarray(out[:2]).any()


def test_v1_equals_the_loops():
  edges, draw = random_case(2)
  sources = draw(7, HEADS, WIDTH)
  from_source, from_target = draw(HEADS, WIDTH), draw(HEADS, WIDTH)
  edge_vector = draw(FEATURES, HEADS)
  out, weights = attend_v1(
    sources,
    edges,
    source_vector=from_source,
    target_vector=from_target,
    edge_vector=edge_vector,
    chunk=6,
  )
  left = (np.asarray(sources) * from_source).sum(-1)[np.asarray(edges.senders)]
  right = (np.asarray(sources) * from_target).sum(-1)[np.asarray(edges.receivers)]
  logits = leaky(left + right + np.asarray(edges.features) @ np.asarray(edge_vector))
  want_out, want_weights = naive(sources, logits, edges)
  np.testing.assert_allclose(out, want_out, atol=2e-6)
  np.testing.assert_allclose(weights, want_weights, atol=2e-6)


@functools.partial(jax.jit, static_argnames="chunk")
def v2_sum(parts, edges, chunk):
  sources, targets, vector, kernel = parts
  out, _ = attend(sources, targets, edges, vector=vector, edge_kernel=kernel, chunk=chunk)
  return jnp.sum(jnp.sin(out))


gradient_of_sum = jax.jit(jax.grad(v2_sum), static_argnums=2)


def test_gradients_do_not_depend_on_the_chunks_and_match_differences():
  edges, draw = random_case(3)
  parts = (
    draw(7, HEADS, WIDTH),
    draw(7, HEADS, WIDTH),
    draw(HEADS, WIDTH),
    draw(FEATURES, HEADS, WIDTH),
  )
  whole = gradient_of_sum(parts, edges, 1000)
  chunked = gradient_of_sum(parts, edges, 3)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, chunked)
  direction = jax.tree.map(
    lambda p: jnp.cos(jnp.arange(p.size, dtype=jnp.float32)).reshape(p.shape), parts
  )
  step = 1e-2
  ahead, behind = (
    v2_sum(jax.tree.map(lambda p, d, s=sign: p + s * step * d, parts, direction), edges, 5)
    for sign in (1, -1)
  )
  slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), chunked, direction)))
  np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=2e-2)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_isolated_masked_and_extreme_nodes_stay_finite(scale):
  edges, draw = random_case(4, num_nodes=5, num_edges=8)
  edges = edges._replace(receivers=jnp.sort(edges.receivers % 3))  # nodes 3 and 4 receive nothing
  edges = edges._replace(where=edges.receivers != 0)  # node 0 has masked edges only
  parts = jax.tree.map(
    lambda p: p * scale,
    (
      draw(5, HEADS, WIDTH),
      draw(5, HEADS, WIDTH),
      draw(HEADS, WIDTH),
      draw(FEATURES, HEADS, WIDTH),
    ),
  )
  out, weights = attend(parts[0], parts[1], edges, vector=parts[2], edge_kernel=parts[3], chunk=3)
  assert np.isfinite(out).all() and np.isfinite(weights).all()
  assert (np.asarray(out)[[0, 3, 4]] == 0).all()
  gradients = gradient_of_sum(parts, edges, 3)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_no_edges_at_all():
  _, draw = random_case(5)
  none = Edges(jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32), jnp.zeros((0, FEATURES)))
  out, weights = attend(
    draw(4, HEADS, WIDTH),
    draw(4, HEADS, WIDTH),
    none,
    vector=draw(HEADS, WIDTH),
    edge_kernel=draw(FEATURES, HEADS, WIDTH),
  )
  assert out.shape == (4, HEADS, WIDTH) and not np.asarray(out).any()
  assert weights.shape == (0, HEADS)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_segment_softmax_sums_to_one_and_ignores_shifts(seed, shift):
  rng = np.random.default_rng(seed)
  receivers = jax.device_put(np.int32(np.sort(rng.integers(0, 4, 9))))
  logits = jax.device_put(np.float32(rng.normal(size=(9, 2)) * 3))
  weights = np.asarray(segment_softmax(logits, receivers, 4))
  sums = np.zeros((4, 2))
  np.add.at(sums, np.asarray(receivers), weights)
  present = np.isin(np.arange(4), receivers)
  np.testing.assert_allclose(sums[present], 1, atol=1e-6)
  shifted = segment_softmax(logits + np.float32(shift), receivers, 4)
  np.testing.assert_allclose(shifted, weights, atol=1e-4)


def test_vmap_over_inputs_equals_a_loop():
  edges, draw = random_case(6)
  batch = draw(3, 7, HEADS, WIDTH)
  targets, vector, kernel = draw(7, HEADS, WIDTH), draw(HEADS, WIDTH), draw(FEATURES, HEADS, WIDTH)

  def one(sources):
    return attend(sources, targets, edges, vector=vector, edge_kernel=kernel, chunk=6)[0]

  together = jax.jit(jax.vmap(one))(batch)
  np.testing.assert_allclose(together, np.stack([one(row) for row in batch]), atol=1e-6)
