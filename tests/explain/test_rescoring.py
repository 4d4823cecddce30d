"""Scores without some ratings: a partial rerun equals a run of the whole network."""

import jax
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.explain.rescoring import make_rescorer
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.recommender import GatRecommender

BEST = dict(
  node_features="sum",
  feature_width=6,
  convolution="light",
  layers=2,
  attention="v1",
  combine="mean",
  edge_features=("relevance",),
  score="cosine",
  loss="softmax",
  temperature=0.5,
  relevance="graded",
  linear_weight=0.3,
  linear_l2=3.0,
  linear_rated_l2=5.0,
  unrated_l2=1.0,
  prior_weight=2.0,
  prior_ratings=8,
)
FULL = {name: value for name, value in BEST.items() if name != "layers"} | dict(
  node_features="table",
  layer_widths=(3, 2),
  heads=(2, 1),
  convolution="full",
  combine="last",
  linear_weight=0.0,
  unrated_l2=0.0,
  prior_weight=0.0,
  score="dot",
  edge_features=("rating",),
)


def rows(users=20, items=12):
  rng = np.random.default_rng(0)
  table = rng.integers(1, 6, (users, items)) * (rng.random((users, items)) < 0.4)
  table[:, 4] = 0  # rated by nobody
  table[:, 7] = 0
  table[2, 7] = 5  # rated by user 2 alone
  table[5] = 0
  table[5, 1] = 4  # user 5 has rated one item
  user, item = np.nonzero(table)
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    table[user, item].astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(users))),
    tuple(map(str, range(items))),
  )


def rescorer(train=None, params=None, **fields):
  train = train or rows()
  settings = replaced(ModelConfig(), fields if "layer_widths" in fields else BEST | fields)
  recommender = GatRecommender(settings, train.num_users, train.num_items)
  text = np.random.default_rng(1).normal(size=(train.num_users + train.num_items, 5))
  inputs = make_inputs(
    recommender, train, text=text, later=np.isin(np.arange(train.num_users), [2, 5])
  )
  if params is None:
    params = jax.jit(recommender.init)(inputs, jax.random.key(0))
    # Light layers start with 0, which would make all attention uniform.
    params = jax.tree.map(
      lambda leaf: (
        np.asarray(leaf) + 0.3 * np.cos(np.arange(leaf.size, dtype="f4")).reshape(leaf.shape)
      ),
      params,
    )
  serving_state = jax.jit(recommender.serving_state)(params, inputs)
  ratings = np.bincount(train.user, minlength=train.num_users)
  return make_rescorer(recommender, params, inputs, serving_state, ratings=ratings)


def sets_of(train, user):
  items = train.item[train.user == user].tolist()
  return [[], *([item] for item in items), items[:2], items]


# Each network is compiled once, so settings that do not touch each other share one.
@pytest.mark.parametrize(
  "fields",
  [
    {},
    {"attention": "none", "combine": "last"},
    {"layers": 1, "graph": "liked", "edge_features": ()},
    {"node_features": "ids", "linear_weight": 0.0, "score": "dot", "unrated_l2": 0.0},
  ],
)
def test_a_partial_rerun_equals_a_full_rerun(fields):
  partial = rescorer(**fields)
  assert partial.states is not None
  full = partial.whole
  score = jax.jit(partial.recommender.score)
  for user in (2, 5):
    without = sets_of(rows(), user)
    got, want = partial(user, without), full(user, without)
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
    served = np.asarray(score(partial.serving_state, np.array([user])))
    np.testing.assert_allclose(got[:1], served, atol=1e-5, rtol=1e-5)
    assert np.abs(got[1:] - got[:1]).max() > 1e-3
  if not fields:  # without any rating, popularity is left
    rated = np.asarray(partial.serving_state.rated)
    likes = np.asarray(partial.serving_state.likes)
    np.testing.assert_array_equal(partial(5, [[1]])[0, rated], likes[rated])


@pytest.mark.parametrize("fields", [FULL | {"self_loops": True}, FULL | {"attention": "v1"}])
def test_a_full_rerun_equals_a_graph_that_never_had_the_ratings(fields):
  train = rows()
  whole = rescorer(**fields)
  assert whole.states is None
  gone = [int(item) for item in train.item[train.user == 2][:2]]
  kept = train.take(~((train.user == 2) & np.isin(train.item, gone)))
  other = rescorer(kept, params=whole.params, **fields)
  want = np.asarray(jax.jit(other.recommender.score)(other.serving_state, np.array([2])))
  np.testing.assert_allclose(whole(2, [gone]), want, atol=1e-5, rtol=1e-5)
