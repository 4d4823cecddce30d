"""Training on a mesh of devices: the same method, its arrays cut and filled up.

  mesh = make_mesh(graph=8)
  placed = OnMesh.of(method)
  with jax.set_mesh(mesh):
    state = init_state(place_inputs(inputs, mesh), method=placed, config=config)
    state, losses = train_epochs(state, …, method=placed, …)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.config import TrainConfig
from gatrec_jax.models.method import Inputs, LearnedMethod
from gatrec_jax.models.propagation import DenseEdges, SparseEdges
from gatrec_jax.models.softmax import Targets
from gatrec_jax.parallel.placement import (
  constrain_batch,
  constrain_tables,
  fill,
  put,
  put_edges,
  put_tables,
  unfill,
  whole,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OnMesh:
  """A method whose parameters and inputs are those of `place_inputs`: it fills up what `inner`
  makes, and cuts off the filling before `inner` reads it.

  Attributes:
    inner: the method; its settings are replaced by `settings`, which may be traced.
  """

  inner: LearnedMethod
  settings: Any
  num_users: int
  num_items: int

  @staticmethod
  def of(method: LearnedMethod) -> OnMesh:
    """The method, to be trained on a mesh."""
    return OnMesh(method, method.settings, method.num_users, method.num_items)

  def num_rows(self, inputs: Inputs) -> int:
    return self._method.num_rows(inputs)

  def init(self, inputs: Inputs, key: Array) -> Any:
    return constrain_tables(fill(self._method.init(self._unfilled(inputs), key)))

  def loss(
    self, params: Any, inputs: Inputs, rows: Array, key: Array, *, step: Array,
    train: TrainConfig, where: Array,
  ) -> Array:  # fmt: skip
    inputs = self._unfilled(inputs)
    like = jax.eval_shape(self._method.init, inputs, key)
    return self._method.loss(
      unfill(constrain_tables(params), like), inputs, constrain_batch(rows), key, step=step,
      train=train, where=constrain_batch(where),
    )  # fmt: skip

  @property
  def _method(self) -> LearnedMethod:
    return dataclasses.replace(self.inner, settings=self.settings)

  def _unfilled(self, inputs: Inputs) -> Inputs:
    return inputs._replace(text=inputs.text[: self.num_users + self.num_items])


def place_inputs(inputs: Inputs, mesh: Mesh) -> Inputs:
  """What a step reads, on the mesh.

  Edges lie over `graph`, filled up with edges that count 0, tables of texts by rows, everything
  else everywhere. What only serving reads is left out.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  host = jax.tree.map(np.asarray, inputs)
  own = host.own
  if getattr(own, "linear", None) is not None:
    own = own._replace(linear=None)
  if getattr(own, "layout", None) is not None:  # the mesh has an implementation of its own
    own = own._replace(layout=None)
  placed = jax.tree.map(
    lambda part: _place_edges(part, mesh), own, is_leaf=lambda part: isinstance(part, _CUT)
  )
  rest = jax.tree.map(lambda array: put(array, everywhere), host._replace(text=None, own=None))
  return rest._replace(text=put_tables(host.text, mesh), own=placed)


def saved_form(state_tree: Any, mesh: Mesh, like: Any) -> Any:
  """Parameters or optimiser state as one device would have them, for checkpoints and serving.

  Args: like: a tree with the shapes on one device.
  """
  return whole(state_tree, mesh, like)


def from_saved(tree: Any, mesh: Mesh) -> Any:
  """The inverse, from arrays on the host, onto any mesh."""
  return put_tables(tree, mesh)


# What is cut along its edges; all else of a method's own inputs lies everywhere.
_CUT = (jraph.GraphsTuple, Targets, SparseEdges)


def _place_edges(part: Any, mesh: Mesh) -> Any:
  devices, everywhere = mesh.shape["graph"], NamedSharding(mesh, PartitionSpec())
  if isinstance(part, jraph.GraphsTuple):
    size, more = len(part.senders), -len(part.senders) % devices
    last = int(part.n_node.sum()) - 1
    cut = {
      "senders": np.pad(part.senders, (0, more)),
      "receivers": np.pad(part.receivers, (0, more), constant_values=last),
      "edges": np.pad(part.edges, ((0, more), (0, 0))),
    }
    counts = {"n_node": np.append(part.n_node, 0), "n_edge": np.append(part.n_edge, more)}
    return part._replace(
      **put_edges(cut, mesh, size=size + more),
      **{name: put(count.astype(np.int32), everywhere) for name, count in counts.items()},
    )
  if isinstance(part, Targets) and isinstance(part.edges, DenseEdges):
    # Filled up with rows of users that no batch has.
    rows = np.pad(part.edges.adjacency, ((0, -len(part.edges.adjacency) % devices), (0, 0)))
    edges = DenseEdges(put(rows, NamedSharding(mesh, PartitionSpec("graph"))))
    return Targets(edges, put(part.total, everywhere))
  if isinstance(part, Targets):
    return Targets(_place_edges(part.edges, mesh), put(part.total, everywhere))
  if isinstance(part, SparseEdges):
    weights = [np.ones(len(part.user), np.float32) if weight is None else weight
               for weight in (part.weight, part.weight_by_item)]  # fmt: skip
    full = part._replace(weight=weights[0], weight_by_item=weights[1])
    more = -len(part.user) % devices
    ends = [np.pad(array, (0, more), mode="edge") for array in full[:4]]
    weights = [np.pad(array, (0, more)) for array in full[4:]]
    return put_edges(SparseEdges(*ends, *weights), mesh, size=len(part.user) + more)
  return put(part, everywhere)
