"""How fast this machine is at what takes the time of a run, measured in about a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.ops.attention import Edges, attention_light
from gatrec_jax.sharding.placement import to_device

WIDTH = 64
"""Of the vectors that rates are measured with."""
_REPEATS = 5
_NODES, _EDGES = 20_000, 30_000
_USERS, _ITEMS = 128, 8_192
_ROWS = 100_000


class Rates(NamedTuple):
  """Each per second.

  Attributes:
    flops: FLOPs of float32 matrix products.
    edges: edges of graph attention, forward and backward, with vectors of `WIDTH` numbers.
    softmax: scores of a softmax over dot products of such vectors, forward and backward.
    ranks: scores of them that are ranked.
    sparse: multiplications of SciPy's sparse matrices by dense ones, on one core.
    rows: rows of two numbers that are sorted on the host.
    bandwidth: bytes that are read from and written to memory.
  """

  flops: float
  edges: float
  softmax: float
  ranks: float
  sparse: float
  rows: float
  bandwidth: float


def measure_rates() -> Rates:
  """The rates of the default device and of the host, each the best of a few runs."""
  import scipy.sparse

  draws = np.random.default_rng(0)
  size = 1024 if jax.default_backend() == "cpu" else 8192
  matrix = jnp.ones((size, size))
  users, items = (jnp.ones((count, WIDTH)) for count in (_USERS, _ITEMS))
  senders = to_device(draws.integers(0, _NODES, _EDGES).astype(np.int32))
  receivers = to_device(np.sort(draws.integers(0, _NODES, _EDGES)).astype(np.int32))
  edges = Edges(senders, receivers, jnp.ones((_EDGES, 1)))
  nodes = jnp.ones((_NODES, WIDTH))
  pairs = scipy.sparse.random_array((2_000, 2_000), density=0.02, dtype=np.float32, rng=draws)
  pairs, dense = pairs.tocsr(), np.ones((2_000, WIDTH), np.float32)
  user, item = draws.integers(0, _NODES, (2, _ROWS)).astype(np.int32)
  memory = np.zeros(1 << 24, np.float32)
  return Rates(
    flops=2 * size**3 / _fastest(_product, matrix, matrix),
    edges=_EDGES / _fastest(_attention, nodes, edges),
    softmax=_USERS * _ITEMS / _fastest(_softmax, users, items),
    ranks=_USERS * _ITEMS / _fastest(_ranking, users, items),
    sparse=pairs.nnz * WIDTH / _fastest(lambda: pairs @ dense),
    rows=_ROWS / _fastest(lambda: np.lexsort((item, user))),
    bandwidth=2 * memory.nbytes / _fastest(lambda: np.multiply(memory, 0.5, out=memory)),
  )


@jax.jit
def _product(left: jax.Array, right: jax.Array) -> jax.Array:
  return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _attention(nodes: jax.Array, edges: Edges) -> jax.Array:
  """The gradient of a layer of attention with one head by its nodes [N, D]."""
  vector = jnp.ones((1, nodes.shape[1]))

  def total(nodes: jax.Array) -> jax.Array:
    out, _ = attention_light(
      nodes[:, None, :],
      edges,
      source_vector=vector,
      target_vector=vector,
      edge_vector=jnp.ones((1, 1)),
      slope=0.2,
      keep=None,
      chunk=0,
    )
    return out.sum()

  return jax.grad(total)(nodes)


@jax.jit
def _softmax(users: jax.Array, items: jax.Array) -> Any:
  def total(users: jax.Array, items: jax.Array) -> jax.Array:
    # Computed again for the gradient, as in training.
    return jax.checkpoint(lambda u, i: jax.nn.logsumexp(u @ i.T, axis=1))(users, items).sum()

  return jax.grad(total, argnums=(0, 1))(users, items)


@jax.jit
def _ranking(users: jax.Array, items: jax.Array) -> Any:
  return jax.lax.top_k(users @ items.T, 50)


def _fastest(run: Callable[..., Any], *arguments: Any) -> float:
  """Seconds of the fastest of a few runs, after one that is not counted."""
  jax.block_until_ready(run(*arguments))
  seconds = []
  for _ in range(_REPEATS):
    begun = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    seconds.append(time.perf_counter() - begun)
  return max(min(seconds), 1e-9)
