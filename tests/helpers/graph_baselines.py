"""Learned baselines of the graph on small data: inputs, parameters, losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.fields import replaced
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import Batch, NewUsers

KEY = jax.random.key(0)
# User 0 likes items 0 and 1, user 1 item 1; nobody likes item 2.
EDGES = np.array([[0, 0], [0, 1], [1, 1]])


def interactions(pairs, num_users, num_items):
  pairs = np.asarray(pairs, np.int32)
  return Interactions(
    pairs[:, 0],
    pairs[:, 1],
    np.ones(len(pairs), np.float32),
    np.zeros(len(pairs), np.int64),
    tuple(map(str, range(num_users))),
    tuple(map(str, range(num_items))),
  )


def prepared(cls, config, pairs, num_users, num_items):
  """A recommender with its inputs and fresh parameters."""
  recommender = cls(config, num_users, num_items)
  train = interactions(pairs, num_users, num_items)
  inputs = make_inputs(recommender, train, feedback=Feedback(1.0, 0.0))
  # Not compiled as a whole for each recommender: the draws of one shape are one program for all.
  return recommender, inputs, recommender.init(inputs, KEY)


def planted(num_users=30, num_items=20, seed=0):
  """Two groups of users, each with its half of the items."""
  draw = np.random.default_rng(seed).random((num_users, num_items))
  own = np.arange(num_users)[:, None] % 2 == np.arange(num_items) % 2
  return np.argwhere(draw < np.where(own, 0.6, 0.03))


def of_all(recommender, params, inputs, *, key=KEY, where=None, **fields):
  """The loss over all rows. Args: fields: settings of the recommender that are replaced."""
  rows = np.arange(recommender.num_rows(inputs))
  where = np.ones(len(rows), bool) if where is None else where
  settings = replaced(recommender.settings, fields)
  recommender = dataclasses.replace(recommender, settings=settings)
  return loss_of(recommender, params, inputs, rows, key, where)


@functools.partial(jax.jit, static_argnames="recommender")
def loss_of(recommender, params, inputs, rows, key, where):
  batch = Batch(rows, where, jnp.int32(0))
  return recommender.loss(params, batch, key, inputs=inputs)


@functools.partial(jax.jit, static_argnums=0)
def served(recommender, params, inputs):
  """The vectors of users and items."""
  return recommender.serving_state(params, inputs)


def new_users(*liked):
  none = [np.zeros(0, np.int64)] * len(liked)
  return NewUsers([np.asarray(one, np.int64) for one in liked], none, np.zeros((1, 1)), 5.0, 1.0)


def assert_isolated_nodes_are_harmless(cls, config):
  """Neither loss, gradient nor vectors of nodes without an edge are NaN."""
  recommender, inputs, params = prepared(cls, config, EDGES, 3, 4)
  params = jax.tree.map(np.array, params)
  params["user"][-1] = params["item"][-1] = 0
  value, gradient = jax.jit(
    jax.value_and_grad(lambda p: of_all(recommender, p, inputs, l2_weight=0.1))
  )(params)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
  user, item = served(recommender, params, inputs)
  assert not np.asarray(user[2]).any() and not np.asarray(item[3]).any()
  assert np.isfinite(user).all() and np.isfinite(item).all()


def assert_settings_may_be_traced(cls, config, fields):
  """A vmap over settings equals single runs, and each of them changes the loss."""
  _, inputs, params = prepared(cls, config, planted(8, 6), 8, 6)

  def loss(values, l2_weight):
    changed = dict(zip(fields, values, strict=True)) | {"l2_weight": l2_weight}
    recommender = cls(replaced(config, changed), 8, 6)
    rows = jnp.arange(recommender.num_rows(inputs))
    batch = Batch(rows, rows >= 0, jnp.int32(0))
    return recommender.loss(params, batch, KEY, inputs=inputs)

  first = np.array([0.2, 0.3, 0.4])[: len(fields)]
  each = np.stack([first, *(first + 0.1 * np.eye(len(fields)))])
  weights = np.full(len(each), 0.1)
  # The last row changes the weight of L2 alone.
  many = jax.jit(jax.vmap(loss))(np.vstack([each, first]), np.append(weights, 0.3))
  single = cls(replaced(config, dict(zip(fields, first.tolist(), strict=True))), 8, 6)
  np.testing.assert_allclose(many[0], of_all(single, params, inputs, l2_weight=0.1), rtol=1e-5)
  assert (abs(many[1:] - many[0]) > 1e-4).all()


def assert_learns_planted_groups(cls, config):
  """Gradient steps with momentum lower the loss and find the groups."""
  recommender, inputs, params = prepared(cls, config, planted(), 30, 20)

  @jax.jit
  def step(params, speed, key):
    loss, gradient = jax.value_and_grad(lambda p: of_all(recommender, p, inputs, key=key))(params)
    speed = jax.tree.map(lambda s, g: 0.9 * s + g, speed, gradient)
    return jax.tree.map(lambda p, s: p - 0.5 * s, params, speed), speed, loss

  speed, losses = jax.tree.map(jnp.zeros_like, params), []
  for key in jax.random.split(KEY, 60):
    params, speed, loss = step(params, speed, key)
    losses.append(float(loss))
  assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
  user, item = served(recommender, params, inputs)
  scores = np.asarray(user) @ np.asarray(item).T
  own = np.arange(30)[:, None] % 2 == np.arange(20) % 2
  assert scores[own].mean() > scores[~own].mean() + scores.std()
