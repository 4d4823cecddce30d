"""XSimGCL: its contrast by hand, what is left without it, new users, planted groups."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.graph_baselines import (
  KEY,
  assert_isolated_nodes_are_harmless,
  assert_learns_planted_groups,
  assert_settings_may_be_traced,
  loss_of,
  new_users,
  of_all,
  planted,
  prepared,
  served,
)

from gatrec_jax.config.models import XSimGclConfig
from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.errors import InputError
from gatrec_jax.models.baselines import pairwise
from gatrec_jax.models.baselines.xsimgcl import XSimGclRecommender, contrast_loss, distinct
from gatrec_jax.models.inputs import Batch
from gatrec_jax.ops.propagation import layer_vectors


def test_xsimgcl_without_noise_and_contrast_is_lightgcn_without_layer_0():
  config = XSimGclConfig(width=4, noise=0.0, contrast_weight=0.0)
  recommender, inputs, params = prepared(XSimGclRecommender, config, planted(), 30, 20)
  start = (params["user"], params["item"])
  one, two = layer_vectors(inputs.own, start, layers=2)[1:]
  mean = tuple((a + b) / 2 for a, b in zip(one, two, strict=True))
  rows = np.arange(recommender.num_rows(inputs))
  want = jax.jit(pairwise.pairwise_loss, static_argnames="objective")(
    mean,
    start,
    inputs,
    Batch(rows, np.ones(len(rows), bool), np.int32(0)),
    jax.random.split(KEY, 4)[1],
    objective=PairwiseObjective(cosine_weight=0.0, l2_weight=0.1),
  )
  np.testing.assert_allclose(of_all(recommender, params, inputs, l2_weight=0.1), want, rtol=1e-5)
  np.testing.assert_allclose(served(recommender, params, inputs)[1], mean[1], rtol=1e-5)


def test_contrast_by_hand_of_three_nodes_and_masked():
  left = jnp.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  right = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, -1.0]])
  half = 1 / np.sqrt(2)
  scores = np.array([[1, 1, 0], [0, 0, -1], [half, half, -half]]) / 0.5
  want = np.log(np.exp(scores).sum(axis=1)) - np.diag(scores)
  for where in ([True, True, True], [True, True, False], [False, False, False]):
    part = np.flatnonzero(where)
    sub = scores[np.ix_(part, part)]
    want = (np.log(np.exp(sub).sum(axis=1)) - np.diag(sub)).mean() if len(part) else 0.0
    value, gradient = jax.value_and_grad(
      lambda left: contrast_loss(left, right, temperature=0.5, where=jnp.array(where))
    )(left)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~np.array(where)].any()


def test_distinct_takes_each_id_once_and_only_counted_ones():
  ids, where = jnp.array([3, 3, 1, 0, 1, 4]), jnp.array([1, 1, 1, 1, 1, 0], bool)
  chosen, present = distinct(KEY, ids, where, num=5, most=10)
  assert sorted(np.asarray(chosen[present])) == [0, 1, 3]
  few = [distinct(jax.random.key(k), ids, where, num=5, most=2) for k in range(20)]
  assert all(p.all() and len(set(np.asarray(c))) == 2 for c, p in few)
  assert set(np.concatenate([c for c, _ in few])) == {0, 1, 3}


def test_rows_that_occur_twice_are_contrasted_once():
  config = XSimGclConfig(width=4, noise=0.0, contrast_weight=1.0)
  recommender, inputs, params = prepared(XSimGclRecommender, config, planted(8, 6), 8, 6)
  plain = dataclasses.replace(
    recommender, settings=dataclasses.replace(config, contrast_weight=0.0)
  )

  rows = np.tile(np.arange(5), 2)

  def contrast(where):
    losses = [loss_of(m, params, inputs, rows, KEY, where) for m in (recommender, plain)]
    return losses[0] - losses[1]

  once = contrast(np.arange(10) < 5)
  np.testing.assert_allclose(contrast(np.ones(10, bool)), once, rtol=1e-4)
  assert once > 0.1


def test_xsimgcl_refuses_a_layer_that_is_not_there():
  with pytest.raises(InputError, match="contrast_layer=3: must be at most layers=2"):
    XSimGclRecommender(XSimGclConfig(contrast_layer=3), 2, 3)


def test_new_users_of_xsimgcl_by_hand():
  recommender, inputs, params = prepared(
    XSimGclRecommender, XSimGclConfig(width=4), planted(), 30, 20
  )
  serving_state = served(recommender, params, inputs)
  start = (params["user"], params["item"])
  layers = layer_vectors(inputs.own, start, layers=2)
  degree = np.bincount(inputs.item, minlength=20)
  vector = sum(
    sum(np.asarray(item[i]) / np.sqrt(2 * degree[i]) for i in (3, 8)) for _, item in layers[:2]
  )
  got = recommender.score_new(params, inputs, serving_state, new_users([3, 8]))
  np.testing.assert_allclose(got[0], serving_state[1] @ (vector / 2), rtol=1e-3, atol=1e-6)


def test_isolated_nodes_give_no_nan():
  assert_isolated_nodes_are_harmless(XSimGclRecommender, XSimGclConfig(width=4))


def test_settings_may_be_traced():
  fields = ["contrast_temperature", "contrast_weight", "noise"]
  assert_settings_may_be_traced(XSimGclRecommender, XSimGclConfig(width=4), fields)


def test_learns_planted_groups():
  assert_learns_planted_groups(XSimGclRecommender, XSimGclConfig(width=8))
