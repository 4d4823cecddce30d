"""Edges that a step of training draws, on device: of every node, or around the nodes of a batch.

The latter is layer-wise sampling (GraphSAGE, Hamilton et al. 2017, algorithm 2). The cost of a step
then depends on the number of seeds and on the fan-outs, and is bounded by the number of nodes times
the fan-outs. The sample is a tree around the seeds: a node that sends to several others appears
once for each of them, with independent draws. A level that would have at least as many places as
the graph has nodes holds every node once instead. All shapes are therefore known before anything is
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config.convolutions import Convolution, LightConvolution
from gatrec_jax.ops.negatives import below

Array = jax.Array

# Up to so many directed edges a step reads all of them; beyond, at most so many of each node.
_MOST_EDGES, DRAWN_EDGES = 2**23, 32


@flax.struct.dataclass
class Subgraph:
  """The sampled neighborhood of some seeds: they are level 0, and level l + 1 sends to level l.

  Attributes:
    nodes: [T] int32, of the whole graph; the seeds come first. Empty places hold node 0.
      T = M + min(M S_1, N) + min(min(M S_1, N) S_2, N) + …
    has_edges: [T] bool, whether the whole graph has an edge to that node; False for such a place.
    graph: T nodes; senders, receivers [E'] int32 are indices into `nodes`, receivers ascending;
      edges [E', F]; S_(l+1) edges to each place of level l < L.
    where: [E'] bool, False for empty places.
    nodes_to: static; the nodes up to level 0, …, L.
    edges_to: static; the edges to nodes up to level 0, …, L − 1.
  """

  nodes: Array
  has_edges: Array
  graph: jraph.GraphsTuple
  where: Array
  nodes_to: tuple[int, ...] = flax.struct.field(pytree_node=False)
  edges_to: tuple[int, ...] = flax.struct.field(pytree_node=False)


def draw_subgraph(
  key: Array, graph: jraph.GraphsTuple, start: Array, seeds: Array, *, fanouts: Sequence[int]
) -> Subgraph:
  """Draws up to `fanouts[l]` incoming edges of each node of level l, without replacement.

  Fan-outs of at least the largest in-degree keep every edge.

  Args:
    key: PRNG key, consumed.
    graph: receiver-sorted, of N nodes and at least one edge, fewer than 2³⁰ to any node.
    start: [N + 1] int32, where each node's incoming edges begin.
    seeds: [M] int32 nodes, in any order, repetitions allowed.
    fanouts: S_1, …, S_L, static, each at least 1.

  >>> train = Interactions.from_indices([0, 1], [0, 0], num_users=2, num_items=1)
  >>> graph = jax.tree.map(jnp.asarray, bipartite_graph(train))  # nodes 0, 1 are users, 2 the item
  >>> start = jnp.searchsorted(graph.receivers, jnp.arange(4))
  >>> found = draw_subgraph(jax.random.key(0), graph, start, jnp.array([2]), fanouts=[2])
  >>> found.nodes.tolist(), found.graph.senders.tolist(), found.graph.receivers.tolist()
  ([2, 0, 1], [1, 2], [0, 0])
  """
  num_nodes = start.shape[0] - 1
  level, present, nodes_to, edges_to = seeds, jnp.ones(len(seeds), bool), [len(seeds)], [0]
  nodes, has_edges, edges, senders, receivers, where = [seeds], [], [], [], [], []
  for hop, fanout in enumerate(fanouts):
    first = start[level]
    degree = jnp.where(present, start[level + 1] - first, 0)
    has_edges.append(degree > 0)
    place, drawn = draw_places(jax.random.fold_in(key, hop), degree, num=fanout)
    edge, drawn = jnp.where(drawn, first[:, None] + place, 0).ravel(), drawn.ravel()
    sent = jnp.where(drawn, graph.senders[edge], 0)
    edges.append(edge)
    where.append(drawn)
    receivers.append(jnp.repeat(jnp.arange(nodes_to[-1] - len(level), nodes_to[-1]), fanout))
    if len(sent) < num_nodes:
      senders.append(nodes_to[-1] + jnp.arange(len(sent)))
      level, present = sent, drawn
    else:
      senders.append(nodes_to[-1] + sent)
      level, present = jnp.arange(num_nodes, dtype=jnp.int32), jnp.ones(num_nodes, bool)
    nodes.append(level)
    nodes_to.append(nodes_to[-1] + len(level))
    edges_to.append(edges_to[-1] + len(edge))
  has_edges.append(present & (start[level + 1] > start[level]))
  return Subgraph(
    nodes=jnp.concatenate(nodes),
    has_edges=jnp.concatenate(has_edges),
    graph=jraph.GraphsTuple(
      nodes=None,
      edges=graph.edges[jnp.concatenate(edges)],
      senders=jnp.concatenate(senders).astype(jnp.int32),
      receivers=jnp.concatenate(receivers).astype(jnp.int32),
      globals=None,
      n_node=jnp.array([nodes_to[-1]], jnp.int32),
      n_edge=jnp.array([edges_to[-1]], jnp.int32),
    ),
    where=jnp.concatenate(where),
    nodes_to=tuple(nodes_to),
    edges_to=tuple(edges_to[1:]),
  )


def draw_places(key: Array, degrees: Array, *, num: int) -> tuple[Array, Array]:
  """Draws up to S distinct places in 0 … degree − 1 for each row, each with probability
  min(1, S ÷ degree).

  The places of a row form a circle, which is divided from a random place on into S arcs whose
  lengths differ by at most one; one place is drawn from each arc. This needs neither rejection nor
  sorting, and integers make it exact.

  Args:
    key: PRNG key, consumed.
    degrees: [R] int32 in 0 … 2³⁰ − 1.
    num: S, static.
  Returns:
    [R, S] int32 places, and [R, S] bool, False for unused columns: a row with fewer than S places
    yields all of them in order.
  """
  turn_key, arc_key = jax.random.split(key)
  degrees, arc = degrees[:, None], jnp.arange(num, dtype=jnp.int32)
  size, longer = degrees // num, degrees % num
  bits = jax.random.bits(arc_key, (len(degrees), num))
  place = arc * size + jnp.minimum(arc, longer)
  place += below(bits, jnp.maximum(size + (arc < longer), 1))
  place += below(jax.random.bits(turn_key, degrees.shape), jnp.maximum(degrees, 1))
  place = jnp.where(place >= degrees, place - degrees, place)
  all_of_them = degrees <= num
  return jnp.where(all_of_them, arc, place), (arc < degrees) | ~all_of_them


class Slots(NamedTuple):
  """Places for edges that are drawn of every node.

  Attributes: node: [S'] int32, ascending: each node as often as it has edges, but at most S times;
    possibly followed by more of the last one.
  """

  node: Array


def edges_a_node(convolution: Convolution, *, num_edges: int) -> int:
  """S, how many edges of each node a step over the whole graph reads at most; 0 = all.

  Args: convolution: its `drawn_edges`; 0 = all of at most 2²³ directed edges, else `DRAWN_EDGES`.
  """
  if not isinstance(convolution, LightConvolution) or convolution.fanouts:
    return 0
  asked = convolution.drawn_edges
  return asked if asked or num_edges <= _MOST_EDGES else DRAWN_EDGES


def make_slots(start: np.ndarray, *, num: int) -> Slots:
  """The slots of every node; numpy arrays.

  Args: start: [N + 1] int, where each node's incoming edges begin. num: S.
  """
  count = np.minimum(np.diff(start), num)
  return Slots(np.repeat(np.arange(len(count), dtype=np.int32), count))


def draw_edges(
  key: Array, graph: jraph.GraphsTuple, start: Array, slots: Slots, *, num: int
) -> tuple[jraph.GraphsTuple, Array]:
  """Draws up to `num` incoming edges of every node, without replacement; traceable.

  The draw is systematic (Madow 1949): of d edges and m = min(d, S) slots, slot k reads edge
  ⌊(k d + r) ÷ m⌋, r uniform in 0 … d − 1. So each edge is drawn with probability m ÷ d, from one
  random number a node, and means over the drawn edges estimate those over all.

  Args:
    key: PRNG key, consumed.
    graph: receiver-sorted, fewer than 2³⁰ edges to any node.
    start: [N + 1] int32, where each node's incoming edges begin.
    slots: of `make_slots`, for the same S.
    num: S, static, at most 2¹⁴.
  Returns:
    The same nodes with S' of the edges, sorted by receiver; and [S'] bool, False for what follows
    `make_slots`.

  >>> train = Interactions.from_indices([0, 1], [0, 0], num_users=2, num_items=1)
  >>> graph = jax.tree.map(jnp.asarray, bipartite_graph(train))  # nodes 0, 1 are users, 2 the item
  >>> start = jnp.searchsorted(graph.receivers, jnp.arange(4))
  >>> slots = make_slots(start, num=1)
  >>> found, _ = draw_edges(jax.random.key(0), graph, start, slots, num=1)
  >>> found.receivers.tolist(), found.senders.tolist()[:2]
  ([0, 1, 2], [2, 2])
  """
  node = jnp.asarray(slots.node)
  degree = start[1:] - start[:-1]
  count = jnp.minimum(degree, num)
  turn = below(jax.random.bits(key, degree.shape), jnp.maximum(degree, 1))
  k = jnp.arange(len(node), dtype=jnp.int32) - (jnp.cumsum(count) - count)[node]
  m, d = count[node], degree[node]
  where = k < m
  # ⌊(k d + r) ÷ m⌋ without the product k d, which may be too large.
  place = k * (d // m) + (k * (d % m) + turn[node]) // m
  edge = jnp.where(where, start[node] + place, 0)
  drawn = graph._replace(
    senders=graph.senders[edge],
    receivers=node,
    edges=graph.edges[edge],
    n_node=graph.n_node[:1],
    n_edge=where.sum(dtype=jnp.int32)[None],
  )
  return drawn, where
