"""Row kernels, interpreted, against the segment implementation; their layout; their lowering."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.ops.attention.edges import MASKED, Edges
from gatrec_jax.ops.attention.logits import Terms, logits_light, logits_v1, logits_v2
from gatrec_jax.ops.attention.pallas import make_rows_layout, rows_sums, supports
from gatrec_jax.ops.attention.segment import segment_sums

interpreted = functools.partial(rows_sums, interpret=True)
segments = functools.partial(segment_sums, chunk=0)


def make_graph(name, rng):
  """Senders, receivers, N; the last node sends and receives nothing."""
  if name == "random":  # few enough edges a node for one degree class
    receivers, senders, num_nodes = rng.integers(0, 8, 40), rng.integers(0, 8, 40), 9
  elif name == "skewed":  # every degree class both ways, the widest with more than one block
    receivers = np.repeat(np.arange(8), [0, 290, 70, 30, 20, 9, 5, 1])
    senders, num_nodes = rng.permutation(receivers), 9
  elif name == "duplicates":
    receivers, senders, num_nodes = np.repeat([0, 2], 6), np.tile([1, 1, 2], 4), 4
  else:
    receivers, senders, num_nodes = np.zeros(0, int), np.zeros(0, int), 3
  order = np.argsort(receivers, kind="stable")
  return senders[order].astype(np.int32), receivers[order].astype(np.int32), num_nodes


def make_case(logits, graph, *, heads, width, features, where=None, keep=False, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  senders, receivers, num_nodes = make_graph(graph, rng)
  num_edges = len(senders)

  def draw(*shape):
    return jax.device_put(np.float32(rng.normal(size=shape)))

  # Node 0 has no counted edge where edges are masked.
  counted = jax.device_put((rng.random(num_edges) < 0.7) & (receivers > 0))
  mask = {
    None: None,
    "bool": counted,
    "float": counted * jax.device_put(np.float32(rng.integers(1, 4, num_edges))),
  }[where]
  edges = Edges(
    jax.device_put(senders),
    jax.device_put(receivers),
    draw(num_edges, features),
    mask,
    make_rows_layout(senders, receivers, num_nodes),
  )
  if logits is logits_v2:
    params = (draw(heads * width) / width, draw(features, heads * width))
    terms = Terms(None, draw(num_nodes, heads * width).astype(dtype), params, jnp.float32(0.2))
  else:
    ends = (draw(num_nodes, heads), draw(num_nodes, heads))
    terms = Terms(*ends, draw(features, heads), jnp.float32(0.2))
  multipliers = jnp.abs(draw(num_edges, heads)) if keep else None
  return draw(num_nodes, heads * width).astype(dtype), terms, edges, multipliers


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def sums_and_gradients(implementation, logits, heads, values, terms, edges, keep):
  """The sums, and their pullback of one random direction to all that can be differentiated."""
  differentiable = edges.where is not None and edges.where.dtype != bool

  def sums(values, source, target, params, features, where, keep):
    some = edges._replace(features=features, where=where if differentiable else edges.where)
    given = Terms(source, target, params, terms.slope)
    return implementation(logits, values, given, some, heads=heads, keep=keep)

  found, pull = jax.vjp(
    sums,
    values,
    terms.source,
    terms.target,
    terms.params,
    edges.features,
    edges.where if differentiable else None,
    keep,
  )
  directions = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size * 1.0)).reshape(x.shape), found)
  return found, pull(directions)


def assert_same(found, wanted, tolerance):
  """Within `tolerance` of the largest number of each array."""
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert one.shape == other.shape and one.dtype == other.dtype
    one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
    np.testing.assert_array_equal(one == MASKED, other == MASKED)
    # Small numbers may be sums of large ones.
    scale = np.abs(other).max(initial=1.0, where=other > MASKED)
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
  ("logits", "graph", "sizes"),
  [
    (logits_v2, "random", dict(heads=2, width=3, features=1)),
    (logits_v1, "random", dict(heads=1, width=8, features=0, where="float")),
    (logits_light, "random", dict(heads=4, width=5, features=2, where="bool", keep=True)),
    (logits_v2, "skewed", dict(heads=2, width=3, features=1, where="float", keep=True)),
    (logits_v2, "random", dict(heads=1, width=300, features=0, keep=True)),
    (logits_v1, "duplicates", dict(heads=4, width=1, features=1, where="float", keep=True)),
    (logits_v2, "none", dict(heads=2, width=3, features=1, where="float", keep=True)),
  ],
)
def test_sums_and_gradients_equal_the_segments(logits, graph, sizes):
  case = make_case(logits, graph, **sizes)
  found = sums_and_gradients(interpreted, logits, sizes["heads"], *case)
  wanted = sums_and_gradients(segments, logits, sizes["heads"], *case)
  assert_same(found, wanted, 1e-5)


def test_bfloat16_tables_are_summed_in_float32():
  sizes = dict(heads=2, width=4, features=1)
  case = make_case(logits_v2, "random", dtype=jnp.bfloat16, **sizes)
  sums, gradients = sums_and_gradients(interpreted, logits_v2, 2, *case)
  wanted, wanted_gradients = sums_and_gradients(segments, logits_v2, 2, *case)
  assert_same(sums, wanted, 1e-5)
  assert_same(gradients, wanted_gradients, 1e-2)  # rounded to bfloat16 at the end


def test_extreme_logits_stay_finite():
  values, terms, edges, _ = make_case(logits_v1, "random", heads=1, width=2, features=0)
  terms = terms._replace(source=terms.source * 1e4, target=terms.target * 1e4)
  found = sums_and_gradients(interpreted, logits_v1, 1, values, terms, edges, None)
  assert all(np.isfinite(array).all() for array in jax.tree.leaves(found))
  assert (np.asarray(found[0].total)[:8] >= 1).all() and found[0].total[8] == 0


def test_vmap_over_values_equals_a_loop():
  values, terms, edges, _ = make_case(logits_v2, "duplicates", heads=1, width=2, features=1)
  batch = jnp.stack([values, -values])

  @jax.jit
  def weighted(values):
    return interpreted(logits_v2, values, terms, edges, heads=1, keep=None).weighted

  np.testing.assert_allclose(
    jax.vmap(weighted)(batch), np.stack([weighted(row) for row in batch]), atol=1e-6
  )


def test_layout_by_hand():
  receivers, senders = np.array([0] * 17 + [2]), np.array([1] * 16 + [2, 1])
  layout = make_rows_layout(senders, receivers, 4)
  np.testing.assert_array_equal(layout.start, [0, 17, 17, 18, 18])
  np.testing.assert_array_equal(layout.sender_start, [0, 0, 17, 18, 18])
  np.testing.assert_array_equal(layout.edge_by_sender, [*range(16), 17, 16])
  assert [ids.tolist() for ids in layout.rows] == [[2], [0], [], []]
  assert [ids.tolist() for ids in layout.sender_rows] == [[2], [1], [], []]


def test_layout_refuses_unsorted_receivers():
  with pytest.raises(ValueError, match="sorted by receiver"):
    make_rows_layout(np.array([0, 0]), np.array([1, 0]), 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 900), st.integers(1, 12))
def test_layout_has_every_edge_and_node_once(seed, num_edges, num_nodes):
  rng = np.random.default_rng(seed)
  # A power of a uniform number, so that degrees reach from 0 to beyond 256.
  receivers, senders = (rng.random((2, num_edges)) ** 4 * num_nodes).astype(np.int32)
  receivers = np.sort(receivers)
  layout = make_rows_layout(senders, receivers, num_nodes)
  assert all(array.dtype == np.int32 for array in jax.tree.leaves(layout))
  order = layout.edge_by_sender
  np.testing.assert_array_equal(np.sort(order), np.arange(num_edges))
  assert (np.diff(senders[order]) >= 0).all()
  for start, rows, ends in (
    (layout.start, layout.rows, receivers),
    (layout.sender_start, layout.sender_rows, senders[order]),
  ):
    np.testing.assert_array_equal(np.repeat(np.arange(num_nodes), np.diff(start)), ends)
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.unique(ends))
    degrees = [np.diff(start)[ids] for ids in rows]
    for of_class, low, high in zip(degrees, (1, 17, 65, 257), (16, 64, 256, 900), strict=True):
      assert ((low <= of_class) & (of_class <= high)).all() and (np.diff(of_class) <= 0).all()


@pytest.mark.parametrize("logits", [logits_v2, logits_v1, logits_light])
def test_lowers_for_cuda(logits):
  sizes = dict(heads=4, width=5, features=2, where="float", keep=True, dtype=jnp.bfloat16)
  case = make_case(logits, "skewed", **sizes)
  triton = "__gpu$xla.gpu.triton"
  allowed = [jax.export.DisabledSafetyCheck.custom_call(triton)]
  run = jax.jit(functools.partial(sums_and_gradients, rows_sums, logits, 4))
  exported = jax.export.export(run, platforms=["cuda"], disabled_checks=allowed)(*case)
  # Forwards, by receiver and by sender, a kernel for each of four degree classes.
  assert exported.mlir_module().count(triton) == 12


def test_supports_says_why_not():
  assert supports("gpu", 64) == "" and supports("gpu", 512) == ""
  assert "tpu" in supports("tpu", 64) and "cpu" in supports("cpu", 64)
  assert "513" in supports("gpu", 513)
