"""New users and items in a trained GAT: nodes of its graph, and rows of its parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.feedback import DISLIKE
from gatrec_jax.data.graph import add_users
from gatrec_jax.models.inputs import Inputs, NewUsers

Array = jax.Array


def graph_with_users(
  graph: jraph.GraphsTuple, users: NewUsers, *, num_users: int, settings: ModelConfig
) -> jraph.GraphsTuple:
  """The training graph with B new users as its last nodes, which receive from the items they rated.

  Args: graph: of U = num_users users. settings: of the model; which ratings become edges, and the
    features of these.
  """
  convolution = settings.convolution
  values = {
    "rating": (users.top_rating, users.low_rating),
    "time": (1.0, 1.0),
    "relevance": (0.0, float(np.log(DISLIKE))),
  }
  columns = [values[name] for name in convolution.edge_features]
  disliked = users.disliked
  if settings.graph == "liked":
    disliked = [items[:0] for items in disliked]
  features = [
    np.concatenate(
      [
        np.tile(np.float32([high for high, _ in columns]), (len(good), 1)),
        np.tile(np.float32([low for _, low in columns]), (len(bad), 1)),
      ]
    )
    for good, bad in zip(users.liked, disliked, strict=True)
  ]
  return add_users(
    jax.tree.map(np.asarray, graph),
    num_users=num_users,
    items=[np.concatenate(pair) for pair in zip(users.liked, disliked, strict=True)],
    features=features,
    self_loops=convolution.self_loops,
  )


def grown_params(
  params: Any,
  inputs: Inputs,
  *,
  former: Inputs,
  former_users: int,
  former_items: int,
  num_users: int,
) -> Any:
  """The parameters of a trained model for a larger catalog, whose known nodes come first.

  Rows of nodes without edges in training are replaced, and rows of new nodes added: a `table` gets
  their text vectors, `ids` the mean row of the known users or items.

  Args:
    params: of the smaller model, with U' = former_users users and I' = former_items items.
    inputs: of the larger model, with U = num_users users.
    former: inputs of the smaller model.
  """
  name = next((name for name in ("table", "ids") if name in params), None)
  if name is None:
    return params
  graph, rows, text = former.own.graph, params[name], inputs.text
  receivers = np.asarray(graph.receivers)[np.asarray(graph.senders != graph.receivers)]
  known = np.bincount(receivers, minlength=former_users + former_items)[:, None] > 0
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
