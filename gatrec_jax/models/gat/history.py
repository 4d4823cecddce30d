"""Users as attention over their own events: their vectors at a time, training and serving.

The events of a user are edges of the graph that lead to the user at a time: an event to be
predicted is seen by none of the edges that are read for it (`models.events.earlier`). Items
exchange messages along edges from each event to the next one of the same user. A step of training
leaves out those of a user from the earliest event on that it predicts of them, so that no vector
that it reads knows what the user did later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.histories import OrderedHistory
from gatrec_jax.config.objectives import SoftmaxObjective
from gatrec_jax.models.events import Earlier, Events, earlier
from gatrec_jax.ops.attention.histories import attend_histories, history_logits
from gatrec_jax.ops.numeric import drop, is_off, unit
from gatrec_jax.ops.softmax_loss import Candidates, candidates_of, event_loss, temperature_of

Array = jax.Array

_SLOPE = 0.2
_USERS_AT_A_TIME = 4096
_kernel_init = nn.initializers.glorot_uniform()


class Ordered(NamedTuple):
  """What training on events reads.

  Attributes:
    events: the training ratings in the order of time.
    later: [E] int32, the later of the two events that an edge of the graph joins.
    candidates: of the softmax over items.
    total: [U] float32, the sum of the weights of each user's targets.
  """

  events: Events
  later: Array
  candidates: Candidates
  total: Array


class HistoryAttention(nn.Module):
  """[B, D] vectors of users from the vectors of the items of their events.

  The latest event (or the mean of all) attends to all of them by GATv2 with edge features. A linear
  map of the latest event, which begins as 0, is added.
  """

  settings: OrderedHistory

  @nn.compact
  def __call__(
    self, items: Array, found: Earlier, *, deterministic: bool = True
  ) -> tuple[Array, Array]:
    """Args: items: [I, D] float32. Returns: [B, D], and the attention weights [B, L, H]."""
    settings, width = self.settings, items.shape[1]
    heads, length = settings.history_heads, found.item.shape[1]
    inside = found.inside.astype(jnp.float32)[:, :, None]
    rows = items[found.item] * inside
    if not (deterministic or is_off(settings.history_dropout)):
      rows = drop(self.make_rng("dropout"), rows, settings.history_dropout)
    query = rows[:, 0]
    if settings.history_query == "mean":
      query = rows.sum(axis=1) / jnp.maximum(inside.sum(axis=1), 1.0)
    if settings.history_attention == "none":
      logits = jnp.zeros((*found.item.shape, heads))
    else:
      hidden = nn.Dense(width, use_bias=False, kernel_init=_kernel_init, name="event")(rows)
      hidden += nn.Dense(width, kernel_init=_kernel_init, name="query")(query)[:, None]
      bias = None
      if "position" in settings.history_features:
        place = self.param("position", nn.initializers.normal(0.02), (length, width))
        bias = self.param("position_bias", nn.initializers.zeros, (length, heads))
        hidden += place
      features = _features(found, settings)
      if features.shape[2]:
        kernel = self.param("features", nn.initializers.zeros, (features.shape[2], width))
        hidden += features @ kernel
      vector = self.param("vector", nn.initializers.normal(0.4), (width,))
      logits = history_logits(hidden, vector, _SLOPE, heads=heads, bias=bias)
    out, weights = attend_histories(rows, logits, found.inside)
    if settings.history_latest:
      latest = nn.Dense(width, use_bias=False, kernel_init=nn.initializers.zeros, name="latest")
      out += latest(rows[:, 0])
    return out, weights


def _features(found: Earlier, settings: OrderedHistory) -> Array:
  """[B, L, F] float32, the numeric edge features."""
  columns = {"gap": jnp.log1p(found.gap), "relevance": jnp.log(found.relevance)}
  chosen = [column for name, column in columns.items() if name in settings.history_features]
  return jnp.stack(chosen, axis=2) if chosen else jnp.zeros((*found.item.shape, 0))


def make_ordered(
  events: Events, later: np.ndarray, rated: np.ndarray, *, objective: SoftmaxObjective, drawn: int
) -> Ordered:
  """What training on events reads; numpy arrays.

  Args:
    later: [E] int32, as in `Ordered`.
    rated: [I] bool, items with an event.
    drawn: items that the softmax of a step draws; 0 = all.
  """
  targets = events.targets
  candidates = candidates_of(
    np.bincount(events.item[targets], minlength=len(rated)),
    rated,
    drawn=drawn,
    popularity_weight=objective.popularity_weight,
  )
  weight = events.relevance[targets] if objective.relevance == "graded" else None
  total = np.bincount(events.user[targets], weights=weight, minlength=len(events.start) - 1)
  return Ordered(events, later, candidates, total.astype(np.float32))


def visible_edges(ordered: Ordered, rows: Array, where: Array, *, num_edges: int) -> Array:
  """[E] bool, edges of the graph that none of these targets, nor their users' later events, are an
  end of; True for padding.

  Args:
    rows: [B] int32, places in `events.targets`. where: [B] bool, which count.
    num_edges: E, more than there are where a mesh pads the graph.
  """
  events, num_events = ordered.events, ordered.events.item.shape[0]
  place = events.targets[rows]
  first = jnp.full(ordered.total.shape, num_events, jnp.int32)
  first = first.at[events.user[place]].min(jnp.where(where, place, num_events))
  visible = ordered.later < first[events.user[ordered.later]]
  return jnp.pad(visible, (0, num_edges - len(visible)), constant_values=True)


def events_loss(
  params: Any,
  items: Array,
  ordered: Ordered,
  rows: Array,
  where: Array,
  key: Array,
  *,
  settings: OrderedHistory,
  objective: SoftmaxObjective,
  is_cosine: bool,
  drawn: int,
) -> Array:
  """[] float32: the cross-entropy of events under a softmax over items, given what came before.

  Args:
    params: of `HistoryAttention`. items: [I, D], the items' final vectors.
    rows: [B] int32, places in `events.targets`. where: [B] bool, which count.
    key: consumed. drawn: as in `make_ordered`.
  """
  events = ordered.events
  place = events.targets[rows]
  users = events.user[place]
  found = earlier(events, users, place, length=settings.history_length)
  key, dropout_key = jax.random.split(key)
  states, _ = HistoryAttention(settings).apply(
    {"params": params}, items, found, deterministic=False, rngs={"dropout": dropout_key}
  )
  weight = events.relevance[place] if objective.relevance == "graded" else jnp.ones(len(rows))
  if not is_off(objective.user_power):
    weight *= jnp.maximum(ordered.total[users], 1e-9) ** -objective.user_power
  return event_loss(
    unit(states) if is_cosine else states,
    items,
    events.item[place],
    ordered.candidates,
    temperature=temperature_of(objective.temperature, num_items=items.shape[0]),
    weight=jnp.where(where, weight, 0.0),
    drawn=drawn,
    key=key,
  )


def states_of_users(
  params: Any, items: Array, events: Events, *, settings: OrderedHistory, is_cosine: bool
) -> Array:
  """[U, D] float32, the vectors of all users after their last event; 0 without any."""
  num_users = events.start.shape[0] - 1

  def of_user(user: Array) -> Array:
    end = events.start[user + 1]
    found = earlier(events, user[None], end[None], length=settings.history_length)
    return states_of(params, items, found, settings=settings, is_cosine=is_cosine)[0]

  size = min(num_users, _USERS_AT_A_TIME)
  return jax.lax.map(of_user, jnp.arange(num_users, dtype=jnp.int32), batch_size=size)


def states_of(
  params: Any, items: Array, found: Earlier, *, settings: OrderedHistory, is_cosine: bool
) -> Array:
  """[B, D] float32, without dropout."""
  states, _ = HistoryAttention(settings).apply({"params": params}, items, found)
  return unit(states) if is_cosine else states
