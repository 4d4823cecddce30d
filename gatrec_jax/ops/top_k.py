"""The k best unseen items of many users, scored in batches that fit a stated memory."""

from __future__ import annotations

import collections
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
# Calls that are computed at the same time: what one does on a single core, and what the host does,
# then delays no other.
_AT_A_TIME = 2
# Scores of a batch on a CPU: 16 MiB, which its caches hold. Larger batches are slower. A call has
# several batches, which share its temporary memory: new pages for each take a third of the time.
_CACHED_SCORES, _BATCHES_OF_CALL = 2**22, 8
_MASKS = 2  # bytes of a candidate
_RETAINED = 16  # batches of scores that the host's allocator keeps (measured)

# Sizes that a request may choose are padded to powers of two from these on, so that requests of any
# size run a few compiled programs.
_LARGEST_PADDED_BATCH, _LEAST_K = 64, 16


@functools.partial(jax.jit, static_argnames=("score_batch", "k"))
def _best_of_batches(
  score_batch: ScoreBatch, params: Any, users: Array, candidates: Array, *, k: int
) -> tuple[Array, Array]:
  """[n, B, k] items and scores. Args: users: [n, B] int32. candidates: [n, B, I] bool."""

  def best(batch: tuple[Array, Array]) -> tuple[Array, Array]:
    users, candidates = batch
    scores = score_batch(params, users).astype(jnp.float32)
    scores = jnp.where(candidates, scores, -jnp.inf)
    # lax.top_k puts the lower index first among equal scores: ties are broken by item index.
    values, items = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return jnp.where(values > -jnp.inf, items, -1).astype(jnp.int32), values

  if users.shape[0] > 1:
    return jax.lax.map(best, (users, candidates))
  items, values = best((users[0], candidates[0]))
  return items[None], values[None]


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
  where: np.ndarray | None = None,
  among: Interactions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The k items with the highest scores for each user, without the items they have seen.

  Users go through the device in equal batches, two calls at a time, so one program is compiled. A
  second call with the same function reuses it, whatever is left out, and also for other small
  numbers of users and of items, which are padded to powers of two.

  Args:
    score_batch: (params, users [B] int32) -> [B, I] scores; a function of module level (or one
      kept by the caller), since a new function object means a new compilation. A score of −inf
      means "never recommend".
    params: any pytree of arrays.
    users: [n] int32 user indices.
    num_items: I.
    seen: interactions whose pairs are left out; None leaves out nothing.
    k: how many items.
    memory_mb: bound on what batches take on the device; at least one user is scored at a time.
    mesh: this process's devices of it share each batch of users; None for one device.
    where: [I] bool, items that may be recommended; None for all.
    among: interactions whose pairs alone may be recommended; None for all.

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
  fitting = users_of_batch(num_items, memory_mb=memory_mb)
  mesh = local_mesh(mesh)
  devices = 1 if mesh is None else mesh.size
  if devices > 1:
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
  num_batches = -(-len(users) // fitting)
  num_calls = -(-num_batches // (_BATCHES_OF_CALL if _in_caches(mesh) else 1))
  of_call = -(-num_batches // num_calls)
  num_batches = num_calls * of_call
  batch = -(-len(users) // (num_batches * devices)) * devices
  if batch <= min(_LARGEST_PADDED_BATCH, fitting // 2):
    batch = -(-_power_of_two(batch, 1) // devices) * devices
  # Users with as many pairs each share a batch: the time of some scores is that of the longest.
  order = np.arange(len(users))
  if seen is not None and num_batches > 1:
    lengths = np.bincount(seen.user, minlength=seen.num_users)[users]
    order = np.argsort(lengths, kind="stable")
  filling = np.repeat(order[-1:], num_batches * batch - len(users))
  padded = users[np.concatenate([order, filling])]
  candidates = _candidates(padded, num_items, where=where, seen=seen, among=among)

  items = np.full((num_batches * batch, k), -1, np.int32)
  scores = np.full((num_batches * batch, k), -np.inf, np.float32)
  width, started = min(k, num_items), collections.deque()

  def finish() -> None:
    part, found = started.popleft()
    best, values = (one.reshape(-1, one.shape[-1])[:, :width] for one in jax.device_get(found))
    items[part, :width], scores[part, :width] = best, values

  size = of_call * batch
  for first in range(0, len(padded), size):
    part = slice(first, first + size)
    found = _best_of_batches(
      score_batch,
      params,
      _divided(padded[part].reshape(of_call, batch), mesh),
      _divided(candidates(part).reshape(of_call, batch, num_items), mesh),
      k=_power_of_two(k, _LEAST_K),
    )
    started.append((part, found))
    if len(started) == _AT_A_TIME:
      finish()
  while started:
    finish()
  if np.isnan(scores).any():
    raise FloatingPointError("a score is NaN: the model's parameters or inputs are not finite")
  place = np.argsort(order)
  return items[place], scores[place]


def users_of_batch(num_items: int, *, memory_mb: float) -> int:
  """How many users are scored in a batch. Args: memory_mb: as in `top_items_by`."""
  return max(1, int(_scores_of_batch(memory_mb) / max(num_items, 1)))


def bytes_of_batches(num_users: int, num_items: int, *, memory_mb: float, copies: float) -> float:
  """Bytes of the arrays of all batches that are alive at a time, at most.

  Args: memory_mb: as in `top_items_by`. copies: of a batch's scores that are alive in it.
  """
  scores, batch = float(num_users) * num_items, max(num_items, _scores_of_batch(memory_mb))
  scored, masked = copies * min(scores, _AT_A_TIME * batch), _AT_A_TIME * batch
  if _in_caches(None):
    scored += _RETAINED * min(scores, batch)
    masked *= _BATCHES_OF_CALL
  return 4 * scored + _MASKS * min(scores, masked)


def _scores_of_batch(memory_mb: float) -> float:
  most = memory_mb * 2**20 / (_AT_A_TIME * _SCORE_COPIES * 4)
  return min(most, _CACHED_SCORES) if _in_caches(None) else most


def _in_caches(mesh: Mesh | None) -> bool:
  """Whether batches are made for a CPU's caches."""
  return jax.default_backend() == "cpu" and (mesh is None or mesh.size == 1)


def _power_of_two(count: int, least: int) -> int:
  """The next power of two that is at least `count` and at least `least`."""
  return max(least, 1 << (count - 1).bit_length())


def _divided(rows: np.ndarray, mesh: Mesh | None) -> Array | np.ndarray:
  """[n, B, …] rows of batches divided over the devices of the mesh, if there are several."""
  if mesh is None or mesh.size == 1:
    return rows
  return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(None, "data")))


def _candidates(
  users: np.ndarray,
  num_items: int,
  *,
  where: np.ndarray | None,
  seen: Interactions | None,
  among: Interactions | None,
) -> Callable[[slice], np.ndarray]:
  """A function from a slice of users [n] to the mask of their candidates, [B, I] bool.

  Args: as in `top_items_by`.
  """
  common = np.ones(num_items, bool) if where is None else np.asarray(where, bool)
  gone = None if seen is None else _lists_of(seen, users)
  kept = None if among is None else _lists_of(among, users)

  def of(part: slice) -> np.ndarray:
    mask = np.tile(common, (len(users[part]), 1))
    if kept is not None:
      allowed = np.zeros_like(mask)
      allowed[_pairs(kept, part)] = True
      mask &= allowed
    if gone is not None:
      mask[_pairs(gone, part)] = False
    return mask

  return of


def _pairs(
  lists: tuple[np.ndarray, np.ndarray, np.ndarray], part: slice
) -> tuple[np.ndarray, np.ndarray]:
  """Row in the slice and item of each entry. Args: lists: of `_lists_of`."""
  starts, counts, items = lists[0][part], lists[1][part], lists[2]
  rows = np.repeat(np.arange(len(counts)), counts)
  before = np.cumsum(counts) - counts
  return rows, items[np.arange(len(rows)) + (starts - before)[rows]]


def _lists_of(pairs: Interactions, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For users [n]: where each one's list starts, how long it is [n] int64, and all lists [P]."""
  wanted = np.zeros(pairs.num_users, bool)
  wanted[users] = True
  rows = np.flatnonzero(wanted[pairs.user])
  order = rows[np.argsort(pairs.user[rows], kind="stable")]
  counts = np.bincount(pairs.user[rows], minlength=pairs.num_users)
  ends = np.concatenate([[0], np.cumsum(counts)])
  return ends[users], counts[users], pairs.item[order]


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
