"""BPR-MF and LightGCN: losses by hand, masks, softmax, new users, planted groups."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.graph_baselines import (
  EDGES,
  KEY,
  assert_isolated_nodes_are_harmless,
  assert_learns_planted_groups,
  assert_settings_may_be_traced,
  interactions,
  new_users,
  of_all,
  planted,
  prepared,
  served,
)

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.models import BprMfConfig, LightGcnConfig
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines.bpr_mf import BprMfRecommender
from gatrec_jax.models.baselines.lightgcn import LightGcnRecommender
from gatrec_jax.models.inputs import history_rows
from gatrec_jax.ops.negatives import draw_negatives
from gatrec_jax.ops.softmax_loss import softmax_loss

drawn = jax.jit(draw_negatives, static_argnames="num")
SOFTMAX = replaced(LightGcnConfig(width=4), {"loss": "softmax"})


def test_bpr_mf_by_hand_with_l2_and_masked_rows():
  recommender, inputs, params = prepared(
    BprMfRecommender, BprMfConfig(width=4), planted(8, 6), 8, 6
  )
  where = np.arange(inputs.user.shape[0]) % 3 != 0

  @jax.jit
  @jax.value_and_grad
  def loss(params, where):
    fields = {"l2_weight": 0.3, "negatives_per_positive": 2}
    return of_all(recommender, params, inputs, where=where, **fields)

  got, _ = loss(params, where)
  negative, possible = drawn(KEY, inputs.sampler, inputs.user, num=2)
  assert possible.all()
  user, item = (np.asarray(params[name], np.float64) for name in ("user", "item"))
  want = []
  for p in np.flatnonzero(where):
    u, i, n = user[inputs.user[p]], item[inputs.item[p]], item[np.asarray(negative[p])]
    bpr = np.log1p(np.exp(n @ u - i @ u)).mean()
    want.append(bpr + 0.15 * (u @ u + i @ i + (n**2).sum(axis=1).mean()))
  np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
  none = loss(params, np.zeros_like(where))
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(none))


def test_bpr_mf_has_no_new_users():
  recommender = BprMfRecommender(BprMfConfig(width=4), 2, 3)
  assert not recommender.serves_new_users and not hasattr(recommender, "score_new")


def test_lightgcn_without_layers_is_bpr_mf():
  pairs = planted()
  recommender, inputs, params = prepared(
    LightGcnRecommender, LightGcnConfig(layers=0), pairs, 30, 20
  )
  other, other_inputs, same = prepared(BprMfRecommender, BprMfConfig(), pairs, 30, 20)
  np.testing.assert_array_equal(params["item"], same["item"])
  np.testing.assert_array_equal(
    of_all(recommender, params, inputs, l2_weight=0.1),
    of_all(other, same, other_inputs, l2_weight=0.1),
  )
  assert not recommender.serves_new_users


def test_lightgcn_scores_with_the_mean_and_regularizes_the_start():
  recommender, inputs, params = prepared(LightGcnRecommender, LightGcnConfig(width=4), EDGES, 2, 3)
  adjacency = np.zeros((5, 5))
  for user, item in EDGES:
    adjacency[user, 2 + item] = adjacency[2 + item, user] = 1
  degree = np.maximum(adjacency.sum(axis=1), 1)
  hop = adjacency / np.sqrt(degree[:, None] * degree)
  start = np.concatenate([params["user"], params["item"]])
  mean = (start + hop @ start + hop @ hop @ start) / 3
  user, item = served(recommender, params, inputs)
  np.testing.assert_allclose(np.concatenate([user, item]), mean, rtol=1e-4, atol=1e-6)

  loss = of_all(recommender, params, inputs, l2_weight=0.2) - of_all(recommender, params, inputs)
  negative, _ = drawn(KEY, inputs.sampler, inputs.user, num=1)
  square = (start**2).sum(axis=1)
  parts = square[inputs.user] + square[2 + inputs.item] + square[2 + negative[:, 0]]
  np.testing.assert_allclose(loss, 0.1 * parts.mean(), rtol=1e-3)


def softmax_by_hand(recommender, params, inputs, users, *, temperature, l2_weight):
  user, item = (np.asarray(t, np.float64) for t in served(recommender, params, inputs))
  liked = np.asarray(history_rows(inputs, np.arange(len(user)), num_items=len(item)))
  scores = user @ item.T / temperature
  losses = []
  for u in users:
    for i in np.flatnonzero(liked[u]):
      squares = np.sum(params["user"][u] ** 2) + np.sum(params["item"][i] ** 2)
      normalizer = np.log(np.exp(scores[u]).sum())
      losses.append(normalizer - scores[u, i] + 0.5 * l2_weight * squares)
  return np.mean(losses)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_softmax_by_hand_with_masked_users(kind):
  config = replaced(SOFTMAX, {"temperature": 0.3, "propagation": kind})
  recommender, inputs, params = prepared(LightGcnRecommender, config, planted(8, 6), 8, 6)
  user, _ = served(recommender, params, inputs)
  np.testing.assert_allclose(np.linalg.norm(user, axis=1), 1, rtol=1e-5)
  assert recommender.num_rows(inputs) == 8
  where = np.arange(8) < 5
  got = of_all(recommender, params, inputs, where=where, l2_weight=0.5)
  want = softmax_by_hand(recommender, params, inputs, range(5), temperature=0.3, l2_weight=0.5)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert of_all(recommender, params, inputs, where=np.zeros(8, bool), l2_weight=0.5) == 0


@pytest.mark.parametrize(
  "kind, popularity_weight", [("dense", 0.0), ("sparse", 0.0), ("sparse", 0.3)]
)
def test_softmax_of_graded_relevance_by_hand(kind, popularity_weight):
  pairs = np.array([[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 3]])
  train = dataclasses.replace(interactions(pairs, 3, 4), rating=np.float32([5, 4, 3, 1, 5, 2]))
  fields = {"temperature": 0.5, "relevance": "graded", "user_power": 0.5, "propagation": kind}
  fields["popularity_weight"] = popularity_weight
  recommender = LightGcnRecommender(replaced(SOFTMAX, fields), 3, 4)
  inputs = make_inputs(recommender, train)
  params = recommender.init(inputs, KEY)
  user, item = map(np.asarray, served(recommender, params, inputs))
  if popularity_weight:
    np.testing.assert_allclose(item[:, -1], 0.3 * np.log1p([1, 2, 2, 1]), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(item[:3, :-1], axis=1), 1, rtol=1e-5)
  scores = user @ item.T / 0.5
  log_share = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  relevance = np.zeros((3, 4))
  relevance[tuple(pairs.T)] = [1.0, 0.8, 0.25, 0.05, 1.0, 0.05]
  weight = relevance / np.sqrt(relevance.sum(axis=1, keepdims=True))
  want = -(weight * log_share).sum() / weight.sum()
  np.testing.assert_allclose(of_all(recommender, params, inputs), want, rtol=1e-5)
  # Only positives are edges of the graph.
  np.testing.assert_array_equal(np.asarray(inputs.own.graph.user_scale > 0), [True, True, False])


def test_softmax_in_parts_is_the_same():
  recommender, inputs, params = prepared(LightGcnRecommender, SOFTMAX, planted(), 30, 20)

  def loss(params, block):
    return softmax_loss(
      recommender.serving_state(params, inputs),
      (params["user"], params["item"]),
      inputs.own.targets,
      jnp.arange(30),
      temperature=0.2,
      l2_weight=0.0,
      where=jnp.arange(30) < 27,
      block=block,
    )

  whole, *parts = (
    jax.jit(jax.value_and_grad(functools.partial(loss, block=b)))(params) for b in (10**6, 1, 100)
  )
  for one in parts:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, one)


def test_isolated_nodes_give_no_nan():
  """Under the softmax; under BPR in test_xsimgcl.py."""
  sparse = replaced(SOFTMAX, {"propagation": "sparse"})
  assert_isolated_nodes_are_harmless(LightGcnRecommender, sparse)


def test_settings_may_be_traced():
  assert_settings_may_be_traced(LightGcnRecommender, SOFTMAX, ["temperature", "user_power"])


@pytest.mark.parametrize("loss, kind", [("pairwise", "dense"), ("softmax", "sparse")])
def test_new_users_get_the_propagated_part(loss, kind):
  fields = {"width": 4, "layers": 1, "loss": loss, "propagation": kind}
  config = replaced(LightGcnConfig(), fields)
  recommender, inputs, params = prepared(LightGcnRecommender, config, planted(), 30, 20)
  # With one layer a trained user without a vector of their own is the propagated part exactly.
  params = jax.tree.map(np.array, params)
  params["user"][7] = 0
  serving_state = served(recommender, params, inputs)
  liked = np.asarray(inputs.item[inputs.start[7] : inputs.start[8]])
  got = recommender.score_new(params, inputs, serving_state, new_users(liked, []))
  np.testing.assert_allclose(
    got[0], recommender.score(serving_state, np.array([7]))[0], rtol=1e-4, atol=1e-6
  )
  assert not np.asarray(got[1]).any()


@pytest.mark.parametrize("config", [LightGcnConfig(width=8), replaced(SOFTMAX, {"width": 8})])
def test_learns_planted_groups(config):
  assert_learns_planted_groups(LightGcnRecommender, config)
