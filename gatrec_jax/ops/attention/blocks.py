"""Orders edges by blocks of senders, for `segment` on CPUs.

Edges sorted by receiver read the senders' rows from all over one array and add gradients all over
another. Once these arrays exceed the processor's cache, each edge waits for memory. In this order,
the edges of a block of senders are adjacent and sorted by receiver, so that the block's rows stay in
the cache. The sums of the blocks are merged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Bytes of a block's rows; their gradients take as many again, and a chunk has temporaries. With fewer
# edges than this per node and block, merging costs more than the order saves.
BLOCK_BYTES, _EDGES_A_NODE = 2 << 20, 4


class BlocksLayout(NamedTuple):
  """Edges in chunks of C, each within one block; a block's last chunk is padded.

  Attributes:
    senders, receivers: [chunks, C] int32; receivers ascend in a block.
    edge: [chunks, C] int32, which of the receiver-sorted edges; -1 for padding.
    bounds: [blocks + 1] int32; the chunks of block b are bounds[b] to bounds[b + 1] − 1.
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
  """The edges ordered by blocks of senders; None if one block is best.

  Args:
    senders, receivers: [E] int32, receiver-sorted.
    width: H · D of the widest layer. chunk: C.
    block_bytes: of a block's rows in float32, if there are enough edges.
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
  # Padded with the block's last edge: this keeps the receivers ascending, and its rows are cached.
  filled = np.maximum.accumulate(np.where(edge.ravel() < 0, 0, np.arange(edge.size)))
  real = edge.ravel()[filled].reshape(edge.shape)
  return BlocksLayout(senders[real], receivers[real], edge, bounds)
