"""Chooses an implementation of attention for a graph and a device, and prepares its edges."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import jraph
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.ops.attention.blocks import BlocksLayout, make_blocks_layout
from gatrec_jax.ops.attention.dense import DenseLayout, count_tiles, default_tile, make_dense_layout
from gatrec_jax.ops.attention.pallas import RowsLayout, make_rows_layout, supports
from gatrec_jax.ops.attention.segment import default_chunk

_log = logging.getLogger(__name__)

# Largest size of the dense tiles with their features.
DENSE_BYTES = 1 << 30


class Cost(NamedTuple):
  """Seconds of the forward and the backward pass together.

  Attributes:
    edge, edge_number: by `segment`, per edge and per each of its H · D numbers.
    cell, cell_number: by `dense`, per cell and per each of its H · D numbers.
  """

  edge: float
  edge_number: float
  cell: float
  cell_number: float


# By `launch.benchmark --suite=attention`, version 2; launch/benchmarks/RESULTS.md, section 6.3. For accelerators
# derived from an H100's data sheet (bytes moved a number), until one is measured.
COSTS = {
  "cpu": Cost(30e-9, 3.2e-9, 50e-9, 18e-9),
  "gpu": Cost(10e-9, 10e-12, 0.1e-9, 0.5e-12),
  "tpu": Cost(200e-9, 50e-12, 0.1e-9, 0.5e-12),
}


def make_layout(
  asked: str, graph: jraph.GraphsTuple, *, heads: int, width: int, platform: str, chunk: int = 0
) -> BlocksLayout | DenseLayout | RowsLayout | None:
  """The layout (`Edges.layout`) that an implementation needs; numpy arrays.

  Args:
    asked: `auto`, `segment`, `dense` or `pallas`.
    graph: receiver-sorted, numpy arrays. heads, width: H and D of the widest layer.
    platform: cpu, gpu, tpu. chunk: edges that `segment` handles at once; 0 = its default.
  Returns:
    None for `segment` with edges in the order of the graph.
  Raises:
    InputError: `asked` is `dense` and its tiles would take more than `DENSE_BYTES`.
  """
  senders, receivers = graph.senders, graph.receivers
  num_nodes = int(graph.n_node.sum())
  name = choose(asked, graph, heads=heads, width=width, platform=platform)
  if name == "pallas":
    return make_rows_layout(senders, receivers, num_nodes)
  if name == "segment" and platform == "cpu":
    numbers = heads * width
    return make_blocks_layout(
      senders, receivers, num_nodes, width=numbers, chunk=chunk or default_chunk(numbers)
    )
  if name == "segment":
    return None
  needed = _dense_bytes(graph)
  if needed > DENSE_BYTES:
    raise InputError(
      f"attention_impl=dense: the tiles of this graph take {needed / 2**30:.1f} GiB, and at most "
      f"{DENSE_BYTES / 2**30:.0f} GiB are used; use auto or segment"
    )
  return make_dense_layout(senders, receivers, graph.edges)


def choose(asked: str, graph: jraph.GraphsTuple, *, heads: int, width: int, platform: str) -> str:
  """The implementation to use: `segment`, `dense` or `pallas`. Args: as in `make_layout`."""
  if asked == "pallas" and (reason := supports(platform, width)):
    _log.warning("attention_impl=pallas: %s; segment is used", reason)
    return "segment"
  if asked != "auto":
    return asked
  segment, dense = estimated_seconds(graph, heads=heads, width=width, platform=platform)
  return "dense" if dense < segment and _dense_bytes(graph) <= DENSE_BYTES else "segment"


def estimated_seconds(
  graph: jraph.GraphsTuple, *, heads: int, width: int, platform: str
) -> tuple[float, float]:
  """Estimated seconds of one layer, forward and backward: by `segment`, and by `dense`."""
  cost = COSTS["gpu" if platform in ("cuda", "rocm") else platform]
  numbers = heads * width
  return (
    len(graph.senders) * (cost.edge + cost.edge_number * numbers),
    _cells(graph) * (cost.cell + cost.cell_number * numbers),
  )


def name_of(layout: Any) -> str:
  """The implementation that reads a layout."""
  return {DenseLayout: "dense", RowsLayout: "pallas"}.get(type(layout), "segment")


def _cells(graph: jraph.GraphsTuple) -> int:
  tile = default_tile()
  return count_tiles(np.asarray(graph.senders), np.asarray(graph.receivers), tile) * int(
    np.prod(tile)
  )


def _dense_bytes(graph: jraph.GraphsTuple) -> int:
  return _cells(graph) * 4 * (1 + graph.edges.shape[1])
