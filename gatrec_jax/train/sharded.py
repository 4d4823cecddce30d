"""Training on a mesh of devices: the same recommender, its arrays padded and divided.

  train_and_evaluate(config, workdir, mesh=make_mesh(graph=8))

Or by hand: `OnMesh.of(recommender)` and `place_inputs` under `jax.set_mesh` are what
`start_training` and `train_epochs` take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import LearnedRecommender
from gatrec_jax.models.inputs import Batch, Inputs
from gatrec_jax.ops.neighbors import Slots
from gatrec_jax.ops.propagation import DenseEdges, SparseEdges
from gatrec_jax.ops.softmax_loss import Targets
from gatrec_jax.sharding.placement import (
  constrain_batch,
  constrain_tables,
  pad,
  put,
  put_edges,
  put_rows,
  put_tables,
  unpad,
)
from gatrec_jax.train.epochs import start_training
from gatrec_jax.train.state import TrainState

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OnMesh:
  """A recommender whose parameters and inputs are those of `place_inputs`: it pads what `inner`
  makes, and removes the padding before `inner` reads it.

  Attributes:
    inner: the recommender; its settings are replaced by `settings`, which may be traced.
  """

  inner: LearnedRecommender
  settings: Any
  num_users: int
  num_items: int

  @staticmethod
  def of(recommender: LearnedRecommender) -> OnMesh:
    """The recommender, to be trained on a mesh."""
    return OnMesh(recommender, recommender.settings, recommender.num_users, recommender.num_items)

  def num_rows(self, inputs: Inputs) -> int:
    return self._recommender.num_rows(inputs)

  def init(self, inputs: Inputs, key: Array) -> Any:
    return constrain_tables(pad(self._recommender.init(self._unpadded(inputs), key)))

  def loss(self, params: Any, batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    inputs = self._unpadded(inputs)
    like = jax.eval_shape(self._recommender.init, inputs, key)
    rows, where = constrain_batch(batch.rows), constrain_batch(batch.where)
    return self._recommender.loss(
      unpad(constrain_tables(params), like),
      batch._replace(rows=rows, where=where),
      key,
      inputs=inputs,
    )

  @property
  def _recommender(self) -> LearnedRecommender:
    return dataclasses.replace(self.inner, settings=self.settings)

  def _unpadded(self, inputs: Inputs) -> Inputs:
    return dataclasses.replace(inputs, text=inputs.text[: self.num_users + self.num_items])


def place_inputs(inputs: Inputs, mesh: Mesh, *, recommender: LearnedRecommender) -> Inputs:
  """The inputs of a step, placed on the mesh.

  Edges are divided over `graph` (padded with edges that count 0), tables of texts by rows, and
  positives, what negatives are drawn from and where a user's begin by rows over all devices
  (`put_rows`). What else a recommender adds is replicated; what only serving reads is left out.
  """
  host = jax.tree.map(np.asarray, inputs)
  placed = jax.tree.map(
    lambda part: _place_edges(part, mesh),
    recommender.on_mesh(host.own),
    is_leaf=lambda part: isinstance(part, _DIVIDED),
  )
  rest = dataclasses.replace(host, text=None, own=None)
  return dataclasses.replace(put_rows(rest, mesh), text=put_tables(host.text, mesh), own=placed)


class Place:
  """Where training takes place: on one device, where arrays stay as they are, or on a mesh.

  Attributes: recommender, inputs, config: as training on this place takes them.
  """

  def __init__(
    self, mesh: Mesh | None, *, recommender: LearnedRecommender, inputs: Inputs, config: TrainConfig
  ) -> None:
    """Puts the inputs on the mesh. None: one device."""
    self._mesh, self.config = mesh, config
    # `eval_shape` of the recommender itself gives the shapes without padding.
    self._alone = functools.partial(start_training, inputs, recommender=recommender, config=config)
    self.recommender = recommender if mesh is None else OnMesh.of(recommender)
    self.inputs = inputs if mesh is None else place_inputs(inputs, mesh, recommender=recommender)

  def entered(self) -> contextlib.AbstractContextManager:
    """The context in which programs are compiled for the mesh."""
    return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

  def init(self) -> TrainState:
    """The first state."""
    with self.entered():
      return start_training(self.inputs, recommender=self.recommender, config=self.config)

  def like(self) -> TrainState:
    """Shapes of a state as it is saved, with the sharding that it is to be restored with."""
    shapes = jax.eval_shape(self._alone)
    if self._mesh is None:
      return shapes
    everywhere = NamedSharding(self._mesh, PartitionSpec())
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes
    )

  def saved(self, state: TrainState) -> TrainState:
    """The state as one device would have it: the form of checkpoints, whatever the mesh."""
    if self._mesh is None:
      return state
    unpadded = self._unpadded
    with self.entered():
      return unpadded(state)

  @functools.cached_property
  def _unpadded(self) -> Callable[[TrainState], TrainState]:
    """Compiled once. Made outside of the mesh, which would refuse edges that are not padded."""
    like = self.like()
    everywhere = NamedSharding(self._mesh, PartitionSpec())
    return jax.jit(lambda state: unpad(state, like), out_shardings=everywhere)

  def put(self, saved: TrainState) -> TrainState:
    """The inverse, onto this mesh."""
    return saved if self._mesh is None else put_tables(saved, self._mesh)

  def local(self, tree: Any) -> Any:
    """Saved arrays for use outside of the mesh."""
    return tree if self._mesh is None else jax.tree.map(np.asarray, tree)


# What is divided along its edges; the rest of a recommender's own inputs is replicated.
_DIVIDED = (jraph.GraphsTuple, Slots, Targets, SparseEdges)


def _place_edges(part: Any, mesh: Mesh) -> Any:
  devices, everywhere = mesh.shape["graph"], NamedSharding(mesh, PartitionSpec())
  if isinstance(part, jraph.GraphsTuple):
    size, more = len(part.senders), -len(part.senders) % devices
    last = int(part.n_node.sum()) - 1
    edges = {
      "senders": np.pad(part.senders, (0, more)),
      "receivers": np.pad(part.receivers, (0, more), constant_values=last),
      "edges": np.pad(part.edges, ((0, more), (0, 0))),
    }
    counts = {"n_node": np.append(part.n_node, 0), "n_edge": np.append(part.n_edge, more)}
    return part._replace(
      **put_edges(edges, mesh, size=size + more),
      **{name: put(count.astype(np.int32), everywhere) for name, count in counts.items()},
    )
  if isinstance(part, Slots):
    node = np.pad(part.node, (0, -len(part.node) % devices), mode="edge")
    return Slots(put_edges(node, mesh, size=len(node)))
  if isinstance(part, Targets):
    rest = jax.tree.map(lambda array: put(array, everywhere), part._replace(edges=None))
    return rest._replace(edges=_place_edges(part.edges, mesh))
  if isinstance(part, DenseEdges):
    # Padded with rows of users that no batch has.
    rows = np.pad(part.adjacency, ((0, -len(part.adjacency) % devices), (0, 0)))
    return DenseEdges(put(rows, NamedSharding(mesh, PartitionSpec("graph"))))
  if isinstance(part, SparseEdges):
    weights = [
      np.ones(len(part.user), np.float32) if weight is None else weight
      for weight in (part.weight, part.weight_by_item)
    ]
    full = part._replace(weight=weights[0], weight_by_item=weights[1])
    more = -len(part.user) % devices
    ends = [np.pad(array, (0, more), mode="edge") for array in full[:4]]
    weights = [np.pad(array, (0, more)) for array in full[4:]]
    return put_edges(SparseEdges(*ends, *weights), mesh, size=len(part.user) + more)
  return put(part, everywhere)
