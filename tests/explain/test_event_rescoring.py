"""Scores without events: those of a user who never had them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.explain.event_rescoring import make_event_rescorer
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.recommender import GatRecommender

USERS, ITEMS, USER = 5, 9, 1
SEQUENCES = [[0, 1, 2, 3, 4], [8, 3, 5, 0, 7], [1, 3, 5], [7, 0, 2, 8, 6], [2, 1]]


def rows(without=()):
  triples = [
    (user, item, 10 * place)
    for user, items in enumerate(SEQUENCES)
    for place, item in enumerate(items)
    if user != USER or item not in without
  ]
  user, item, time = np.array(triples).T
  rating = 3.0 + (user + item) % 3
  return Interactions.from_indices(user, item, rating, time, num_users=USERS, num_items=ITEMS)


@functools.cache
def made(linear_weight=0.3):
  settings = replaced(
    ModelConfig(),
    dict(
      node_features="ids",
      feature_width=6,
      convolution="none",
      history="ordered",
      history_length=3,
      loss="softmax",
      popularity_weight=0.0,
      linear_weight=linear_weight,
    ),
  )
  recommender = GatRecommender(settings, USERS, ITEMS)
  inputs = make_inputs(recommender, rows())
  params = jax.jit(recommender.init)(inputs, jax.random.key(0))
  params = jax.tree.map(
    lambda leaf: leaf + 0.1 * np.cos(np.arange(leaf.size).reshape(leaf.shape)), params
  )
  state = recommender.serving_state(params, inputs)
  ratings = np.array([len(one) for one in SEQUENCES])
  return make_event_rescorer(recommender, params, inputs, state, ratings=ratings)


@pytest.mark.parametrize("without", [(), (7,), (0, 7), (8,), (3, 5, 0)])
@pytest.mark.parametrize("linear_weight", [0.0, 0.3])
def test_scores_are_those_of_a_user_without_the_events(without, linear_weight):
  rescorer = made(linear_weight)
  found = rescorer(USER, [without])[0]
  recommender = rescorer.recommender
  own = make_inputs(recommender, rows(without)).own
  # The linear weights and who rated what stay as they were.
  if linear_weight:
    own = own._replace(linear=(rescorer.inputs.own.linear[0], own.linear[1]))
  inputs = dataclasses.replace(rescorer.inputs, own=own._replace(rated=rescorer.inputs.own.rated))
  # Times are in units of the typical gap of all events.
  assert (np.diff(np.asarray(rescorer.events.time)[5:10]) == 1).all()
  state = recommender.serving_state(rescorer.params, inputs)
  expected = np.asarray(recommender.score(state, np.array([USER])))[0]
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_fall_is_the_difference_to_the_score_without_the_event():
  rescorer = made()
  falls = rescorer.first_order(USER, SEQUENCES[USER], [1, 6])
  every, without = rescorer(USER, [(), (0,)])
  assert falls.shape == (5, 2)
  np.testing.assert_allclose(falls[3], every[[1, 6]] - without[[1, 6]], atol=1e-6)
  assert rescorer.whole is rescorer
