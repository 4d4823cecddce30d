"""The order of edges by blocks of senders: what it holds, and that sums do not depend on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.ops.attention import Edges, attention_v2
from gatrec_jax.ops.attention.blocks import make_blocks_layout

NODES, HEADS, WIDTH, FEATURES = 9, 2, 3, 2
ROW = 4 * HEADS * WIDTH  # bytes


def random_edges(seed, *, num_edges=120, num_nodes=NODES):
  draws = np.random.default_rng(seed)
  receivers = np.sort(draws.integers(0, num_nodes, num_edges)).astype(np.int32)
  senders = np.minimum(draws.geometric(0.3, num_edges) - 1, num_nodes - 1).astype(np.int32)
  return Edges(senders, receivers, draws.normal(size=(num_edges, FEATURES)).astype(np.float32))


def blocks_of(edges, *, num_nodes=NODES, chunk, rows):
  return make_blocks_layout(
    edges.senders,
    edges.receivers,
    num_nodes,
    width=HEADS * WIDTH,
    chunk=chunk,
    block_bytes=rows * ROW,
  )


@settings(max_examples=40, deadline=None)
@given(
  st.integers(0, 10**6),
  st.integers(2, 30),
  st.integers(1, 40),
  st.integers(1, 12),
  st.integers(0, 900),
)
def test_each_edge_comes_once_and_receivers_ascend_in_a_block(seed, nodes, chunk, rows, count):
  edges = random_edges(seed, num_edges=count, num_nodes=nodes)
  layout = blocks_of(edges, num_nodes=nodes, chunk=chunk, rows=rows)
  if layout is None:
    assert nodes <= rows or count < 8 * nodes
    return
  real = layout.edge >= 0
  assert sorted(layout.edge[real]) == list(range(count))
  np.testing.assert_array_equal(layout.senders[real], edges.senders[layout.edge[real]])
  np.testing.assert_array_equal(layout.receivers[real], edges.receivers[layout.edge[real]])
  of_block = []
  for first, last in zip(layout.bounds[:-1], layout.bounds[1:], strict=True):
    assert (np.diff(layout.receivers[first:last].ravel()) >= 0).all()
    of_block.append(set(layout.senders[first:last].ravel()))
  blocks = len(of_block)
  assert layout.bounds[0] == 0 and layout.bounds[-1] == len(layout.edge)
  assert blocks <= -(-nodes // rows) and 4 * blocks * nodes <= count
  assert sum(map(len, of_block)) == len(set.union(*of_block))  # no sender in two of them


def test_one_block_or_few_edges_give_no_layout():
  edges = random_edges(0)
  assert blocks_of(edges, chunk=8, rows=NODES) is None
  assert blocks_of(edges, chunk=8, rows=NODES - 1) is not None
  few = Edges(*(array[:71] for array in edges[:3]))  # 4 · 2 blocks · 9 nodes = 72
  assert blocks_of(few, chunk=8, rows=1) is None


@pytest.fixture(scope="module")
def program():
  """Means and their gradients by everything that can have one."""

  def loss(parts, edges, toward):
    sources, targets, vector, kernel, features, where, keep = parts
    edges = edges._replace(features=features, where=where)
    out, weights = attention_v2(
      sources, targets, edges, vector=vector, edge_kernel=kernel, keep=keep, chunk=16
    )
    return jnp.sum(out * toward), (out, weights)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_means_and_gradients_do_not_depend_on_the_order(program, rows):
  edges = random_edges(3, num_edges=400)
  count = len(edges.senders)
  draws = np.random.default_rng(4)

  def draw(*shape):
    return draws.normal(size=shape).astype(np.float32)

  parts = (
    draw(NODES, HEADS, WIDTH),
    draw(NODES, HEADS, WIDTH),
    draw(HEADS, WIDTH),
    draw(FEATURES, HEADS, WIDTH),
    edges.features,
    draws.integers(0, 3, count).astype(np.float32),  # multiplicities, 0 among them
    np.abs(draw(count, HEADS)),
  )
  toward = draw(NODES, HEADS, WIDTH)
  want = program(parts, edges, toward)
  layout = blocks_of(edges, chunk=16, rows=rows)
  assert len(layout.bounds) - 1 == -(-NODES // rows)
  found = program(parts, edges._replace(layout=layout), toward)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
