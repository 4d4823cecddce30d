"""Models of the next event on small data: inputs, parameters, losses, vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.config.sequences import SasRecConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import Batch
from gatrec_jax.models.registry import make_recommender

TINY = SasRecConfig(width=4, blocks=1, heads=2, length=4, dropout=0.0, temperature=0.5)
HISTORIES = ([0, 1, 2, 3], [4, 5], [6, 1, 0], [], [3, 4, 5, 6, 0, 1])


def setup(histories=HISTORIES, settings=TINY, num_items=8, rating=None):
  """The recommender and inputs of histories in the order of time."""
  user = np.repeat(np.arange(len(histories)), [len(one) for one in histories])
  item = np.concatenate(histories).astype(int)
  time = np.arange(len(item))
  rows = Interactions.from_indices(
    user, item, rating, time, num_users=len(histories), num_items=num_items
  )
  recommender = make_recommender(settings, num_users=len(histories), num_items=num_items)
  feedback = Feedback(1.0, 0.0) if rating is None else Feedback()
  return recommender, make_inputs(recommender, rows, feedback=feedback)


def params_of(recommender, inputs):
  """Random ones, since blocks add nothing before training."""
  params = jax.jit(recommender.init)(inputs, jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype(np.float32) / 2, params)


def batch_of(inputs):
  count = inputs.own.rows.item.shape[0]
  return Batch(jnp.arange(count), jnp.ones(count, bool), jnp.int32(0))


def loss_of(recommender, inputs, params, key=0):
  loss = jax.jit(lambda p, i: recommender.loss(p, batch_of(i), jax.random.key(key), inputs=i))
  return float(loss(params, inputs))


def vectors_of(recommender, inputs, params):
  return [np.asarray(one) for one in jax.jit(recommender.serving_state)(params, inputs)]


def normalized(x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)
