"""New users and items in a trained GAT: scores of new users, and rows of its parameters.

The functions take a `GatRecommender` as `recommender`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.feedback import DISLIKE
from gatrec_jax.models.events import Earlier
from gatrec_jax.models.gat.channels import Channels
from gatrec_jax.models.gat.history import states_of
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.scores import Pair

Array = jax.Array


def edges_to_new_users(
  liked: Array,
  disliked: Array,
  *,
  top_rating: Array | float,
  low_rating: Array | float,
  settings: ModelConfig,
) -> tuple[jraph.GraphsTuple, Array]:
  """A graph of I items and B new users, with an edge from every item to every new user; traceable.

  Its shape depends on I and B alone, so that one program serves users with any number of ratings.

  Args: liked, disliked: [B, I] float32, 1 where a user rated the item. The rest: as in `NewUsers`,
    and of the model.
  Returns: the graph of I + B nodes, users last, E = B · I edges (and B self-loops) sorted by
    receiver; and [E] bool, the edges that count.
  """
  convolution = settings.convolution
  num_users, num_items = liked.shape
  rated = liked > 0
  if settings.graph == "rated":
    rated |= disliked > 0
  values = {
    "rating": (top_rating, low_rating),
    "time": (1.0, 1.0),
    "relevance": (0.0, float(np.log(DISLIKE))),
  }
  pairs = [values[name] for name in convolution.edge_features]
  columns = [jnp.where(liked > 0, high, low).astype(jnp.float32) for high, low in pairs]
  features = jnp.stack(columns, axis=2) if columns else jnp.zeros((*liked.shape, 0))
  senders = jnp.broadcast_to(jnp.arange(num_items), liked.shape)
  receivers = num_items + jnp.arange(num_users)[:, None]
  if convolution.self_loops:
    total = jnp.sum(jnp.where(rated[:, :, None], features, 0.0), axis=1, keepdims=True)
    count = jnp.maximum(rated.sum(axis=1), 1)[:, None, None]
    features = jnp.concatenate([features, total / count], axis=1)
    senders = jnp.concatenate([senders, receivers], axis=1)
    rated = jnp.concatenate([rated, jnp.ones((num_users, 1), bool)], axis=1)
  receivers = jnp.broadcast_to(receivers, senders.shape)
  graph = jraph.GraphsTuple(
    nodes=None,
    edges=features.reshape(senders.size, len(columns)),
    senders=senders.ravel().astype(jnp.int32),
    receivers=receivers.ravel().astype(jnp.int32),
    globals=None,
    n_node=jnp.array([num_items + num_users]),
    n_edge=jnp.array([senders.size]),
  )
  return graph, rated.ravel()


def nodes_with_edges(graph: jraph.GraphsTuple, *, num_nodes: int) -> np.ndarray:
  """[num_nodes] bool, nodes that an edge from another one leads to."""
  receivers = np.asarray(graph.receivers)[np.asarray(graph.senders != graph.receivers)]
  return np.bincount(receivers, minlength=num_nodes) > 0


def grown_params(
  params: Any, text: Array, known: np.ndarray, *, former_users: int, num_users: int
) -> Any:
  """The parameters of a trained model for a larger catalog, whose known nodes come first.

  Rows of nodes that are not `known` are replaced, and rows of new nodes added: a `table` gets their
  text vectors, `ids` the mean row of the known users or items.

  Args:
    params: of the smaller model, with U' = former_users users and I' items.
    text: [U + I, D] of the larger model, with U = num_users users.
    known: [U' + I'] bool, nodes whose rows were trained.
  """
  name = next((name for name in ("table", "ids") if name in params), None)
  if name is None:
    return params
  rows, known = params[name], known[:, None]
  kinds = [
    _grown_rows(rows[:former_users], known[:former_users], text[:num_users], kind=name),
    _grown_rows(rows[former_users:], known[former_users:], text[num_users:], kind=name),
  ]
  return params | {name: jnp.concatenate(kinds)}


def _grown_rows(rows: Array, known: np.ndarray, text: Array, *, kind: str) -> Array:
  """[n, W] from [n', W]: the `known` [n', 1] rows unchanged, the text [n, D] (`table`) or the mean
  of the known rows (`ids`) for the others."""
  stand_in = text
  if kind == "ids":
    mean = jnp.sum(known * rows, axis=0) / max(known.sum(), 1)
    stand_in = jnp.broadcast_to(mean, (len(text), rows.shape[1]))
  former = jnp.where(known, rows, stand_in[: len(rows)])
  return jnp.concatenate([former, stand_in[len(rows) :]])


def products(users: Array, items: Array) -> Array:
  """[B, I] float32 dot products of [B, D] and [I, D]."""
  return jnp.matmul(users, items.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="recommender")
def products_of_events(
  params: Any, serving_state: Pair | Channels, found: Earlier, *, recommender: Any
) -> Array:
  """[B, I] dot products of new users, of whom only these events are known, with the items."""
  pair = serving_state.vectors if isinstance(serving_state, Channels) else serving_state
  states = states_of(
    params.get("users", {}),
    pair[1],
    found,
    settings=recommender.settings.history,
    is_cosine=recommender.settings.score == "cosine",
  )
  return products(states, pair[1])


@partial(jax.jit, static_argnames="recommender")
def products_of_new(
  params: Any,
  inputs: Inputs,
  serving_state: Pair | Channels,
  liked: Array,
  disliked: Array,
  text: Array,
  ratings: tuple[Array, Array],
  *,
  recommender: Any,
) -> Array:
  """[B, I] dot products of new users, of whose ratings the order is unknown, with the items.

  Args:
    liked, disliked: [B, I] float32, 1 where rated.
    text: [B, D_text] float32.
    ratings: highest, lowest.
  """
  if isinstance(serving_state, Channels):
    items, known = serving_state.vectors[1], serving_state.states
  else:
    items, known = serving_state[1], recommender.served(params, inputs)[1]
  top, low = ratings
  graph, where = edges_to_new_users(
    liked, disliked, top_rating=top, low_rating=low, settings=recommender.settings
  )
  new = recommender.module.apply({"params": params}, text, graph, where=where, known=known)
  return products(new, items)
