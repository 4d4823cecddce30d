"""Which items follow which: a Markov chain over likes, from the user's latest ones."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.sequences import MarkovConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.events import Earlier, Events, earlier, liked_as_events, make_events
from gatrec_jax.models.inputs import Inputs, NewUsers
from gatrec_jax.sharding.placement import to_device

Array = jax.Array


class Own(NamedTuple):
  """The users' events, and M pairs of items of which one followed the other.

  Attributes:
    events: likes, or all ratings.
    source, target: [M] int32, by source, then by target; they differ.
    count: [M] float32, how often the target followed, by distance and by relevance.
  """

  events: Events
  source: Array
  target: Array
  count: Array


class State(NamedTuple):
  """What scoring reads.

  Attributes:
    target: [I, K] int32, what follows each item; I for none.
    weight: [I, K] float32, how much; 0 for none.
    factor: [L] float32, of a user's latest event, the one before it, …
    events: of the users.
  """

  target: Array
  weight: Array
  factor: Array
  events: Events


@dataclasses.dataclass(frozen=True)
class MarkovRecommender:
  """Params are {"target": [I, K] int32, "weight": [I, K] float32}, as in `State`.

  The weight of target j for source i is n_ij ÷ (n_i + shrinkage) ÷ (n_j^popularity_power), where
  n_ij counts how often j followed i, n_i what followed i and n_j how often j followed anything.
  """

  settings: MarkovConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = False
  learned: ClassVar[bool] = False
  scores_by: ClassVar[str] = "scores"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Own:
    """The events in the order of time, and what followed what, up to `window` events apart."""
    if self.settings.relevance == "binary":
      counted = np.flatnonzero(judged.liked)
      train = train.take(counted)
      ones = np.ones(len(counted), np.float32)
      judged = JudgedRatings(judged.liked[counted], ones, judged.scaled[counted])
    events = make_events(train, judged)
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for distance in range(1, self.settings.window + 1):
      place = np.flatnonzero(events.user[:-distance] == events.user[distance:])
      source, target = events.item[place], events.item[place + distance]
      keys.append(source.astype(np.int64) * self.num_items + target)
      both = events.relevance[place] * events.relevance[place + distance]
      counts.append(np.where(source == target, 0.0, both / distance))
    pairs, which = np.unique(np.concatenate(keys), return_inverse=True)
    count = np.bincount(which, weights=np.concatenate(counts), minlength=len(pairs))
    pairs, count = pairs[count > 0], count[count > 0].astype(np.float32)
    source, target = (part.astype(np.int32) for part in np.divmod(pairs, self.num_items))
    return Own(events, source, target, count)

  def fit(self, inputs: Inputs, key: Array) -> dict[str, Array]:
    del key
    own, settings = inputs.own, self.settings
    nothing = jnp.zeros(self.num_items)
    after = nothing.at[own.source].add(own.count)[own.source]
    before = nothing.at[own.target].add(own.count)[own.target]
    weight = own.count / (after + settings.shrinkage) / before**settings.popularity_power
    # The largest weights of every source, ties by lower target.
    order = jnp.lexsort((own.target, -weight, own.source))
    source = own.source[order]
    rank = jnp.arange(len(order)) - jnp.searchsorted(source, source)
    kept = min(settings.neighbors, self.num_items)
    place = source, jnp.where(rank < kept, rank, kept)
    target = jnp.full((self.num_items, kept), self.num_items, jnp.int32)
    return {
      "target": target.at[place].set(own.target[order], mode="drop"),
      "weight": jnp.zeros(target.shape).at[place].set(weight[order], mode="drop"),
    }

  def serving_state(self, params: dict[str, Array], inputs: Inputs) -> State:
    place = jnp.arange(self.settings.length)
    factor = jnp.asarray(self.settings.decay, jnp.float32) ** place
    return State(params["target"], params["weight"], factor, inputs.own.events)

  @staticmethod
  def score(serving_state: State, users: Array) -> Array:
    """[B, I] float32 for `users` [B] int32; a user without events scores 0 everywhere."""
    return _scores(serving_state, _latest(serving_state, users))

  @staticmethod
  def vectors_of_users(serving_state: State, users: Array) -> Array:
    """[B, I] float32, how much each item of their history counts."""
    latest = _latest(serving_state, users)
    rows = jnp.arange(len(users))[:, None]
    weights = serving_state.factor * latest.relevance * latest.inside
    return jnp.zeros((len(users), len(serving_state.weight))).at[rows, latest.item].add(weights)

  @staticmethod
  def vectors_of_items(serving_state: State) -> Array:
    """[I, I] float32, the weights for each item."""
    num_items = len(serving_state.weight)
    sources = jnp.arange(num_items)[:, None]
    weights = jnp.zeros((num_items, num_items))
    return weights.at[serving_state.target, sources].add(serving_state.weight, mode="drop")

  def score_new(
    self, params: dict[str, Array], inputs: Inputs, serving_state: State, users: NewUsers
  ) -> Array:
    """[B, I] float32; the likes are in the order of time, the latest one last."""
    found = liked_as_events(users.liked, length=self.settings.length)
    return _scores(serving_state, to_device(found))


def _latest(state: State, users: Array) -> Earlier:
  """The latest L events of users [B] int32."""
  return earlier(state.events, users, state.events.start[users + 1], length=len(state.factor))


def _scores(state: State, latest: Earlier) -> Array:
  """[B, I] float32: the weights of what follows each event, times what the event counts."""
  num_users, num_items = len(latest.item), len(state.weight)
  rows = jnp.arange(num_users)[:, None]

  def add(scores: Array, of_place: tuple[Array, Array]) -> tuple[Array, None]:
    item, factor = of_place
    weights = factor[:, None] * state.weight[item]
    return scores.at[rows, state.target[item]].add(weights, mode="drop"), None

  factors = state.factor * latest.relevance * latest.inside
  scores = jnp.zeros((num_users, num_items))
  return jax.lax.scan(add, scores, (latest.item.T, factors.T))[0]
