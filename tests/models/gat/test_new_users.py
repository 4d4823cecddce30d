"""New users of a trained GAT: their edges by hand, their vectors as nodes of a larger graph."""

import jax
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.feedback import DISLIKE
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.gat.network import GatNetwork
from gatrec_jax.models.gat.new_nodes import edges_to_new_users

USERS, ITEMS = 4, 5
FULL = dict(convolution="full", layer_widths=(6, 3), heads=(2, 1))
LIGHT = dict(convolution="light", layers=2, combine="mean", feature_width=6, attention="v1")
RATING = dict(edge_features=("rating",))
RATED = Interactions.from_indices(
  [0, 0, 1, 2, 2], [0, 2, 1, 0, 3], [5, 2, 4, 3, 5], num_users=USERS, num_items=ITEMS
)


def settings(**fields):
  return replaced(ModelConfig(), fields)


def rows(*items):
  out = np.zeros((len(items), ITEMS), np.float32)
  for row, own in zip(out, items, strict=True):
    row[list(own)] = 1
  return jax.device_put(out)


def edges(liked, disliked, **fields):
  return edges_to_new_users(
    liked, disliked, top_rating=5.0, low_rating=1.0, settings=settings(**fields)
  )


def counted(graph, where):
  """The edges that count, as rows of sender, receiver, features."""
  assert (np.diff(graph.receivers) >= 0).all()
  columns = graph.senders[:, None], graph.receivers[:, None], graph.edges
  return np.concatenate(columns, axis=1)[np.asarray(where)]


def test_edges_by_hand():
  liked, disliked = rows([1], [0, 4]), rows([3], [])
  both = dict(edge_features=("rating", "relevance"))
  low = np.log(DISLIKE)
  want = [(1, 5, 5.0, 0.0), (3, 5, 1.0, low), (0, 6, 5.0, 0.0), (4, 6, 5.0, 0.0)]
  got = counted(*edges(liked, disliked, **LIGHT, **both))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  got = counted(*edges(liked, disliked, **LIGHT, **both, graph="liked"))
  np.testing.assert_allclose(got, [want[0], *want[2:]], rtol=1e-6)
  # A self-loop has the mean features of the edges that count, 0 without any.
  looped = counted(
    *edges(rows([1], []), rows([3], []), **FULL, self_loops=True, edge_features=("rating",))
  )
  assert looped.tolist() == [[1, 5, 5], [3, 5, 1], [5, 5, 3], [6, 6, 0]]
  graph, where = edges(liked, disliked, **LIGHT, edge_features=())
  assert graph.edges.shape == (10, 0) and int(where.sum()) == 4


@pytest.mark.parametrize(
  ("layers", "features"),
  [
    (FULL | RATING | {"self_loops": True}, "sum"),
    (FULL | RATING, "table"),
    (LIGHT | RATING, "ids"),
    (LIGHT | RATING, "projected"),
    ({"convolution": "none"}, "sum"),
  ],
)
def test_their_vectors_are_those_of_nodes_that_only_receive(layers, features):
  width = {} if features == "table" else {"feature_width": 6}
  own = settings(**layers | width, node_features=features)
  rng = np.random.default_rng(0)
  text = rng.normal(size=(USERS + ITEMS, 6)).astype(np.float32)
  new_text = rng.normal(size=(1, 6)).astype(np.float32)
  loops = own.convolution.self_loops
  graph = bipartite_graph(RATED, self_loops=loops)
  model = GatNetwork(own, USERS, ITEMS)
  shapes = jax.eval_shape(model.init, jax.random.key(0), text, graph)["params"]
  params = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape) / 2), shapes)
  run = jax.jit(model.apply, static_argnames="return_states")
  states = run({"params": params}, text, graph, return_states=True)[1]
  known = [state[USERS:] for state in states[:-1]]
  new, where = edges_to_new_users(
    rows([0, 2]), rows([3]), top_rating=5.0, low_rating=1.0, settings=own
  )
  got = run({"params": params}, new_text, new, where=where, known=known)
  # The same user as a node between the users and the items of a larger network.
  grown = {
    name: np.insert(params[name], USERS, row, axis=0)
    for name, row in (("table", new_text[0]), ("ids", None))
    if name in params
    for row in [params["ids"][:USERS].mean(axis=0) if row is None else row]
  }
  larger = with_user(graph, [0, 2, 3], [5.0, 5.0, 1.0], loops=loops)
  text = np.insert(text, USERS, new_text[0], axis=0)
  want = jax.jit(GatNetwork(own, USERS + 1, ITEMS).apply)({"params": params | grown}, text, larger)
  np.testing.assert_allclose(got, want[USERS : USERS + 1], atol=1e-5)


def with_user(graph, items, ratings, *, loops):
  """The graph with a node after its users that receives from items; items move up by one."""
  senders, receivers = (
    np.where(ends >= USERS, ends + 1, ends) for ends in (graph.senders, graph.receivers)
  )
  senders = np.concatenate([senders, np.array(items) + USERS + 1, [USERS] * loops])
  receivers = np.concatenate([receivers, [USERS] * (len(items) + loops)])
  features = np.concatenate([graph.edges[:, 0], ratings, [np.mean(ratings)] * loops])
  order = np.argsort(receivers, kind="stable")
  return graph._replace(
    senders=senders[order].astype(np.int32),
    receivers=receivers[order].astype(np.int32),
    edges=features[order, None].astype(np.float32),
    n_node=np.array([USERS + 1 + ITEMS], np.int32),
    n_edge=np.array([len(senders)], np.int32),
  )
