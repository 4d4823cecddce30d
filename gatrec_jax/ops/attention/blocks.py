"""An order of the edges by blocks of senders, for `segment` on CPUs.

Edges sorted by receiver read the senders' rows from anywhere in a table, and add gradients anywhere
in another. Where these tables outgrow a processor's cache, each edge waits for memory. In this
order the edges of a block's senders come together, sorted by receiver among themselves, so that a
block's rows stay in the cache; each block gives sums of its own, which are merged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Bytes of a block's rows; there are as many of their gradients, and a chunk's temporaries beside
# them. With fewer edges than this for each node and block, merging costs more than what is won.
BLOCK_BYTES, _EDGES_A_NODE = 2 << 20, 4


class BlocksLayout(NamedTuple):
  """Edges in chunks of C, each of one block; a block's last chunk is filled up.

  Attributes:
    senders, receivers: [chunks, C] int32; receivers ascend in a block.
    edge: [chunks, C] int32, which of the receiver-sorted edges; -1 where filled up.
    bounds: [blocks + 1] int32, block b has the chunks bounds[b] to bounds[b + 1].
  """

  senders: Any
  receivers: Any
  edge: Any
  bounds: Any


def make_blocks_layout(
  senders: np.ndarray,
  receivers: np.ndarray,
  num_nodes: int,
  *,
  width: int,
  chunk: int,
  block_bytes: int = BLOCK_BYTES,
) -> BlocksLayout | None:
  """None where one block is best.

  Args:
    senders, receivers: [E] int32, receiver-sorted.
    width: H · D of the widest layer. chunk: C.
    block_bytes: of a block's rows in float32, where there are edges enough.
  """
  blocks = -(-num_nodes // max(block_bytes // (4 * width), 1))
  blocks = min(blocks, len(senders) // (_EDGES_A_NODE * max(num_nodes, 1)))
  if blocks < 2:
    return None
  rows = -(-num_nodes // blocks)
  order = np.argsort(senders // rows, kind="stable").astype(np.int32)
  sizes = np.bincount(senders // rows, minlength=blocks)
  chunks = -(-sizes // chunk)
  bounds = np.concatenate([[0], np.cumsum(chunks)]).astype(np.int32)
  edge = np.full((int(bounds[-1]), chunk), -1, np.int32)
  begun = 0
  for first, size in zip(bounds[:-1], sizes, strict=True):
    edge.reshape(-1)[first * chunk : first * chunk + size] = order[begun : begun + size]
    begun += size
  # Filled up by a block's last edge: this keeps the receivers ascending, and its rows are at hand.
  filled = np.maximum.accumulate(np.where(edge.ravel() < 0, 0, np.arange(edge.size)))
  real = edge.ravel()[filled].reshape(edge.shape)
  return BlocksLayout(senders[real], receivers[real], edge, bounds)
