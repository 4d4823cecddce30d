"""Meshes, and from the logical names of array axes to the axes of a mesh."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.errors import InputError

Rules = Mapping[str, str | None]
AXES = ("data", "graph", "model")
"""Axes of every mesh: batches are sharded over `data`, edges and rows of node tables over `graph`,
heads and matrices over `model`."""

# Megatron's sharding (Shoeybi et al. 2019): heads and MLP columns over `model`, so that each block
# needs two sums over devices; the vocabulary likewise; rows of a batch over `data`.
DEFAULT_RULES: Rules = {
  "batch": "data",
  "vocab": "model",
  "heads": "model",
  "kv_heads": "model",
  "mlp": "model",
  "embed": None,
}


def make_mesh(
  *, data: int = 1, graph: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A (data, graph, model) mesh.

  Args: data, graph, model: numbers of devices along each axis. devices: which ones; None for the
    first of all processes' devices.
  Raises: InputError where there are too few.
  """
  devices = list(devices if devices is not None else jax.devices())
  sizes = (data, graph, model)
  if min(sizes) < 1 or math.prod(sizes) > len(devices):
    raise InputError(
      f"a mesh of {data} × {graph} × {model} devices (data × graph × model) is asked for, "
      f"{len(devices)} are here"
    )
  return Mesh(np.array(devices[: math.prod(sizes)]).reshape(sizes), AXES)


class MeshShape(NamedTuple):
  """Attributes: data, graph, model: numbers of devices along each axis."""

  data: int
  graph: int
  model: int

  def __str__(self) -> str:
    return "x".join(map(str, self))


def parse_mesh_shape(text: str, *, field: str = "mesh") -> MeshShape | None:
  """The shape of "data x model" or "data x graph x model", such as 1x8x1; None for one device.

  Raises: InputError for anything else.
  """
  numbers = re.fullmatch(r"(\d+)x(\d+)(?:x(\d+))?", text.replace(" ", ""))
  if numbers is None:
    raise InputError(
      "two or three numbers with an x between, data x model or data x graph x model, such as 1x8 "
      "or 1x8x1",
      field=field,
      value=text,
    )
  first, *_, last = sizes = [int(size) for size in numbers.groups() if size]
  if 0 in sizes:
    raise InputError("each number must be at least 1", field=field, value=text)
  shape = MeshShape(first, sizes[1] if len(sizes) == 3 else 1, last)
  return None if set(shape) == {1} else shape


def parse_mesh(text: str, *, field: str = "mesh") -> Mesh | None:
  """The mesh of a shape as `parse_mesh_shape` reads it.

  Raises: InputError for anything else, or where there are too few devices.
  """
  shape = parse_mesh_shape(text, field=field)
  if shape is None:
    return None
  try:
    return make_mesh(**shape._asdict())
  except InputError as error:
    raise InputError(str(error), field=field, value=text) from None


def local_mesh(mesh: Mesh | None) -> Mesh | None:
  """This process's devices of a mesh along one axis, `data`; None for None."""
  if mesh is None:
    return None
  here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
  return Mesh(np.array(here), ("data",))


def start_processes(
  coordinator: str, *, num_processes: int | None = None, process_id: int | None = None
) -> None:
  """Joins this process to the others of a run on several hosts (`jax.distributed`).

  Call it before any device is used. Afterwards `jax.devices()` are those of all processes.

  Args:
    coordinator: "host:port" of process 0, the same in all; `auto` takes everything from the
      environment (Slurm, Open MPI, Cloud TPU, or Kubernetes with its Python package).
    num_processes, process_id: how many there are and which this is; None from the environment.
  Raises:
    InputError: an unusable address, or too little in the environment. Where the others do not
      connect within JAX's time limit (five minutes), JAX ends the process itself.
  """
  address = None if coordinator == "auto" else coordinator
  if address is not None and (num_processes is None or process_id is None):
    raise InputError(
      "needs `num_processes` and `process_id` beside it (or auto, "
      "which takes everything from the environment)",
      field="coordinator",
      value=coordinator,
    )
  if address is not None and not 0 <= process_id < num_processes:
    raise InputError(
      f"must be at least 0 and below `num_processes={num_processes}`",
      field="process_id",
      value=process_id,
    )
  try:
    jax.distributed.initialize(address, num_processes, process_id)
  except (ValueError, RuntimeError) as error:
    raise InputError(
      f"{' '.join(str(error).split())[:200]}", field="coordinator", value=coordinator
    ) from None


def parameter_sharding(
  names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, rules: Rules = DEFAULT_RULES
) -> NamedSharding:
  """The sharding of an array: each named axis over the mesh axis of its rule, if it divides evenly.

  Args: names: logical names of the axes. shape: of the array. mesh, rules: the map.
  Returns: its sharding; axes without a name, a rule or an even division are replicated.
  """
  axes = []
  for name, size in zip(names, shape, strict=True):
    axis = rules.get(name) if name is not None else None
    even = axis in mesh.shape and size % mesh.shape[axis] == 0 and axis not in axes
    axes.append(axis if even else None)
  return NamedSharding(mesh, PartitionSpec(*axes))
