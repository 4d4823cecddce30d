"""Normalized propagation over the graph of users and liked items: D^−½ A D^−½, no parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.ops.numeric import is_off, unit
from gatrec_jax.ops.scores import Pair

Array = jax.Array

# Largest size of the dense matrix.
DENSE_BYTES = 1 << 30
# Numbers that sparse edges gather at a time: 256 MiB.
GATHERED_NUMBERS = 1 << 26
# On a CPU, dense products are faster above this share of nonzero cells (measured on two cores,
# D = 64, with the gradient: 6.7 ns per cell, 0.6 µs per edge).
_DENSE_SHARE = 0.01


class DenseEdges(NamedTuple):
  """Attributes: adjacency: [U, I] float32, the edges' weights, 0 where there is none."""

  adjacency: Array


class SparseEdges(NamedTuple):
  """The edges in two orders, by user and by item.

  Attributes:
    user, item: [P] int32 by user. user_by_item, item_by_item: the same, by item.
    weight, weight_by_item: [P] float32, in these orders; None where all are 1.
  """

  user: Array
  item: Array
  user_by_item: Array
  item_by_item: Array
  weight: Array | None
  weight_by_item: Array | None


class Graph(NamedTuple):
  """Attributes: edges. user_scale [U], item_scale [I]: float32 degree^−½; 0 for degree 0."""

  edges: DenseEdges | SparseEdges
  user_scale: Array
  item_scale: Array


def make_propagation(
  user: np.ndarray, item: np.ndarray, num_users: int, num_items: int, kind: str
) -> Graph:
  """The graph of the likes, for `propagate`. Args, raised: as in `make_edges`.

  >>> graph = make_propagation(np.arange(4), np.zeros(4, int), 4, 1, "dense")  # they like item 0
  >>> graph.user_scale.tolist(), graph.item_scale.tolist()
  ([1.0, 1.0, 1.0, 1.0], [0.5])
  """
  edges = make_edges(user, item, num_users, num_items, kind)
  return Graph(edges, _scale(user, num_users), _scale(item, num_items))


def make_edges(
  user: np.ndarray,
  item: np.ndarray,
  num_users: int,
  num_items: int,
  kind: str,
  *,
  weight: np.ndarray | None = None,
) -> DenseEdges | SparseEdges:
  """The pairs as a dense matrix or as sorted lists; numpy arrays.

  Args:
    user, item: [P] pairs, each once, in any order.
    kind: `dense`, `sparse`, or `auto`: dense if the matrix takes at most `DENSE_BYTES` and, on a
      CPU, if enough of its cells are nonzero for it to be faster.
    weight: [P] float32 of the pairs; None for 1 each.
  Raises:
    InputError: an unknown kind.
  """
  if kind not in ("auto", "dense", "sparse"):
    raise InputError(f"propagation={kind}: must be auto, dense or sparse")
  user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
  if is_dense(kind, len(user), num_users, num_items, platform=jax.default_backend()):
    adjacency = np.zeros((num_users, num_items), np.float32)
    adjacency[user, item] = 1.0 if weight is None else weight
    return DenseEdges(adjacency)
  by_user, by_item = np.lexsort((item, user)), np.lexsort((user, item))
  weights = (None, None) if weight is None else (weight[by_user], weight[by_item])
  return SparseEdges(user[by_user], item[by_user], user[by_item], item[by_item], *weights)


def is_dense(kind: str, pairs: int, num_users: int, num_items: int, *, platform: str) -> bool:
  """Whether `make_edges` makes a matrix of P pairs. Args: platform: cpu, gpu, tpu."""
  if kind != "auto":
    return kind == "dense"
  cells = num_users * num_items
  quicker = platform != "cpu" or pairs >= _DENSE_SHARE * cells
  return quicker and 4 * cells <= DENSE_BYTES


def propagate(graph: Graph, vectors: Pair) -> Pair:
  """One hop: the sum of each node's neighbors, each divided by √(product of the two degrees).

  Args: vectors: ([U, D], [I, D]) float32. Returns: the same shapes; 0 for isolated nodes.

  >>> graph = make_propagation(np.arange(4), np.zeros(4, int), 4, 1, "dense")  # they like item 0
  >>> user, item = propagate(graph, (jnp.ones((4, 1)), jnp.ones((1, 1))))
  >>> user[:, 0].tolist(), item[:, 0].tolist()
  ([0.5, 0.5, 0.5, 0.5], [2.0])
  """
  user, item = vectors
  user_scale, item_scale = graph.user_scale[:, None], graph.item_scale[:, None]
  to_user, to_item = _sums(graph.edges, (user * user_scale, item * item_scale))
  return to_user * user_scale, to_item * item_scale


def sum_over_items(
  edges: DenseEdges | SparseEdges, values: Array, *, num_users: int, users: Array | None = None
) -> Array:
  """The weighted sum over each user's items of the rows of `values`.

  Args: values: [I, D] float32. users: [B] int32; None for all.
  Returns: [B, D] float32, or [U, D].
  """
  if users is not None and len(users) < num_users and isinstance(edges, DenseEdges):
    few = edges.adjacency[users]
    return jnp.matmul(few, values, precision=jax.lax.Precision.HIGHEST)
  # On a mesh, the matrix may be padded with rows without a user.
  rows = edges.adjacency.shape[0] if isinstance(edges, DenseEdges) else num_users
  nothing = jnp.zeros((rows, values.shape[1]), values.dtype)
  sums = _sums(edges, (nothing, values))[0][:num_users]
  return sums if users is None else sums[users]


def layer_vectors(
  graph: Graph, vectors: Pair, *, layers: int, noise: Any = 0.0, key: Array | None = None
) -> list[Pair]:
  """The vectors after 0 … `layers` hops.

  Args:
    vectors: ([U, D], [I, D]) float32.
    noise: ε; each hop adds ε · sign(v) ⊙ a nonnegative random unit vector to each vector v (Yu et
      al. 2022, "Are graph augmentations necessary?"); later hops include it.
    key: of the noise, consumed.
  Returns:
    layers + 1 pairs.

  >>> graph = make_propagation(np.arange(4), np.zeros(4, int), 4, 1, "dense")  # they like item 0
  >>> layers = layer_vectors(graph, (jnp.ones((4, 1)), jnp.ones((1, 1))), layers=2)
  >>> [item[0, 0].item() for _, item in layers]
  [1.0, 2.0, 1.0]
  """
  found = [vectors]
  for layer in range(layers):
    vectors = propagate(graph, vectors)
    if not is_off(noise):
      keys = jax.random.split(jax.random.fold_in(key, layer))
      vectors = tuple(
        v + noise * jnp.sign(v) * unit(jax.random.uniform(k, v.shape))
        for v, k in zip(vectors, keys, strict=True)
      )
    found.append(vectors)
  return found


def mean_of_layers(layers: Sequence[Pair]) -> Pair:
  """The mean of pairs ([U, D], [I, D]).

  >>> first = jnp.array([[1.0]]), jnp.array([[2.0]])
  >>> second = jnp.array([[0.0]]), jnp.array([[4.0]])
  >>> user, item = mean_of_layers([first, second])
  >>> user.tolist(), item.tolist()
  ([[0.5]], [[3.0]])
  """
  return tuple(sum(parts) / len(layers) for parts in zip(*layers, strict=True))


def fold_in(graph: Graph, layers: Sequence[Pair], liked: Array) -> Array:
  """Vectors of new users, propagated from the items they like and summed over all hops.

  Σ_l Σ_{i liked} v_i^(l) ÷ √(n · degree of i) over hops l = 0 … L − 1, n being the number of
  likes: the sum of the users' vectors in layers 1 … L if the items' degrees and vectors did not
  change.

  Args:
    layers: hops 0 … L. liked: [B, I] float32, 1 where liked.
  Returns:
    [B, D] float32; 0 for a user without likes, or with L = 0.

  >>> graph = make_propagation(np.arange(4), np.zeros(4, int), 4, 1, "dense")  # they like item 0
  >>> layers = layer_vectors(graph, (jnp.ones((4, 1)), jnp.ones((1, 1))), layers=1)
  >>> fold_in(graph, layers, jnp.array([[1.0], [0.0]])).tolist()
  [[0.5], [0.0]]
  """
  items = sum((item for _, item in layers[:-1]), jnp.zeros_like(layers[0][1]))
  count = liked.sum(axis=1, keepdims=True)
  sums = jnp.matmul(liked, items * graph.item_scale[:, None], precision=jax.lax.Precision.HIGHEST)
  return sums * jax.lax.rsqrt(jnp.maximum(count, 1.0))


def _scale(ends: np.ndarray, num: int) -> np.ndarray:
  degree = np.bincount(ends, minlength=num)
  return np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0.0).astype(np.float32)


def _sums(edges: DenseEdges | SparseEdges, vectors: Pair) -> Pair:
  """A · items and Aᵀ · users."""
  if isinstance(edges, SparseEdges):
    return _sparse_sums(edges, vectors)
  user, item = vectors
  highest = jax.lax.Precision.HIGHEST
  return (
    jnp.matmul(edges.adjacency, item, precision=highest),
    jnp.matmul(edges.adjacency.T, user, precision=highest),
  )


@jax.custom_vjp
def _sparse_sums(edges: SparseEdges, vectors: Pair) -> Pair:
  user, item = vectors
  return (
    _sorted_sums(item, edges.item, edges.user, edges.weight, user.shape[0]),
    _sorted_sums(user, edges.user_by_item, edges.item_by_item, edges.weight_by_item, item.shape[0]),
  )


def _sorted_sums(
  values: Array, senders: Array, receivers: Array, weight: Array | None, num_receivers: int
) -> Array:
  """[num_receivers, D]: for each receiver the sum of weight · values[sender] over its edges.

  Args: values: [N, D]. senders, receivers, weight: [P], by receiver.
  """

  def sums_of(senders: Array, receivers: Array, weight: Array | None) -> Array:
    sent = values[senders] if weight is None else values[senders] * weight[:, None]
    return jraph.segment_sum(sent, receivers, num_receivers, indices_are_sorted=True)

  count = len(senders)
  chunks = -(-count * values.shape[1] // GATHERED_NUMBERS)
  if chunks <= 1:
    return sums_of(senders, receivers, weight)
  size = -(-count // chunks)

  def add(number: Array, total: Array) -> Array:
    # The last part begins earlier, to be as long as the others; what was in them counts 0.
    first = jnp.minimum(number * size, count - size)
    part = jax.tree.map(
      lambda array: jax.lax.dynamic_slice_in_dim(array, first, size), (senders, receivers, weight)
    )
    is_new = first + jnp.arange(size, dtype=jnp.int32) >= number * size
    # A segment sum leaves out a receiver that does not exist.
    return total + sums_of(part[0], jnp.where(is_new, part[1], num_receivers), part[2])

  start = jnp.zeros((num_receivers, values.shape[1]), values.dtype)
  return jax.lax.fori_loop(0, chunks, add, start)


def _sparse_forward(edges: SparseEdges, vectors: Pair) -> tuple[Pair, SparseEdges]:
  return _sparse_sums(edges, vectors), edges


def _sparse_backward(edges: SparseEdges, gradient: Pair) -> tuple[None, Pair]:
  # The map is its own transpose: the gradient uses the same sorted edges and avoids the unsorted
  # scatter that transposing a gather would cause.
  return None, _sparse_sums(edges, gradient)


_sparse_sums.defvjp(_sparse_forward, _sparse_backward)
