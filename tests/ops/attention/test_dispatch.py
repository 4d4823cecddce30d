"""Implementations of attention against a plain reference and each other; which one is chosen.

The row kernels are compared with `segment` in test_pallas.py; training is in test_training.py.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import toy_ratings

from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.errors import InputError
from gatrec_jax.ops.attention import (
  Edges,
  attention_light,
  attention_v1,
  attention_v2,
  segment_softmax,
)
from gatrec_jax.ops.attention import selection as choice
from gatrec_jax.ops.attention.dense import DenseLayout, count_tiles, make_dense_layout
from gatrec_jax.ops.attention.pallas import RowsLayout

AS_USERS_DO = True
NODES, EDGES, HEADS, WIDTH, FEATURES = 21, 150, 2, 3, 2
TILE = (8, 4)  # several tiles, the last of which are cut by the number of nodes
NUM_TILES = 100


def random_edges(rng):
  return rng.integers(0, NODES, (2, EDGES))


def skewed_edges(rng):
  """A power law at both ends: one node has a third of all edges, many have one or none."""
  return (NODES * rng.random((2, EDGES)) ** 5).astype(int)


def edges_with_empty_rows(rng):
  """The first node, every third one and the last receive nothing; the last sends nothing."""
  receiving = np.setdiff1d(np.arange(1, NODES - 1), np.arange(0, NODES, 3))
  return np.stack([rng.integers(0, NODES - 1, EDGES), rng.choice(receiving, EDGES)])


def duplicate_edges(rng):
  """Every edge between one and four times, each with features of its own."""
  pairs = rng.integers(0, NODES, (2, EDGES))
  return np.repeat(pairs, rng.integers(1, 5, EDGES), axis=1)[:, :EDGES]


def attend(version, parts, edges, *, keep, chunk=0):
  """The means; of all that can be differentiated."""
  given = {name: value for name, value in parts.items() if name not in ("values", "targets")}
  common = dict(given, keep=keep, chunk=chunk)
  if version == "v2":
    return attention_v2(parts["values"], parts["targets"], edges, **common)[0]
  return {"v1": attention_v1, "light": attention_light}[version](parts["values"], edges, **common)[
    0
  ]


def reference(version, parts, edges, *, keep, chunk=0):
  """The same with all edges' numbers at once, [E, H, D], as plainly as they are defined."""
  del chunk
  values, (senders, receivers, features, where, _) = parts["values"], edges
  leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
  if version == "v2":
    hidden = values[senders] + parts["targets"][receivers]
    hidden += jnp.einsum("ef,fhd->ehd", features, parts["edge_kernel"], precision="highest")
    logits = jnp.sum(leaky(hidden) * parts["vector"], axis=-1)
  else:
    ends = jnp.sum(values * parts["source_vector"], axis=-1)[senders]
    ends += jnp.sum(values * parts["target_vector"], axis=-1)[receivers]
    of_edges = jnp.dot(features, parts["edge_vector"], precision="highest")
    logits = leaky(ends + of_edges) if version == "v1" else leaky(ends) + of_edges
  weights = segment_softmax(logits, receivers, values.shape[0], where=where)
  weights = weights if keep is None else weights * keep
  messages = weights[:, :, None] * values[senders]
  return jnp.zeros_like(values).at[receivers].add(messages)


@functools.partial(jax.jit, static_argnames=("how", "version", "chunk"))
def means_and_gradients(how, version, parts, edges, keep, chunk=0):
  """The means, and their pullback of one direction to all that can be differentiated."""
  counts = edges.where if edges.where is not None and edges.where.dtype != bool else None

  def means(parts, features, counts, keep):
    some = edges._replace(features=features, where=edges.where if counts is None else counts)
    return how(version, parts, some, keep=keep, chunk=chunk)

  found, pull = jax.vjp(means, parts, edges.features, counts, keep)
  direction = jnp.cos(jnp.arange(found.size * 1.0)).reshape(found.shape)
  return found, pull(direction.astype(found.dtype))


def make_case(version, make_edges, where, with_keep):
  """Parts, edges and keep, all of the same shapes; node 5's edges do not count with `where`."""
  rng = np.random.default_rng(0)
  senders, receivers = make_edges(rng).astype(np.int32)
  order = np.argsort(receivers, kind="stable")

  def draw(*shape):
    return jax.device_put(np.float32(rng.normal(size=shape)))

  parts = {"values": draw(NODES, HEADS, WIDTH)}
  if version == "v2":
    parts |= {
      "targets": draw(NODES, HEADS, WIDTH),
      "vector": draw(HEADS, WIDTH),
      "edge_kernel": draw(FEATURES, HEADS, WIDTH),
    }
  else:
    parts |= {
      "source_vector": draw(HEADS, WIDTH),
      "target_vector": draw(HEADS, WIDTH),
      "edge_vector": draw(FEATURES, HEADS),
    }
  counted = (rng.random(EDGES) < 0.7) & (receivers[order] != 5)
  mask = {
    None: None,
    "bool": jax.device_put(counted),
    "counts": jax.device_put(np.float32(counted * rng.integers(1, 4, EDGES))),
  }[where]
  edges = Edges(
    jax.device_put(senders[order]), jax.device_put(receivers[order]), draw(EDGES, FEATURES), mask
  )
  keep = None
  if with_keep:
    keep = jax.device_put(np.float32((rng.random((EDGES, HEADS)) < 0.8) / 0.8))
  return parts, edges, keep


def with_tiles(edges):
  """Edges with their tiles, and empty ones behind them, so that all cases share programs."""
  host = make_dense_layout(*map(np.asarray, edges[:3]), tile=TILE)
  more = NUM_TILES - len(host.receivers)
  assert more >= 0
  empty = DenseLayout(
    receivers=np.full(more, NODES // TILE[0], np.int32),
    senders=np.zeros(more, np.int32),
    cells=np.full((more, *host.cells.shape[1:]), -1, host.cells.dtype),
    features=np.zeros((more, *host.features.shape[1:]), host.features.dtype),
  )
  return edges._replace(
    layout=jax.tree.map(lambda some, rest: jnp.concatenate([some, rest]), host, empty)
  )


def assert_close(found, wanted, tolerance=1e-5):
  """Within `tolerance` of the largest number of each array, or of 1."""
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert one.shape == other.shape and one.dtype == other.dtype
    if one.dtype != jax.dtypes.float0:
      scale = np.abs(other).max(initial=1.0)
      np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
  ("version", "make_edges", "where", "with_keep"),
  [
    ("v2", random_edges, None, False),
    ("v2", skewed_edges, "counts", True),
    ("v2", edges_with_empty_rows, "counts", True),
    ("v2", duplicate_edges, "counts", True),
    ("v1", skewed_edges, "bool", True),
    ("v1", duplicate_edges, "bool", True),
    ("light", edges_with_empty_rows, "counts", False),
    ("light", random_edges, "counts", False),
  ],
)
def test_segment_and_dense_equal_the_reference(version, make_edges, where, with_keep):
  parts, edges, keep = make_case(version, make_edges, where, with_keep)
  wanted, wanted_gradients = means_and_gradients(reference, version, parts, edges, keep)
  # Chunks of 32 cut rows, and the last of them is filled up.
  found, gradients = means_and_gradients(attend, version, parts, edges, keep, chunk=32)
  assert_close(found, wanted)
  assert_close(gradients, wanted_gradients)
  tiled = with_tiles(edges)
  found, gradients = means_and_gradients(attend, version, parts, tiled, keep)
  assert_close(found, wanted)
  of_parts, of_features, *others = gradients
  assert_close((of_parts, *others), (wanted_gradients[0], *wanted_gradients[2:]))
  assert not np.asarray(of_features).any()  # its features are those of the tiles, and constants
  unheard = np.setdiff1d(np.arange(NODES), edges.receivers)
  assert not np.asarray(wanted)[unheard].any()
  assert len(unheard) >= (8 if make_edges is edges_with_empty_rows else 0)


@pytest.mark.parametrize("chunk", [1, 75, 1000])
def test_chunks_change_no_number(chunk):
  """One edge each, two chunks without a rest, and more than there is; above, 32 with a rest."""
  parts, edges, keep = make_case("v2", skewed_edges, "counts", True)
  assert edges.receivers[74] == edges.receivers[75]  # a row is cut in the middle
  wanted = means_and_gradients(reference, "v2", parts, edges, keep)
  assert_close(means_and_gradients(attend, "v2", parts, edges, keep, chunk=chunk), wanted)


def test_tiles_by_hand():
  senders, receivers = np.array([4, 1, 1, 1, 0]), np.array([0, 1, 1, 1, 2])
  layout = make_dense_layout(senders, receivers, np.arange(5.0)[:, None], tile=(2, 4))
  np.testing.assert_array_equal(layout.receivers, [0, 0, 0, 0, 1])
  np.testing.assert_array_equal(layout.senders, [0, 0, 0, 1, 0])
  there = [np.argwhere(cells >= 0).tolist() for cells in layout.cells]
  assert there == [[[1, 1]]] * 3 + [[[0, 0]], [[0, 0]]]
  np.testing.assert_array_equal(layout.cells.max(axis=(1, 2)), [1, 2, 3, 0, 4])
  np.testing.assert_array_equal(layout.features[..., 0], np.maximum(layout.cells, 0))
  assert count_tiles(senders, receivers, (2, 4)) == 3  # without copies


def test_without_edges_dense_tiles_give_zeros():
  parts, edges, _ = make_case("v2", random_edges, None, False)
  none = jax.tree.map(lambda of_edge: of_edge[:0], edges)
  host = make_dense_layout(*map(np.asarray, none[:3]), tile=TILE)
  none = none._replace(layout=jax.device_put(host))
  found, (of_parts, *_) = means_and_gradients(attend, "v2", parts, none, None)
  assert not np.asarray(found).any()
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(of_parts))


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_dense_stays_finite(scale):
  parts, edges, keep = make_case("v2", edges_with_empty_rows, "counts", True)
  parts = jax.tree.map(lambda part: part * scale, parts)
  found = means_and_gradients(attend, "v2", parts, with_tiles(edges), keep)
  assert all(
    np.isfinite(leaf).all() for leaf in jax.tree.leaves(found) if leaf.dtype == jnp.float32
  )


def test_dense_multiplies_bfloat16_tables_and_sums_in_float32():
  parts, edges, keep = make_case("v2", skewed_edges, "counts", True)
  small = parts | {name: parts[name].astype(jnp.bfloat16) for name in ("values", "targets")}
  found, (gradients, *_) = means_and_gradients(attend, "v2", small, with_tiles(edges), keep)
  wanted, (wanted_gradients, *_) = means_and_gradients(attend, "v2", small, edges, keep, chunk=32)
  assert found.dtype == jnp.bfloat16 and gradients["vector"].dtype == jnp.float32

  def as_float32(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

  assert_close(*map(as_float32, (found, wanted)), tolerance=1e-2)
  assert_close(*map(as_float32, (gradients, wanted_gradients)), tolerance=2e-2)


def test_dense_under_vmap_equals_a_loop():
  """As in a sweep: parameters and dropout differ, the graph is one."""
  parts, edges, keep = make_case("v2", skewed_edges, "counts", True)
  tiled = with_tiles(edges)

  def run(parts, keep):
    return means_and_gradients(attend, "v2", parts, tiled, keep)

  several = [(parts, keep), (jax.tree.map(jnp.negative, parts), keep[::-1])]
  together = jax.jit(jax.vmap(run))(*jax.tree.map(lambda *two: jnp.stack(two), *several))
  for place, one in enumerate(several):
    assert_close(jax.tree.map(lambda both, place=place: both[place], together), run(*one))


SIZE = dict(heads=2, width=16)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "cuda", "tpu"])
def test_auto_takes_the_one_that_is_estimated_quicker(monkeypatch, platform):
  graph = bipartite_graph(toy_ratings())
  edges = len(graph.senders)
  name = "gpu" if platform == "cuda" else platform

  def chosen(edge, cell):
    cost = choice.COSTS[name]._replace(edge=edge, edge_number=0.0, cell=cell, cell_number=0.0)
    monkeypatch.setitem(choice.COSTS, name, cost)
    return choice.choose("auto", graph, platform=platform, **SIZE)

  segment, dense = choice.estimated_seconds(graph, platform=platform, **SIZE)
  assert segment > 0 < dense
  assert chosen(edge=1.0, cell=1e-6) == "dense"
  assert chosen(edge=1e-6, cell=1.0) == "segment"
  segment, _ = choice.estimated_seconds(graph, platform=platform, **SIZE)
  assert segment == pytest.approx(edges * 1e-6)
  # However quick: no tiles beyond the bound on their bytes.
  monkeypatch.setattr(choice, "DENSE_BYTES", 100)
  assert chosen(edge=1.0, cell=1e-6) == "segment"


def test_pallas_off_a_gpu_is_segment_and_says_so_once(caplog):
  graph = bipartite_graph(toy_ratings())
  with caplog.at_level(logging.WARNING):
    layout = choice.make_layout("pallas", graph, platform="cpu", **SIZE)
  assert layout is None and choice.name_of(layout) == "segment"
  (line,) = [record.getMessage() for record in caplog.records]
  assert line.startswith("attention_impl=pallas: ") and line.endswith("segment is used")
  on_gpu = choice.make_layout("pallas", graph, platform="gpu", **SIZE)
  assert isinstance(on_gpu, RowsLayout) and choice.name_of(on_gpu) == "pallas"
  assert len(caplog.records) == 1


def test_dense_that_is_asked_for_is_made_within_the_bound_and_refused_beyond(monkeypatch):
  graph = bipartite_graph(toy_ratings())
  asked = functools.partial(choice.make_layout, "dense", graph, platform="cpu", **SIZE)
  layout = asked()
  assert choice.name_of(layout) == "dense" and (layout.cells >= 0).sum() == len(graph.senders)
  monkeypatch.setattr(choice, "DENSE_BYTES", 100)
  with pytest.raises(InputError, match="attention_impl=dense: the tiles .* use auto or segment"):
    asked()
