"""The k best unseen items of many users, scored in batches that fit a stated memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.scores import dot_product_scores
from gatrec_jax.sharding.mesh import local_mesh

Array = jax.Array
ScoreBatch = Callable[[Any, Array], Array]

# Copies of the [B, I] scores that are alive in a batch: scores, masked scores, workspace of top_k.
_SCORE_COPIES = 4


@functools.partial(jax.jit, static_argnames=("score_batch", "k"))
def _best_of_batch(
  score_batch: ScoreBatch, params: Any, users: Array, rows: Array, seen: Array, *, k: int
) -> tuple[Array, Array]:
  """users: [B]; rows, seen: [P] int32 pairs to leave out, rows = B for padding."""
  scores = score_batch(params, users).astype(jnp.float32)
  scores = scores.at[rows, seen].set(-jnp.inf, mode="drop")
  # lax.top_k puts the lower index first among equal scores: ties are broken by item index.
  values, items = jax.lax.top_k(scores, min(k, scores.shape[1]))
  return jnp.where(values > -jnp.inf, items, -1).astype(jnp.int32), values


def top_items_by(
  score_batch: ScoreBatch,
  params: Any,
  users: np.ndarray,
  *,
  num_items: int,
  seen: Interactions | None,
  k: int,
  memory_mb: float = 512,
  mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The k items with the highest scores for each user, without the items they have seen.

  Users go through the device in equal batches, so one program is compiled; a second call with
  the same function, shapes and number of users reuses it.

  Args:
    score_batch: (params, users [B] int32) -> [B, I] scores; a function of module level (or one
      kept by the caller), since a new function object means a new compilation. A score of −inf
      means "never recommend".
    params: any pytree of arrays.
    users: [n] int32 user indices.
    num_items: I.
    seen: interactions whose pairs are left out; None leaves out nothing.
    k: how many items.
    memory_mb: bound on what one batch takes on the device; at least one user is scored at a time.
    mesh: this process's devices of it share each batch of users; None for one device.

  Returns:
    items [n, k] int32, best first, ties by lower index, −1 where fewer than k candidates exist;
    scores [n, k] float32, −inf there.

  Raises:
    FloatingPointError: a score is NaN.

  >>> def score(table, users):
  ...   return table[users]
  >>> table = jnp.array([[0.5, 1.0, 9.0]])
  >>> items, _ = top_items_by(score, table, np.array([0]), num_items=3, seen=None, k=2)
  >>> items.tolist()
  [[2, 1]]
  """
  users = np.asarray(users, np.int32)
  if not len(users):
    return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
  fitting = max(1, int(memory_mb * 2**20 / (_SCORE_COPIES * 4 * max(num_items, 1))))
  mesh = local_mesh(mesh)
  devices = 1 if mesh is None else mesh.size
  if devices > 1:
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
  num_batches = -(-len(users) // fitting)
  batch = -(-len(users) // (num_batches * devices)) * devices
  padded = np.concatenate([users, np.repeat(users[-1:], num_batches * batch - len(users))])
  starts, counts, seen_items = _seen_lists(seen, padded)
  ends = np.concatenate([[0], np.cumsum(counts)])
  num_pairs = max(1, int(np.diff(ends[::batch]).max()))

  items = np.full((num_batches * batch, k), -1, np.int32)
  scores = np.full((num_batches * batch, k), -np.inf, np.float32)
  for first in range(0, len(padded), batch):
    part = slice(first, first + batch)
    rows = np.repeat(np.arange(batch), counts[part])
    shift = starts[part] - (ends[first : first + batch] - ends[first])
    flat = np.arange(len(rows)) + shift[rows]
    padding = (0, num_pairs - len(rows))
    best, values = _best_of_batch(
      score_batch,
      params,
      _divided(padded[part], mesh),
      np.pad(rows, padding, constant_values=batch).astype(np.int32),
      np.pad(seen_items[flat], padding),
      k=k,
    )
    items[part, : best.shape[1]] = best
    scores[part, : best.shape[1]] = values
  if np.isnan(scores).any():
    raise FloatingPointError("a score is NaN: the model's parameters or inputs are not finite")
  return items[: len(users)], scores[: len(users)]


def _divided(users: np.ndarray, mesh: Mesh | None) -> Array | np.ndarray:
  """[B] users divided over the devices of the mesh, if there are several."""
  if mesh is None or mesh.size == 1:
    return users
  return jax.device_put(users, NamedSharding(mesh, PartitionSpec("data")))


def _seen_lists(
  seen: Interactions | None, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For users [n]: where each one's list starts, how long it is [n] int64, and all lists [P]."""
  if seen is None or not len(seen):
    return np.zeros(len(users), np.int64), np.zeros(len(users), np.int64), np.zeros(0, np.int32)
  order = np.argsort(seen.user, kind="stable")
  ends = np.concatenate([[0], np.cumsum(np.bincount(seen.user, minlength=seen.num_users))])
  return ends[users], ends[users + 1] - ends[users], seen.item[order].astype(np.int32)


def top_items(
  user_vectors: Array,
  item_vectors: Array,
  users: np.ndarray,
  *,
  seen: Interactions | None,
  k: int,
  memory_mb: float = 512,
  mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """`top_items_by` for scores that are dot products.

  Args: user_vectors: [U, D] float32. item_vectors: [I, D] float32. users: [n] int32. The rest, the
    result and what is raised: see `top_items_by`.

  >>> seen = Interactions.from_indices([0], [2], num_users=1, num_items=3)
  >>> user, items = jnp.array([[1.0]]), jnp.array([[0.5], [1.0], [9.0]])
  >>> items, scores = top_items(user, items, np.array([0]), seen=seen, k=2)
  >>> items.tolist(), scores.tolist()
  ([[1, 0]], [[1.0, 0.5]])
  """
  return top_items_by(
    dot_product_scores,
    (user_vectors, item_vectors),
    users,
    num_items=item_vectors.shape[0],
    seen=seen,
    k=k,
    memory_mb=memory_mb,
    mesh=mesh,
  )
