"""Softmax cross-entropy over all items or a draw of them: the users' targets, and the loss."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.candidate_sampling import draw_items, inclusion_units
from gatrec_jax.ops.numeric import is_off
from gatrec_jax.ops.propagation import DenseEdges, SparseEdges, make_edges, sum_over_items
from gatrec_jax.ops.scores import Pair

Array = jax.Array

# Scores held in memory at a time; larger blocks are no faster.
BLOCK = 1 << 22
_MOST_SCORES = 1 << 27
_LEAST_DRAWN = 1 << 12


class Targets(NamedTuple):
  """The users' target distributions over items, unnormalized.

  Attributes:
    edges: the pairs with a weight above 0, and their weights.
    total: [U] float32, the sum of each user's weights.
    candidates: [I] bool, items that the softmax includes.
    units: [I] int32, of a draw of them (`inclusion_units`); None where all are included.
    popularity: [I] float32, what an item's score is larger by than its dot product; None for 0.
    of_popularity: [U] float32, the sum of each user's weights times this; None with it.
  """

  edges: DenseEdges | SparseEdges
  total: Array
  candidates: Array
  units: Array | None
  popularity: Array | None
  of_popularity: Array | None


def drawn_size(asked: int, *, num_users: int, num_items: int) -> int:
  """How many items a step draws for its softmax; 0 = all of them.

  Args: asked: a number; 0 = all items where a step over all users has at most 2^27 scores, else a
    power of two for which it has.
  """
  if asked or num_users * num_items <= _MOST_SCORES:
    return asked
  return max(_LEAST_DRAWN, 2 ** ((_MOST_SCORES // num_users).bit_length() - 1))


def temperature_of(asked: Any, *, num_items: int) -> Any:
  """The temperature of the softmax of cosines.

  Args: asked: a number, may be traced; 0 = by the number of items: with more of them, the same
    difference of two scores has to make a larger one of probabilities.
  """
  if not is_off(asked):
    return asked
  return float(np.clip(0.6 - 0.047 * np.log(num_items), 0.05, 0.25))


def popularity_weight_of(asked: float | None, *, num_items: int) -> float:
  """How much popularity counts in scores. Args: asked: a number; None = by the number of items."""
  if asked is not None:
    return asked
  return float(np.clip(0.0215 * np.log(num_items / 4000), 0.0, 0.05))


class Candidates(NamedTuple):
  """The items that a softmax is over.

  Attributes: candidates, units, popularity: as in `Targets`.
  """

  candidates: Array
  units: Array | None
  popularity: Array | None


def candidates_of(
  times: np.ndarray, candidates: np.ndarray, *, drawn: int, popularity_weight: float | None
) -> Candidates:
  """The items of a softmax; numpy arrays.

  Args:
    times: [I] int, how often each item is a target.
    candidates: [I] bool, items that are included.
    drawn, popularity_weight: as in `make_targets`.
  """
  units = inclusion_units(candidates * np.sqrt(times + 1), size=drawn) if drawn else None
  popularity = None
  if own_weight := popularity_weight_of(popularity_weight, num_items=len(times)):
    popularity = np.float32(own_weight * np.log1p(times))
  return Candidates(candidates, units, popularity)


def make_targets(
  train: Interactions,
  judged: JudgedRatings,
  *,
  relevance: str,
  propagation: str,
  candidates: np.ndarray | None = None,
  drawn: int = 0,
  popularity_weight: float | None = 0.0,
) -> Targets:
  """The targets of every user; numpy arrays.

  Args:
    relevance: `binary`, where positives weigh 1 and others nothing, or `graded`, where every rating
      weighs its relevance.
    propagation: as in `make_edges`.
    candidates: [I] bool, items that the softmax includes; None for all.
    drawn: how many of them a step draws, each with a probability in proportion to the root of its
      number of targets plus 1; 0 = all are included.
    popularity_weight: an item's score is larger by this times log(1 + its number of targets); None
      = by the number of items (`popularity_weight_of`).

  >>> train = Interactions.from_indices([0, 0], [0, 1], [5, 4], num_users=1, num_items=3)
  >>> judged = Feedback().judge(train.rating)
  >>> targets = make_targets(train, judged, relevance="graded", propagation="dense")
  >>> print(targets.edges.adjacency, targets.total)
  [[1.  0.8 0. ]] [1.8]
  """
  rows = judged.liked if relevance == "binary" else np.ones(len(train), bool)
  weight = None if relevance == "binary" or (judged.relevance == 1).all() else judged.relevance
  edges = make_edges(
    train.user[rows], train.item[rows], train.num_users, train.num_items, propagation, weight=weight
  )
  total = np.bincount(train.user[rows], weights=weight, minlength=train.num_users)
  if candidates is None:
    candidates = np.ones(train.num_items, bool)
  times = np.bincount(train.item[rows], minlength=train.num_items)
  items = candidates_of(times, candidates, drawn=drawn, popularity_weight=popularity_weight)
  of_popularity = None
  if items.popularity is not None:
    added = items.popularity[train.item[rows]] * (1.0 if weight is None else weight)
    of_popularity = np.bincount(train.user[rows], weights=added, minlength=train.num_users)
    of_popularity = of_popularity.astype(np.float32)
  return Targets(edges, total.astype(np.float32), *items, of_popularity)


def softmax_loss(
  vectors: Pair,
  regularized: Pair,
  targets: Targets,
  users: Array,
  *,
  temperature: Any,
  l2_weight: Any = 0.0,
  user_power: Any = 0.0,
  where: Array,
  drawn: int = 0,
  key: Array | None = None,
  block: int = BLOCK,
) -> Array:
  """Cross-entropy of the users' targets under a softmax over all items, or over a draw of them.

  Weighted mean over the targets (u, i) of the counted users of log Σ_j exp(s_uj) − s_ui + l2_weight
  · ½ (‖user‖² + ‖item‖²), s = score ÷ temperature. The weight of a target is its weight in
  `targets` times (its user's total)^−user_power. (Weights of 1 and a power of 0 give the objective
  of Mult-VAE, Liang et al. 2018.)

  Args:
    vectors: of these users and of all items, ([B, D], [I, D]) float32; their dot products, plus
      the items' `popularity` of `targets`, are the scores.
    regularized: the vectors in the L2 term, ([B, D], [I, D]) float32.
    targets: of all users.
    users: [B] int32. where: [B] bool, which of them count.
    temperature, l2_weight, user_power: may be traced.
    drawn: how many items stand for all candidates in the sum over j, as `targets` was made for; 0 =
      the whole sum.
    key: of the draw, consumed; None without one.
    block: scores held at a time; beyond that they are computed in parts, and again for the
      gradient.
  Returns:
    [] float32; 0 where no target counts.

  >>> train = Interactions.from_indices([0], [0], num_users=1, num_items=2)
  >>> judged = Feedback(1.0, 0.0).judge(train.rating)
  >>> targets = make_targets(train, judged, relevance="binary", propagation="dense")
  >>> vectors = jnp.zeros((1, 3)), jnp.zeros((2, 3))  # of one user and two items
  >>> one = {"users": jnp.array([0]), "where": jnp.array([True])}
  >>> print(softmax_loss(vectors, vectors, targets, **one, temperature=1.0).round(3))  # log 2
  0.693
  """
  user, item = vectors[0] / temperature, vectors[1]
  num_users = targets.total.shape[0]
  total = jnp.where(where, targets.total[users], 0.0)
  factor = jnp.ones_like(total)
  if not is_off(user_power):
    factor = jnp.where(total > 0, jnp.maximum(total, 1e-9) ** -user_power, 0.0)
  counted = jnp.sum(total * factor)
  share = factor / jnp.where(counted > 0, counted, 1.0)
  # Σ_i w_i u · v_i = u · Σ_i w_i v_i, so the targets need no scores of single pairs.
  wanted = sum_over_items(targets.edges, item, num_users=num_users, users=users)
  losses = -jnp.sum(user * wanted, axis=1)
  if targets.popularity is not None:
    losses -= targets.of_popularity[users] / temperature
  if not is_off(l2_weight):
    of_user, of_item = (jnp.sum(v * v, axis=1) for v in regularized)
    of_wanted = sum_over_items(targets.edges, of_item[:, None], num_users=num_users, users=users)
    losses += 0.5 * l2_weight * (total * of_user + of_wanted[:, 0])
  item, bias = _compared(item, targets, temperature, drawn, key)
  normalizers = _sum_of_normalizers(block, user, item, bias, share * total)
  return normalizers + jnp.sum(jnp.where(where, share * losses, 0.0))


def event_loss(
  states: Array,
  items: Array,
  target: Array,
  candidates: Candidates,
  *,
  temperature: Any,
  weight: Array,
  drawn: int = 0,
  key: Array | None = None,
  block: int = BLOCK,
) -> Array:
  """Cross-entropy of one item for each state under a softmax over all items, or a draw of them.

  Weighted mean of log Σ_j exp(s_j) − s_target, s = (state · item + popularity) ÷ temperature.

  Args:
    states: [B, D] float32, such as users before an event. items: [I, D] float32.
    target: [B] int32, what came next. weight: [B] float32 ≥ 0; 0 for padding.
    candidates: of all items. The others: as in `softmax_loss`.
  Returns: [] float32; 0 where nothing counts.

  >>> every = Candidates(np.array([True, True]), None, None)
  >>> one = {"temperature": 1.0, "weight": jnp.ones(1)}
  >>> print(event_loss(jnp.zeros((1, 3)), jnp.zeros((2, 3)), jnp.array([1]), every, **one).round(3))
  0.693
  """
  states = states / temperature
  counted = jnp.sum(weight)
  share = weight / jnp.where(counted > 0, counted, 1.0)
  wanted = jnp.sum(states * items[target], axis=1)
  if candidates.popularity is not None:
    wanted += candidates.popularity[target] / temperature
  items, bias = _compared(items, candidates, temperature, drawn, key)
  return _sum_of_normalizers(block, states, items, bias, share) - jnp.sum(share * wanted)


def _compared(
  items: Array, of: Targets | Candidates, temperature: Any, drawn: int, key: Array | None
) -> tuple[Array, Array]:
  """The items [S, D] in the sum of a softmax, and what is added to their scores [S]."""
  bias = jnp.zeros(len(items)) if of.popularity is None else of.popularity / temperature
  if not drawn:
    return items, jnp.where(of.candidates, bias, -jnp.inf)
  sample = draw_items(key, of.units, size=drawn)
  return items[sample.items], bias[sample.items] - sample.log_probability


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_normalizers(block: int, user: Array, item: Array, bias: Array, weight: Array) -> Array:
  """[] float32: Σ_u weight_u log Σ_i exp(user_u · item_i + bias_i).

  As the weights are known beforehand, the gradient is computed together with the value, so that
  scores and exponentials are made once.

  Args:
    block: scores held at a time.
    user: [B, D]. item: [I, D]. weight: [B]. bias: [I], −inf for an item that does not count; not
      differentiated.
  """
  return _normalizers(block, user, item, bias, weight, with_gradient=False)[0]


def _normalizers_forward(
  block: int, user: Array, item: Array, bias: Array, weight: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
  value, of_user, of_item, of_weight = _normalizers(
    block, user, item, bias, weight, with_gradient=True
  )
  return value, (of_user, of_item, of_weight)


def _normalizers_backward(
  block: int, kept: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, Array, None, Array]:
  del block
  of_user, of_item, of_weight = (gradient * part for part in kept)
  return of_user, of_item, None, of_weight


_sum_of_normalizers.defvjp(_normalizers_forward, _normalizers_backward)


def _normalizers(
  block: int, user: Array, item: Array, bias: Array, weight: Array, *, with_gradient: bool
) -> tuple[Array, ...]:
  """The value; with its gradient, also those by user [B, D], item [I, D] and weight [B]."""

  def product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)

  def of_part(of_item: Array, part: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    user, weight = part
    scores = product(user, item.T) + bias
    largest = scores.max(axis=1, keepdims=True)
    powers = jnp.exp(scores - largest)
    total = powers.sum(axis=1, keepdims=True)
    logarithm = (largest + jnp.log(total))[:, 0]
    if not with_gradient:
      return of_item, (logarithm, jnp.zeros_like(user))
    weighted = powers * (weight[:, None] / total)
    return of_item + product(weighted.T, user), (logarithm, product(weighted, item))

  size = user.shape[0]
  parts = min(size, -(-size * item.shape[0] // block))
  each = -(-size // parts)

  def divided(array: Array) -> Array:
    more = [(0, parts * each - size)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, more).reshape(parts, each, *array.shape[1:])

  begin = jnp.zeros_like(item)
  of_item, found = jax.lax.scan(of_part, begin, (divided(user), divided(weight)))
  logarithm, of_user = (one.reshape(parts * each, *one.shape[2:])[:size] for one in found)
  value = jnp.sum(weight * logarithm)
  return (value, of_user, of_item, logarithm) if with_gradient else (value,)
