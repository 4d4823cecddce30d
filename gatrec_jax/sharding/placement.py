"""How the arrays of training are placed on a mesh, and read back.

A sharded array must divide evenly, so tables of nodes and lists of edges are padded. The padding
adds nothing to any sum: padded rows of tables are removed before they are read, padded edges count
0.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.sharding.mesh import AXES

# Tables of at least TABLE_ROWS rows are sharded. They are padded to a multiple of ROW_MULTIPLE, a
# power of two and the most devices along `graph`, so that shapes do not depend on the mesh.
TABLE_ROWS, ROW_MULTIPLE = 1024, 256


def padded_rows(array: Any) -> int:
  """The number of rows of an array on a mesh. Args: array: or its ShapeDtypeStruct."""
  if not is_table(array):
    return array.shape[0] if array.ndim else 0
  return -(-array.shape[0] // ROW_MULTIPLE) * ROW_MULTIPLE


def is_table(array: Any) -> bool:
  """Whether an array is sharded by rows: matrices with many rows, such as node tables."""
  return array.ndim >= 2 and array.shape[0] >= TABLE_ROWS


def pad(tree: Any) -> Any:
  """Tables with rows of 0 appended; traceable."""

  def one(array: jax.Array) -> jax.Array:
    more = padded_rows(array) - array.shape[0] if array.ndim else 0
    return jnp.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1)) if more else array

  return jax.tree.map(one, tree)


def unpad(tree: Any, like: Any) -> Any:
  """The inverse of `pad`; traceable. Args: like: a tree with the original shapes."""
  return jax.tree.map(
    lambda array, shaped: array[: shaped.shape[0]] if array.shape != shaped.shape else array,
    tree,
    like,
  )


def table_sharding(array: Any, mesh: Mesh) -> NamedSharding:
  """The sharding of an array: tables by rows over `graph`, everything else replicated."""
  divided = is_table(array) and array.shape[0] % mesh.shape["graph"] == 0
  return NamedSharding(mesh, PartitionSpec("graph") if divided else PartitionSpec())


def to_device(tree: Any) -> Any:
  """Copies host arrays of a tree to the default device; what is on a device stays as it is.

  Nothing is compiled: `jnp.asarray` compiles and runs a program for each shape.

  >>> to_device({"ids": np.arange(3)})
  {'ids': Array([0, 1, 2], dtype=int32)}
  """

  def one(leaf: Any) -> jax.Array:
    return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, may_alias=False)

  return jax.tree.map(one, tree)


def put(array: Any, sharding: NamedSharding) -> jax.Array:
  """Puts a host array on the devices; each process sends only the shards of its own devices."""
  host = np.asarray(array)
  return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def put_tables(tree: Any, mesh: Mesh) -> Any:
  """Puts a tree of host arrays, padded, on the mesh by `table_sharding`."""

  def one(array: Any) -> jax.Array:
    host = np.asarray(array)
    more = padded_rows(host) - host.shape[0] if host.ndim else 0
    if more:
      host = np.pad(host, [(0, more)] + [(0, 0)] * (host.ndim - 1))
    return put(host, table_sharding(host, mesh))

  return jax.tree.map(one, tree)


def put_rows(tree: Any, mesh: Mesh) -> Any:
  """Divides host arrays [R, …] of at least `TABLE_ROWS` rows over all devices of the mesh, the
  shorter ones lie whole on each.

  The last row is repeated up to a multiple of the devices. So what is looked up by rows below R
  does not change, and a list of where each group's rows begin (whose last row is their number) ends
  with empty groups.
  """
  divided, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXES,), ()))

  def one(array: Any) -> jax.Array:
    host = np.asarray(array)
    if not host.ndim or len(host) < TABLE_ROWS:
      return put(host, everywhere)
    more = -len(host) % mesh.size
    return put(np.pad(host, [(0, more)] + [(0, 0)] * (host.ndim - 1), mode="edge"), divided)

  return jax.tree.map(one, tree)


def put_edges(tree: Any, mesh: Mesh, *, size: int) -> Any:
  """Shards arrays [size, …] over `graph`; size is a multiple of the devices along it."""
  sharding = NamedSharding(mesh, PartitionSpec("graph"))

  def one(array: Any) -> jax.Array:
    if array.shape[0] != size:
      raise ValueError(f"an array of {array.shape[0]} instead of {size} edges")
    return put(array, sharding)

  return jax.tree.map(one, tree)


def constrain_tables(tree: Any) -> Any:
  """In a jitted function under a mesh: keeps tables sharded by rows. Without a mesh: no effect."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.shape.get("graph", 1) == 1:
    return tree

  def one(array: jax.Array) -> jax.Array:
    if not is_table(array) or array.shape[0] % mesh.shape["graph"]:
      return jax.lax.with_sharding_constraint(array, PartitionSpec())
    return jax.lax.with_sharding_constraint(array, PartitionSpec("graph"))

  return jax.tree.map(one, tree)


def constrain_batch(rows: jax.Array) -> jax.Array:
  """In a jitted function under a mesh: shards a batch [B, …] over all devices of `data` and
  `graph`. Without a mesh: no effect.

  With several devices along `model`, a batch that does not divide evenly is left unchanged too:
  there XLA's partitioner gives a gather of such rows a wrong gradient (JAX 0.10.2).
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = mesh.shape.get("data", 1) * mesh.shape.get("graph", 1)
  if devices == 1 or (rows.shape[0] % devices and mesh.shape.get("model", 1) > 1):
    return rows
  return jax.lax.with_sharding_constraint(rows, PartitionSpec(("data", "graph")))
