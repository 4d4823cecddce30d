"""Base of models that predict a user's next event from the packed latest events of all users.

The loss is a softmax over all items or over a draw of them, without which such models are much
weaker (Hidasi and Karatzoglou 2018; Klenitskiy and Vasilev 2023; Petrov and Macdonald 2023).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.events import make_events
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers
from gatrec_jax.models.sequences.rows import Rows, pack_events
from gatrec_jax.ops.candidate_sampling import draw_items, inclusion_units
from gatrec_jax.ops.numeric import unit
from gatrec_jax.ops.scores import Pair, dot_product_scores
from gatrec_jax.ops.softmax_loss import Candidates, event_loss
from gatrec_jax.sharding.placement import to_device

Array = jax.Array
Params = dict[str, Any]

# Places whose states are computed at a time while serving.
SERVED_PLACES = 2**14
# A logit of an item that does not count; finite, as it may be the only one drawn.
_NOTHING = -1e9


class Own(NamedTuple):
  """Attributes:
  rows: the latest `length` + 1 events of each user.
  is_known: [I] bool, items with an event, which the softmax includes.
  units: [I] int32, of a draw of them (`inclusion_units`); None where all are included.
  """

  rows: Rows
  is_known: Array
  units: Array | None


@dataclasses.dataclass(frozen=True)
class NextEventRecommender:
  """Scores are cosines of a user's state after their latest event and of trained item vectors.

  Rows of a batch are `Rows`: each holds the latest events of one user or of several short ones,
  who do not see each other. Every event is predicted from those before it, if it is a like.
  Parameters hold {"item": [I, D] float32} beside those of `states`. Settings have `width`,
  `length`, `dropout`, `temperature` and `drawn_items`.
  """

  settings: Any
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  scores_by: ClassVar[str] = "vectors"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = True
  explainable: ClassVar[bool] = False
  score = staticmethod(dot_product_scores)

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> Own:
    events = make_events(train, judged)
    rows = pack_events(events, places=self.settings.length + 1)
    times = np.bincount(train.item, minlength=self.num_items)
    drawn = self.settings.drawn_items
    units = inclusion_units(np.sqrt(times), size=drawn) if drawn else None
    return Own(rows, times > 0, units)

  @staticmethod
  def on_mesh(own: Own) -> Own:
    """All of them."""
    return own

  def num_rows(self, inputs: Inputs) -> int:
    """N, the rows that all users' latest events are packed into."""
    return inputs.own.rows.item.shape[0]

  def loss(self, params: Params, batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    """[] float32, cross-entropy of each wanted event given those before it, mean over all of them.

    `key` is consumed. Args: see `LearnedRecommender`.
    """
    settings, own = self.settings, inputs.own
    rows = jax.tree.map(lambda array: array[batch.rows], own.rows)
    dropout_key, draw_key = jax.random.split(key)
    # A user's last event has no next one; the one before it is the latest that is read.
    states = self.states(
      params, rows.item, rows.user, rows.later - 1, dropout=settings.dropout, key=dropout_key
    )
    states = states.reshape(-1, settings.width)
    wanted = jnp.roll(rows.item, -1, axis=1).ravel()
    counts = (rows.is_wanted & batch.where[:, None]).ravel().astype(jnp.float32)
    items, temperature = unit(params["item"]), settings.temperature
    if not settings.drawn_items:
      every = Candidates(own.is_known, None, None)
      return event_loss(states, items, wanted, every, temperature=temperature, weight=counts)
    states = states / temperature
    of_wanted = jnp.sum(states * items[wanted], axis=1)
    drawn = draw_items(draw_key, own.units, size=settings.drawn_items)
    others = states @ items[drawn.items].T - drawn.log_probability
    others = jnp.where(drawn.items == wanted[:, None], _NOTHING, others)
    # The wanted item is in every sum; without it, scores that are high enough would cost nothing.
    losses = jax.nn.softplus(jax.nn.logsumexp(others, axis=1) - of_wanted)
    return jnp.sum(counts * losses) / jnp.maximum(counts.sum(), 1)

  def states(
    self, params: Params, item: Array, user: Array, place: Array, *, dropout: Any, key: Array
  ) -> Array:
    """[B, T, D] float32 of length 1, of users after each event.

    Args:
      item, user: [B, T] int32, a user's events side by side. place: [B, T] int32, 0 for a user's
        latest event, 1 for the one before; other events than 0 … L − 1 are not read.
      dropout: may be traced. key: of it; consumed.
    """
    raise NotImplementedError

  def serving_state(self, params: Params, inputs: Inputs) -> Pair:
    """([U, D], [I, D]) float32 of length 1; 0 for users without events."""
    rows = inputs.own.rows
    num_rows, places = rows.item.shape
    size = min(num_rows, max(1, SERVED_PLACES // places))
    chunks = -(-num_rows // size)

    def add(users: Array, first: Array) -> tuple[Array, None]:
      # The last chunk begins earlier than its place, so that it is whole.
      first = jnp.minimum(first, num_rows - size)
      item, user, later = (
        jax.lax.dynamic_slice_in_dim(array, first, size)
        for array in (rows.item, rows.user, rows.later)
      )
      states = self.states(params, item, user, later, dropout=0, key=jax.random.key(0))
      user = jnp.where(later == 0, user, self.num_users)
      return users.at[user.ravel()].set(states.reshape(-1, states.shape[-1]), mode="drop"), None

    users = jnp.zeros((self.num_users, self.settings.width))
    users, _ = jax.lax.scan(add, users, size * jnp.arange(chunks))
    return users, unit(params["item"])

  def score_new(
    self, params: Params, inputs: Inputs, serving_state: Pair, users: NewUsers
  ) -> Array:
    """[B, I] float32; the likes are in the order of time, the latest one last.

    A user without likes gets 0.
    """
    length = self.settings.length
    item = np.zeros((len(users.liked), length), np.int32)
    place = np.full(item.shape, -1, np.int32)
    for row, liked in enumerate(users.liked):
      latest = liked[-length:]
      item[row, : len(latest)] = latest
      place[row, : len(latest)] = np.arange(len(latest))[::-1]
    states = _new_states(params, to_device(item), to_device(place), recommender=self)
    return self.score((states, serving_state[1]), jnp.arange(len(item)))

  def grown(
    self, params: Params, inputs: Inputs, *, former: Inputs, num_users: int, num_items: int
  ) -> Params:
    """The parameters, with the mean vector of the known items for new ones, and for those that had
    no event. Args: see `LearnedRecommender`."""
    del num_users, num_items
    known, vectors = former.own.is_known[:, None], params["item"]
    mean = jnp.sum(known * unit(vectors), axis=0) / known.sum()
    more = jnp.broadcast_to(mean, (self.num_items - len(vectors), self.settings.width))
    return params | {"item": jnp.concatenate([jnp.where(known, vectors, mean), more])}


@functools.partial(jax.jit, static_argnames="recommender")
def _new_states(
  params: Params, item: Array, place: Array, *, recommender: NextEventRecommender
) -> Array:
  """[B, D] float32, of users with these events; 0 for those without any. Args: as in `states`."""
  user = jnp.broadcast_to(jnp.arange(len(item))[:, None], item.shape)
  states = recommender.states(params, item, user, place, dropout=0, key=jax.random.key(0))
  return jnp.sum(jnp.where((place == 0)[:, :, None], states, 0.0), axis=1)
