"""Meshes, and from the logical names of array axes to the axes of a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.errors import InputError

Rules = Mapping[str, str | None]
AXES = ("data", "tensor")
# Megatron's cut (Shoeybi et al. 2019): heads and MLP columns over `tensor`, so that each block
# needs two sums over devices; the vocabulary likewise; rows of a batch over `data`.
DEFAULT_RULES: Rules = {
  "batch": "data",
  "vocab": "tensor",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "embed": None,
}


def make_mesh(
  *, data: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A (data, tensor) mesh.

  Args: data, tensor: devices along each axis. devices: which; None for the first of all.
  Raises: InputError where there are too few.
  """
  devices = list(devices if devices is not None else jax.devices())
  if data < 1 or tensor < 1 or data * tensor > len(devices):
    raise InputError(
      f"a mesh of {data} × {tensor} devices (data × tensor) is asked for, {len(devices)} are here"
    )
  return Mesh(np.array(devices[: data * tensor]).reshape(data, tensor), AXES)


def parameter_sharding(
  names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, rules: Rules = DEFAULT_RULES
) -> NamedSharding:
  """Where an array lies: each named axis over the mesh axis of its rule, if it divides evenly.

  Args: names: logical names of the axes. shape: of the array. mesh, rules: the map.
  Returns: its sharding; axes without a name, a rule or an even division are not cut.
  """
  axes = []
  for name, size in zip(names, shape, strict=True):
    axis = rules.get(name) if name is not None else None
    even = axis in mesh.shape and size % mesh.shape[axis] == 0 and axis not in axes
    axes.append(axis if even else None)
  return NamedSharding(mesh, PartitionSpec(*axes))
