"""Training on a mesh of devices: the same method, its arrays cut and filled up.

  with training_on(make_mesh(graph=8)):
    train_and_evaluate(config, workdir)

Or by hand: `OnMesh.of(method)` and `place_inputs` under `jax.set_mesh` are what `init_state` and
`train_epochs` take.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.config.schema import TrainConfig
from gatrec_jax.models.base import LearnedRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.propagation import DenseEdges, SparseEdges
from gatrec_jax.ops.softmax_loss import Targets
from gatrec_jax.sharding.placement import (
  constrain_batch,
  constrain_tables,
  pad,
  put,
  put_edges,
  put_tables,
  unpad,
)
from gatrec_jax.train.state import TrainState, init_state, train_epochs

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OnMesh:
  """A method whose parameters and inputs are those of `place_inputs`: it fills up what `inner`
  makes, and cuts off the filling before `inner` reads it.

  Attributes:
    inner: the method; its settings are replaced by `settings`, which may be traced.
  """

  inner: LearnedRecommender
  settings: Any
  num_users: int
  num_items: int

  @staticmethod
  def of(recommender: LearnedRecommender) -> OnMesh:
    """The method, to be trained on a mesh."""
    return OnMesh(recommender, recommender.settings, recommender.num_users, recommender.num_items)

  def num_rows(self, inputs: Inputs) -> int:
    return self._recommender.num_rows(inputs)

  def init(self, inputs: Inputs, key: Array) -> Any:
    return constrain_tables(pad(self._recommender.init(self._unpadded(inputs), key)))

  def loss(
    self,
    params: Any,
    inputs: Inputs,
    rows: Array,
    key: Array,
    *,
    step: Array,
    train: TrainConfig,
    where: Array,
  ) -> Array:
    inputs = self._unpadded(inputs)
    like = jax.eval_shape(self._recommender.init, inputs, key)
    return self._recommender.loss(
      unpad(constrain_tables(params), like),
      inputs,
      constrain_batch(rows),
      key,
      step=step,
      train=train,
      where=constrain_batch(where),
    )

  @property
  def _recommender(self) -> LearnedRecommender:
    return dataclasses.replace(self.inner, settings=self.settings)

  def _unpadded(self, inputs: Inputs) -> Inputs:
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


class Place:
  """Where training takes place: on one device, where arrays stay as they are, or on a mesh.

  Attributes: method, inputs, config: as on one device.
  """

  def __init__(
    self, mesh: Mesh | None, *, recommender: LearnedRecommender, inputs: Inputs, config: TrainConfig
  ) -> None:
    """Puts the inputs on the mesh. None: one device."""
    self.recommender, self.inputs, self.config = recommender, inputs, config
    self._mesh = mesh
    self._recommender = recommender if mesh is None else OnMesh.of(recommender)
    self._inputs = inputs if mesh is None else place_inputs(inputs, mesh)

  def init(self) -> TrainState:
    """The first state."""
    with self._entered():
      return init_state(self._inputs, recommender=self._recommender, config=self.config)

  def train(self, state: TrainState, *, num_epochs: int) -> tuple[TrainState, Array]:
    """`train_epochs`; `state` is donated."""
    with self._entered():
      return train_epochs(
        state,
        self._inputs,
        recommender=self._recommender,
        config=self.config,
        num_epochs=num_epochs,
      )

  def like(self) -> TrainState:
    """Shapes of a state as it is saved, with where it is to lie when it is read."""
    shapes = jax.eval_shape(
      lambda: init_state(self.inputs, recommender=self.recommender, config=self.config)
    )
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
    with self._entered():
      return unpadded(state)

  @functools.cached_property
  def _unpadded(self) -> Callable[[TrainState], TrainState]:
    """Compiled once. Made outside of the mesh, which would refuse edges that are not filled up."""
    like = self.like()
    everywhere = NamedSharding(self._mesh, PartitionSpec())
    return jax.jit(lambda state: unpad(state, like), out_shardings=everywhere)

  def put(self, saved: TrainState) -> TrainState:
    """The inverse, onto this mesh."""
    return saved if self._mesh is None else put_tables(saved, self._mesh)

  def local(self, tree: Any) -> Any:
    """Saved arrays for use outside of the mesh."""
    return tree if self._mesh is None else jax.tree.map(np.asarray, tree)

  def _entered(self) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)


_training_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
  "training_mesh", default=None
)


@contextlib.contextmanager
def training_on(mesh: Mesh | None) -> Iterator[None]:
  """What is trained inside is trained on this mesh; None: on one device.

  The lists of all users are made on this process's devices of the mesh, each for its part of the
  users.
  """
  token = _training_mesh.set(mesh)
  try:
    if mesh is None:
      yield
      return
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    with jax.set_mesh(Mesh(np.array(here), ("data",))):
      yield
  finally:
    _training_mesh.reset(token)


def current_mesh() -> Mesh | None:
  """The mesh of `training_on`."""
  return _training_mesh.get()


def own_folder(workdir: pathlib.Path) -> pathlib.Path:
  """What this process writes to: the run folder, or for all but the first of several processes a
  folder of its own in there."""
  index = jax.process_index()
  return workdir / "processes" / str(index) if index else workdir


def common_folder(folder: pathlib.Path) -> pathlib.Path:
  """The run folder of all processes, where checkpoints lie. Args: folder: of `own_folder`."""
  return folder.parent.parent if jax.process_index() else folder


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
