"""Graphs as jraph.GraphsTuple: users and items, or items that follow each other."""

from __future__ import annotations

from collections.abc import Sequence

import jraph
import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError


def bipartite_graph(
  interactions: Interactions,
  *,
  edge_features: Sequence[str] = ("rating",),
  self_loops: bool = False,
  relevance: np.ndarray | None = None,
  pad_to: tuple[int, int] | None = None,
) -> jraph.GraphsTuple:
  """The user-item graph of the given (training) interactions.

  Node n is user n for n < U, and item n − U otherwise. The order of rows does not matter.

  Args:
    interactions: the rows that become edges; R of them.
    edge_features: columns of the edge features, F of them: `rating` as given, `time` scaled to
      [0, 1] over these rows (0 if times are unknown), `relevance` the logarithm of `relevance`.
    self_loops: add an edge from each node to itself, with the mean features of its incoming edges
      (0 for an isolated node).
    relevance: [R] float32 in (0, 1] (gatrec_jax/data/feedback.py).
    pad_to: (nodes, edges), both larger than the graph's: pads with jraph's rule to that static
      shape; padding edges join the first padding node.
  Returns:
    GraphsTuple with `senders`, `receivers` [E] int32 sorted by receiver, `edges` [E, F] float32,
    E = 2 R (+ U + I), `nodes` and `globals` None; numpy arrays.
  Raises:
    InputError: an unknown edge feature, one without its values, or `pad_to` too small.

  >>> train = Interactions.from_indices([0, 1], [0, 0], [5, 3], num_users=2, num_items=2)
  >>> graph = bipartite_graph(train)  # nodes 0, 1 are the users; 2, 3 the items
  >>> graph.senders.tolist(), graph.receivers.tolist()
  ([2, 2, 0, 1], [0, 1, 2, 2])
  >>> graph.edges.tolist()
  [[5.0], [3.0], [5.0], [3.0]]
  """
  num_users, num_nodes = interactions.num_users, interactions.num_users + interactions.num_items
  features = np.stack(
    [_column(interactions, name, relevance) for name in edge_features]
    or [np.zeros(len(interactions), np.float32)],
    axis=1,
  )
  if not edge_features:
    features = features[:, :0]
  users, items = interactions.user.astype(np.int32), interactions.item + np.int32(num_users)
  # All edges to users come before those to items, so that each half is sorted alone.
  by_user, by_item = np.lexsort((items, users)), np.lexsort((users, items))
  senders = np.concatenate([items[by_user], users[by_item]])
  receivers = np.concatenate([users[by_user], items[by_item]])
  features = np.concatenate([features[by_user], features[by_item]])
  if self_loops:
    count = np.bincount(receivers, minlength=num_nodes)
    sums = (
      np.stack([np.bincount(receivers, weights=f, minlength=num_nodes) for f in features.T], axis=1)
      if features.shape[1]
      else np.zeros((num_nodes, 0))
    )
    nodes = np.arange(num_nodes, dtype=np.int32)
    senders, receivers = np.append(senders, nodes), np.append(receivers, nodes)
    means = (sums / np.maximum(count, 1)[:, None]).astype(np.float32)
    features = np.concatenate([features, means])
    order = np.lexsort((senders, receivers))
    senders, receivers, features = senders[order], receivers[order], features[order]
  graph = jraph.GraphsTuple(
    nodes=None,
    edges=features,
    senders=senders,
    receivers=receivers,
    globals=None,
    n_node=np.array([num_nodes], np.int32),
    n_edge=np.array([len(senders)], np.int32),
  )
  if pad_to is None:
    return graph
  if pad_to[0] <= num_nodes or pad_to[1] < len(senders):
    raise InputError(
      f"pad_to={pad_to}: the graph has {num_nodes} nodes (one more is needed) and "
      f"{len(senders)} edges"
    )
  return jraph.pad_with_graphs(graph, n_node=pad_to[0], n_edge=pad_to[1], n_graph=2)


def next_event_graph(
  user: np.ndarray,
  item: np.ndarray,
  relevance: np.ndarray,
  *,
  num_items: int,
  edge_features: Sequence[str] = ("relevance",),
) -> tuple[jraph.GraphsTuple, np.ndarray]:
  """The graph of items with edges, in both directions, from each event to the user's next one.

  Args:
    user, item, relevance: [R], of events, by user and then by time.
    edge_features: `relevance`, the logarithm of the product of both events', or none.
  Returns:
    GraphsTuple as that of `bipartite_graph`, of I nodes; and [E] int32, the later of the two events
    of each edge.
  Raises:
    InputError: an edge feature that such edges do not have.

  >>> user, item, relevance = np.zeros(3, int), np.array([2, 0, 1]), np.ones(3)
  >>> graph, later = next_event_graph(user, item, relevance, num_items=3)
  >>> graph.senders.tolist(), graph.receivers.tolist(), later.tolist()
  ([1, 2, 0, 0], [0, 0, 1, 2], [2, 1, 2, 1])
  """
  if unknown := set(edge_features) - {"relevance"}:
    raise InputError(
      "edges from an event to the next one have relevance alone",
      field="edge_features",
      value=",".join(sorted(unknown)),
    )
  first = np.flatnonzero(user[1:] == user[:-1])
  ends = item[first].astype(np.int32), item[first + 1].astype(np.int32)
  both = np.log(relevance[first] * relevance[first + 1]).astype(np.float32)
  senders, receivers = np.concatenate(ends), np.concatenate(ends[::-1])
  later = np.tile(first + 1, 2).astype(np.int32)
  order = np.lexsort((later, senders, receivers))
  features = np.tile(both, 2)[order][:, None][:, : len(edge_features)]
  graph = jraph.GraphsTuple(
    nodes=None,
    edges=features,
    senders=senders[order],
    receivers=receivers[order],
    globals=None,
    n_node=np.array([num_items], np.int32),
    n_edge=np.array([len(senders)], np.int32),
  )
  return graph, later[order]


def _column(interactions: Interactions, name: str, relevance: np.ndarray | None) -> np.ndarray:
  if name == "relevance" and relevance is not None:
    return np.log(relevance).astype(np.float32)
  if name == "rating":
    return interactions.rating.astype(np.float32)
  if name == "time":
    time = interactions.timestamp
    span = max(int(time.max() - time.min()), 1) if len(time) else 1
    return ((time - (time.min() if len(time) else 0)) / span).astype(np.float32)
  raise InputError(f"edge_features: '{name}' does not exist; there are rating, time and relevance")
