"""The selection metric on the validation part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from gatrec_jax.config.schema import Config
from gatrec_jax.data.interactions import distinct
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.models.base import Recommender
from gatrec_jax.models.gat.channels import known_linear_scores
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.serve.run import make_serving_state

# Epochs are chosen on so many scores, but on so many users at least.
_VALIDATION_SCORES, _LEAST_USERS = 2**27, 500


def make_validator(
  prepared: Prepared,
  inputs: Inputs,
  *,
  recommender: Recommender,
  config: Config,
  mesh: Mesh | None = None,
) -> Callable[[Any], float]:
  """params -> the mean `select_metric` on the validation part, as `make_values` gives it."""
  values = make_values(prepared, inputs, recommender=recommender, config=config, mesh=mesh)

  def measure(params: Any) -> float:
    return float(values(make_serving_state(params, inputs, recommender=recommender)).mean())

  return measure


def make_values(
  prepared: Prepared,
  inputs: Inputs,
  *,
  recommender: Recommender,
  config: Config,
  mesh: Mesh | None = None,
) -> Callable[[Any], np.ndarray]:
  """serving state -> [n] `select_metric` of each validation user.

  Every item without a training rating is ranked. Of many users of a large catalog, a sample counts.

  Args: config: its metric, memory and share of validation ratings. mesh: as in `top_items_by`.
  """
  train, valid = prepared.train, prepared.valid
  liked = prepared.feedback.liked(valid.rating)
  if not liked.any():
    raise InputError(
      "no validation rating reaches "
      f"`positive_threshold={prepared.feedback.positive_threshold:g}`; raise the share or use "
      "`select_on=train_loss`",
      field="valid_share",
      value=config.data.valid_share,
    )
  users = _sample_of_users(distinct(valid.user[liked]), recommender.num_items, config)
  counted = valid.take(np.isin(valid.user, users))
  metric = config.train.select_metric
  k = int(metric.rpartition("@")[2])
  linear = inputs.own.linear if isinstance(recommender, GatRecommender) else None
  if linear is not None:
    linear = known_linear_scores(
      linear, users, num_users=recommender.num_users, num_items=recommender.num_items
    )

  def values(serving_state: Any) -> np.ndarray:
    if linear is not None:
      serving_state = serving_state._replace(linear=linear)
    items, _ = top_items_by(
      recommender.score,
      serving_state,
      users,
      num_items=recommender.num_items,
      seen=train,
      k=k,
      memory_mb=config.evaluate.evaluate_memory_mb,
      mesh=mesh,
    )
    evaluation = full_ranking(
      items, users, train=train, test=counted, feedback=prepared.feedback, ks=(k,), num_bootstrap=0
    )
    return evaluation.per_user[metric]

  return values


def num_sampled(num_users: int, num_items: int) -> int:
  """How many of the users with validation likes are ranked."""
  return min(num_users, max(_LEAST_USERS, _VALIDATION_SCORES // num_items))


def _sample_of_users(users: np.ndarray, num_items: int, config: Config) -> np.ndarray:
  """As many of the users as `num_sampled` says, sorted."""
  most = num_sampled(len(users), num_items)
  if len(users) <= most:
    return users
  return np.sort(np.random.default_rng(config.data.valid_seed).choice(users, most, replace=False))
