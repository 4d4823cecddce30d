"""Draws negative items on device, without rejection, so that no forbidden item is ever drawn.

Every item has an integer weight. A draw picks a point in the total weight of the user's allowed
items. Two binary searches find the item at that point: one over the user's forbidden items (how
much forbidden weight precedes the point) and one over the catalog. Integers make this exact;
uniform sampling is the case in which all weights are 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.sharding.placement import to_device

MODES = ("uniform", "popularity", "unliked", "explicit", "mixed")
"""Which items may be drawn; see `make_sampler`."""

_MASS = 1 << 30  # total weight of the catalog, below the int32 limit


class NegativeSampler(NamedTuple):
  """The arrays that `draw_negatives` reads.

  Attributes:
    mass_before: [I + 1] int32, weights of items 0…i−1 summed.
    user_start: [U + 1] int32, where each user's forbidden items begin.
    allowed_before: [F + 1] int32 (one spare entry at the end, also below), allowed mass
      before the user's f-th forbidden item.
    forbidden_through: [F + 1] int32, the user's forbidden mass up to and including it.
    allowed_total: [U] int32, allowed mass of each user.
    dislike_start: [U + 1] int32, where each user's explicit negatives begin.
    dislikes: [max(G, 1)] int32 item indices.
    explicit_share: [] float32, probability of drawing a dislike where the user has any.
  """

  mass_before: jax.Array
  user_start: jax.Array
  allowed_before: jax.Array
  forbidden_through: jax.Array
  allowed_total: jax.Array
  dislike_start: jax.Array
  dislikes: jax.Array
  explicit_share: jax.Array


def make_sampler(
  train: Interactions,
  *,
  mode: str = "uniform",
  feedback: Feedback = Feedback(),
  popularity_power: float = 0.75,
  explicit_share: float = 0.25,
) -> NegativeSampler:
  """Builds the sampler of negatives (Ebrat et al. 2025) from the training interactions.

  Args:
    train: training rows only.
    mode: `uniform` or `popularity` over items that the user has neither liked nor disliked (neutral
      ratings may be drawn); `unliked` uniform over all that the user has not liked, so that
      dislikes are drawn like any other item; `explicit` the user's dislikes, where there are any,
      else uniform; `mixed` a dislike with probability `explicit_share`, else uniform.
    feedback: which ratings count as liked and as disliked.
    popularity_power: β; an item's weight is its count of positives to the power β.
    explicit_share: of `mixed`.
  Raises:
    InputError: an unknown mode.

  >>> train = Interactions.from_indices([0, 0], [0, 1], [5, 1], num_users=1, num_items=3)
  >>> sampler = make_sampler(train, mode="uniform")
  >>> sampler.allowed_total.tolist()  # item 2 is neither liked nor disliked
  [1]
  """
  if mode not in MODES:
    raise InputError(f"negatives={mode}: must be one of {', '.join(MODES)}")
  num_users, num_items = train.num_users, train.num_items
  liked, disliked = feedback.liked(train.rating), feedback.disliked(train.rating)
  if mode == "popularity":
    count = np.bincount(train.item[liked], minlength=num_items).astype(np.float64)
    share = np.maximum(count, 0.5) ** popularity_power
    weight = np.maximum(share / share.sum() * (_MASS - num_items), 1).astype(np.int64)
  else:
    weight = np.ones(num_items, np.int64)

  mass_before = np.concatenate([[0], np.cumsum(weight)])
  user, item = _sorted_pairs(train, liked if mode == "unliked" else liked | disliked)
  start = np.searchsorted(user, np.arange(num_users + 1))
  running = np.concatenate([[0], np.cumsum(weight[item])])
  forbidden_before = running[:-1] - running[start[user]]
  total = running[start[1:]] - running[start[:-1]]
  dislike_user, dislike_item = _sorted_pairs(train, disliked)
  share = {"explicit": 1.0, "mixed": explicit_share}.get(mode, 0.0)

  def whole(array: np.ndarray) -> jax.Array:
    return to_device(np.asarray(array, np.int32))

  return NegativeSampler(
    mass_before=whole(mass_before),
    user_start=whole(start),
    allowed_before=whole(np.append(mass_before[item] - forbidden_before, 0)),
    forbidden_through=whole(np.append(forbidden_before + weight[item], 0)),
    allowed_total=whole(mass_before[-1] - total),
    dislike_start=whole(np.searchsorted(dislike_user, np.arange(num_users + 1))),
    dislikes=whole(dislike_item if len(dislike_item) else np.zeros(1)),
    explicit_share=to_device(np.float32(share)),
  )


def draw_negatives(
  key: jax.Array, sampler: NegativeSampler, users: jax.Array, *, num: int
) -> tuple[jax.Array, jax.Array]:
  """Draws `num` negatives per user, independently and with replacement.

  Args:
    key: PRNG key, consumed.
    sampler: from `make_sampler`.
    users: [B] int32.
    num: M, static.
  Returns:
    [B, M] int32 items, and [B, M] bool: False where nothing may be drawn for that user.

  >>> train = Interactions.from_indices([0, 0], [0, 1], [5, 1], num_users=1, num_items=3)
  >>> sampler = make_sampler(train, mode="uniform")
  >>> items, possible = draw_negatives(jax.random.key(0), sampler, jnp.array([0]), num=2)
  >>> items.tolist(), possible.tolist()
  ([[2, 2]], [[True, True]])
  """
  point_key, coin_key, pick_key = jax.random.split(key, 3)
  shape = (users.shape[0], num)
  total = sampler.allowed_total[users][:, None]
  point = below(jax.random.bits(point_key, shape), jnp.maximum(total, 1))
  start, stop = (sampler.user_start[users + k][:, None] for k in (0, 1))
  # How many forbidden items lie before the point: all those with allowed mass before them ≤ point.
  passed = _first_above(sampler.allowed_before, point, start, stop)
  forbidden = sampler.forbidden_through[jnp.maximum(passed - 1, 0)]
  point += jnp.where(passed > start, forbidden, 0)
  item = jnp.searchsorted(sampler.mass_before, point, side="right") - 1
  possible = jnp.broadcast_to(total > 0, shape)

  dislike_from, dislike_to = (sampler.dislike_start[users + k][:, None] for k in (0, 1))
  has_dislike = dislike_to > dislike_from
  pick = below(jax.random.bits(pick_key, shape), jnp.maximum(dislike_to - dislike_from, 1))
  dislike = sampler.dislikes[jnp.minimum(dislike_from + pick, sampler.dislikes.shape[0] - 1)]
  use_dislike = has_dislike & (jax.random.uniform(coin_key, shape) < sampler.explicit_share)
  item = jnp.where(use_dislike, dislike, jnp.clip(item, 0, sampler.mass_before.shape[0] - 2))
  return item.astype(jnp.int32), use_dislike | possible


def below(bits: jax.Array, limit: jax.Array) -> jax.Array:
  """A uniform integer in 0…limit − 1 from uint32 random bits: ⌊bits · limit / 2³²⌋.

  `jax.random.randint` takes a remainder instead, which for limits near 2³⁰ makes low numbers 20 %
  more likely than high ones.
  """
  limit = limit.astype(jnp.uint32)
  high, low = bits >> 16, bits & 0xFFFF
  limit_high, limit_low = limit >> 16, limit & 0xFFFF
  cross, other = high * limit_low, low * limit_high
  carry = ((cross & 0xFFFF) + (other & 0xFFFF) + ((low * limit_low) >> 16)) >> 16
  return (high * limit_high + (cross >> 16) + (other >> 16) + carry).astype(jnp.int32)


def _first_above(values: jax.Array, point: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
  """First index in [low, high) whose value exceeds `point`, else high; values ascend in there."""
  low, high = jnp.broadcast_to(low, point.shape), jnp.broadcast_to(high, point.shape)

  def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = bounds
    middle = (low + high) // 2
    above = values[middle] > point
    open_ = low < high
    return jnp.where(open_ & ~above, middle + 1, low), jnp.where(open_ & above, middle, high)

  steps = max(values.shape[0], 1).bit_length() + 1
  return jax.lax.fori_loop(0, steps, halve, (low, high))[0]


def _sorted_pairs(train: Interactions, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Users and items of `rows` ([R] bool), sorted by user, then item."""
  user, item = train.user[rows].astype(np.int64), train.item[rows].astype(np.int64)
  order = np.lexsort((item, user))
  return user[order], item[order]
