"""Users as attention over their events: nothing of the future is seen, and order is learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Batch, NewUsers
from gatrec_jax.train.epochs import start_training, train_epochs

USERS, ITEMS = 6, 8
ORDERED = dict(
  node_features="ids",
  feature_width=8,
  convolution="light",
  layers=1,
  edge_features=("relevance",),
  combine="mean",
  graph="next",
  history="ordered",
  history_length=4,
  history_dropout=0.0,
  score="cosine",
  loss="softmax",
  temperature=0.2,
)


def rows(sequences, ratings=None):
  """Interactions of users with the given items, one after the other."""
  user = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
  item = np.concatenate(sequences)
  time = np.concatenate([10 * np.arange(len(one)) for one in sequences])
  rating = np.full(len(item), 5.0) if ratings is None else np.concatenate(ratings)
  return Interactions.from_indices(
    user, item, rating, time, num_users=len(sequences), num_items=ITEMS
  )


NEXT = dict(history="ordered", graph="next", batch_size="8")
SEQUENCES = [[0, 1, 2, 3], [4, 5, 6, 7], [1, 3, 5], [7, 0, 2, 4, 6], [2, 1], [3]]


def made(sequences=SEQUENCES, ratings=None, **fields):
  settings = replaced(replaced(ModelConfig(), ORDERED), fields)
  recommender = GatRecommender(settings, USERS, ITEMS)
  return recommender, make_inputs(recommender, rows(sequences, ratings))


@functools.cache
def params_of(**fields):
  recommender, inputs = made(**fields)
  params = jax.jit(recommender.init)(inputs, jax.random.key(0))
  # Zeros at the start would hide what an event changes.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
  return tree.unflatten(noisy)


@functools.partial(jax.jit, static_argnames="recommender")
def loss_and_gradient(params, inputs, row, *, recommender):
  batch = Batch(row[None], jnp.array([True]), jnp.int32(0))
  loss = functools.partial(recommender.loss, batch=batch, key=jax.random.key(2), inputs=inputs)
  return jax.value_and_grad(lambda params: loss(params))(params)


def target(inputs, user, place):
  """The row of the target at this place of a user's history."""
  events = inputs.own.ordered.events
  wanted = int(events.start[user]) + place
  return jnp.int32(np.flatnonzero(np.asarray(events.targets) == wanted)[0])


@pytest.mark.parametrize("features", [("position", "gap", "relevance"), ()])
def test_what_comes_later_changes_neither_the_loss_of_a_target_nor_its_gradient(features):
  recommender, inputs = made(history_features=features)
  params = params_of(history_features=features)
  before, slope = loss_and_gradient(params, inputs, target(inputs, 3, 2), recommender=recommender)
  changed = [list(one) for one in SEQUENCES]
  changed[3] = [7, 0, 2, 6, 4]  # the two events after the target change places
  _, inputs = made(changed, history_features=features)
  after, new_slope = loss_and_gradient(
    params, inputs, target(inputs, 3, 2), recommender=recommender
  )
  np.testing.assert_allclose(after, before, rtol=1e-6)
  for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(new_slope), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_planted_future_event_is_not_seen_but_an_earlier_one_is():
  recommender, inputs = made()
  params = params_of()
  loss = functools.partial(loss_and_gradient, params, recommender=recommender)
  before, _ = loss(inputs, target(inputs, 2, 1))
  planted = [list(one) for one in SEQUENCES]
  planted[2] = [1, 3, 5, 0, 7]
  _, later = made(planted)
  np.testing.assert_allclose(loss(later, target(later, 2, 1))[0], before, rtol=1e-6)
  planted[2] = [6, 1, 3, 5]
  _, sooner = made(planted)
  assert abs(loss(sooner, target(sooner, 2, 2))[0] - before) > 1e-3


def test_edges_of_other_users_are_read():
  recommender, inputs = made()
  before, _ = loss_and_gradient(params_of(), inputs, target(inputs, 2, 1), recommender=recommender)
  changed = [list(one) for one in SEQUENCES]
  changed[0] = [3, 1, 0, 2]
  _, inputs = made(changed)
  after, _ = loss_and_gradient(params_of(), inputs, target(inputs, 2, 1), recommender=recommender)
  assert abs(after - before) > 1e-4


def test_relevance_and_gaps_count():
  recommender, inputs = made()
  state = recommender.serving_state(params_of(), inputs)
  ratings = [[5.0] * len(one) for one in SEQUENCES]
  ratings[0][1] = 1.0
  _, disliked = made(ratings=ratings)
  changed = recommender.serving_state(params_of(), disliked)
  users = slice(0, 1)
  assert not np.allclose(state[0][users], changed[0][users], atol=1e-4)


def test_a_user_without_events_has_a_zero_vector_and_one_with_many_the_latest():
  sequences = [*SEQUENCES[:4], [], [3, 2, 1, 0, 4, 5, 6, 7]]
  recommender, inputs = made(sequences)
  users, items = recommender.serving_state(params_of(), inputs)
  assert not users[4].any()
  np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1.0, rtol=1e-5)
  events = inputs.own.ordered.events
  assert int(events.start[6] - events.start[5]) == 8


def test_new_users_get_the_scores_of_known_ones_with_the_same_events():
  recommender, inputs = made(history_features=("position",))
  params = params_of(history_features=("position",))
  state = recommender.serving_state(params, inputs)
  liked = [np.array(SEQUENCES[0]), np.array(SEQUENCES[3]), np.array([], np.int64)]
  none = [np.array([], np.int64)] * 3
  new = NewUsers(liked, none, np.zeros((3, 1)), 5.0, 1.0)
  scores = recommender.score_new(params, inputs, state, new)
  expected = recommender.score(state, jnp.array([0, 3]))
  np.testing.assert_allclose(scores[:2], expected, atol=1e-5)
  assert not scores[2].any()


def test_the_mean_of_the_events_has_no_parameters():
  fields = dict(history_attention="none", history_latest=False, convolution="none", graph="rated")
  recommender, inputs = made(**fields)
  params = recommender.init(inputs, jax.random.key(0))
  assert list(params) == ["items"]
  users, items = recommender.serving_state(params, inputs)
  mean = items[jnp.array(SEQUENCES[2])].mean(axis=0)
  np.testing.assert_allclose(users[2], mean / jnp.linalg.norm(mean), atol=1e-5)


def test_a_larger_catalog_keeps_the_vectors_of_known_items():
  recommender, inputs = made()
  more = Interactions.from_indices(
    [0, 1, 6], [0, 8, 2], [5, 5, 5], [0, 1, 2], num_users=USERS + 1, num_items=ITEMS + 1
  )
  larger = GatRecommender(recommender.settings, USERS + 1, ITEMS + 1)
  grown = larger.grown(
    params_of(), make_inputs(larger, more), former=inputs, num_users=USERS, num_items=ITEMS
  )
  ids, former = grown["items"]["ids"], params_of()["items"]["ids"]
  np.testing.assert_array_equal(ids[:ITEMS], former)
  np.testing.assert_allclose(ids[ITEMS], former.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("query", ["latest", "mean"])
def test_what_depends_on_the_order_alone_is_learned_by_the_latest_event_only(query):
  followed = [[0, 1, 2], [1, 0, 3], [4, 5, 6], [5, 4, 7]]
  data = rows([*followed * 4, *(one[:2] for one in followed)])
  settings = replaced(
    ModelConfig(),
    dict(
      node_features="ids",
      feature_width=8,
      convolution="none",
      history="ordered",
      history_query=query,
      history_latest=query == "latest",
      history_features=(),
      score="cosine",
      loss="softmax",
      temperature=0.2,
    ),
  )
  recommender = GatRecommender(settings, data.num_users, ITEMS)
  inputs = make_inputs(recommender, data)
  train = TrainConfig(batch_size=8, learning_rate=0.05, schedule="constant", weight_decay=0.0)
  state = start_training(inputs, recommender=recommender, config=train)
  state, _ = train_epochs(state, inputs, recommender=recommender, config=train, num_epochs=60)
  users, items = recommender.serving_state(state.params, inputs)
  scores = np.array(users @ items.T)
  scores[data.user, data.item] = -np.inf
  first = scores[-4:].argmax(axis=1)
  if query == "latest":
    assert first.tolist() == [2, 3, 6, 7]
  else:  # both orders have the same vector
    np.testing.assert_allclose(scores[-4, 6:], scores[-3, 6:], atol=1e-5)
    assert first[0] == first[1] and first[2] == first[3]


@pytest.mark.parametrize(
  "fields,message",
  [
    (dict(graph="next"), "graph=next: needs `history=ordered`"),
    (dict(history="ordered"), "needs `graph=next`"),
    (NEXT | dict(batch_size="0"), "batch_size=0: with `history=ordered`"),
    (
      dict(history="ordered", graph="next", batch_size="8", history_heads="3"),
      "must divide the width",
    ),
    (
      dict(history="ordered", graph="next", batch_size="8", history_features="color"),
      "there are only position",
    ),
    (dict(history="ordered", graph="next", batch_size="8", drawn_edges="4"), "reads all edges"),
  ],
)
def test_settings_that_do_not_go_together_are_refused(fields, message):
  with pytest.raises(InputError, match=message.replace("(", r"\(")):
    with_fields(get_preset("best"), fields)
