"""Layer-wise neighbour sampling (GraphSAGE, Hamilton et al. 2017, algorithm 2), drawn on device.

A step then costs what its seeds and fan-outs say, whatever the size of the graph. Around each seed
grows a tree: a node that several others hear stands in it once for each of them, with draws of its
own, so that all shapes are known before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import jraph

from gatrec_jax.models.negatives import below

Array = jax.Array


@flax.struct.dataclass
class Subgraph:
  """What some nodes hear of within a few hops, level by level: the seeds are level 0, and level
  l + 1 sends to level l.

  Attributes:
    nodes: [T] int32, of the whole graph, T = M (1 + S_1 + S_1 S_2 + …); the seeds come first. Node
      0 fills places where there is nothing.
    has_edges: [T] bool, whether the whole graph has an edge to that node; False for such a place.
    graph: T nodes; senders, receivers [E'] int32 are indices into `nodes`, receivers ascending;
      edges [E', F]. E' = T − M: every place behind the seeds sends one edge.
    where: [E'] bool, edges that are there.
    levels: static; M, M (1 + S_1), …, T: how many nodes there are up to each level.
  """

  nodes: Array
  has_edges: Array
  graph: jraph.GraphsTuple
  where: Array
  levels: tuple[int, ...] = flax.struct.field(pytree_node=False)


def draw_subgraph(
  key: Array, graph: jraph.GraphsTuple, start: Array, seeds: Array, *, fanouts: Sequence[int]
) -> Subgraph:
  """Draws up to `fanouts[l]` incoming edges of each node of level l, without replacement.

  With fan-outs of at least the largest number of incoming edges nothing is left out.

  Args:
    key: PRNG key, consumed.
    graph: receiver-sorted, of N nodes and at least one edge, fewer than 2³⁰ to any node.
    start: [N + 1] int32, where each node's incoming edges begin.
    seeds: [M] int32 nodes, in any order; one may be there twice.
    fanouts: S_1, …, S_L, static, each at least 1; empty = the seeds alone.
  """
  levels, nodes, there, edges, inside, receivers = [len(seeds)], [seeds], [], [], [], []
  present = jnp.ones(len(seeds), bool)
  for level, fanout in enumerate(fanouts):
    frontier = nodes[-1]
    first = start[frontier]
    degree = jnp.where(present, start[frontier + 1] - first, 0)
    there.append(degree > 0)
    place, drawn = draw_places(jax.random.fold_in(key, level), degree, num=fanout)
    edges.append(jnp.where(drawn, first[:, None] + place, 0).ravel())
    receivers.append(jnp.repeat(jnp.arange(levels[-1] - len(frontier), levels[-1]), fanout))
    present = drawn.ravel()
    inside.append(present)
    nodes.append(jnp.where(present, graph.senders[edges[-1]], 0))
    levels.append(levels[-1] + len(present))
  there.append(present & (start[nodes[-1] + 1] > start[nodes[-1]]))
  nothing = jnp.zeros(0, jnp.int32)
  num_edges = levels[-1] - levels[0]
  return Subgraph(
    nodes=jnp.concatenate(nodes),
    has_edges=jnp.concatenate(there),
    graph=jraph.GraphsTuple(
      nodes=None,
      edges=graph.edges[jnp.concatenate([nothing, *edges])],
      senders=jnp.arange(levels[0], levels[-1], dtype=jnp.int32),
      receivers=jnp.concatenate([nothing, *receivers]).astype(jnp.int32),
      globals=None,
      n_node=jnp.array([levels[-1]], jnp.int32),
      n_edge=jnp.array([num_edges], jnp.int32),
    ),
    where=jnp.concatenate([nothing.astype(bool), *inside]),
    levels=tuple(levels),
  )


def draw_places(key: Array, degrees: Array, *, num: int) -> tuple[Array, Array]:
  """Up to S different places in 0 … degree − 1 for each row; each is drawn with probability
  min(1, S ÷ degree), exactly.

  Laid in a circle and cut, from a random place on, into S arcs that differ by one place at most,
  the places of a row give one of each arc: no rejection, no sorting. Whole numbers throughout.

  Args:
    key: PRNG key, consumed.
    degrees: [R] int32 in 0 … 2³⁰ − 1.
    num: S, static.
  Returns:
    [R, S] int32 places, and [R, S] bool: False behind the last place of a row with fewer than S,
    which gives all of its own, in order.
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
