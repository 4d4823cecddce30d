"""Metrics for items and users that training has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.data.split_draws import pair_draws, rank_within, seeded_generator
from gatrec_jax.evaluate.evaluation import Evaluation
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.serve.new_ratings import with_new_ratings
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import Run
from gatrec_jax.sharding.placement import to_device

GIVEN = (1, 3, 5, 10)
"""Numbers of ratings that users new to the model are given."""


def cold_evaluations(run: Run, *, mesh: Mesh | None = None) -> dict[str, Evaluation]:
  """The evaluations beside full ranking of the splits by whole items and whole users.

  Args: mesh: this process's devices of it share the work; None for one device.
  Returns: for `cold_items` {"new_items": …}; for `cold_users` {"given_1": …, …} for `GIVEN`; else
    nothing. Also nothing where the model cannot take ratings without training again, or where
    held-out users have too few.
  """
  split = run.config.data.split_kind
  if split == "cold_items":
    return {"new_items": among_new_items(run, mesh=mesh)}
  if split == "cold_users" and run.recommender.takes_new_ratings:
    return users_given_ratings(run, mesh=mesh)
  return {}


def among_new_items(run: Run, *, mesh: Mesh | None = None) -> Evaluation:
  """Full ranking with the items without known ratings as the only candidates."""
  prepared = run.prepared
  new = np.bincount(prepared.known.item, minlength=prepared.interactions.num_items) == 0
  users = np.arange(prepared.interactions.num_users, dtype=np.int32)
  items, _ = top_items_by(
    _AmongItems(run.recommender.score),
    (run.serving_state, to_device(new)),
    users,
    num_items=run.recommender.num_items,
    seen=prepared.known,
    k=max(run.config.evaluate.ks),
    memory_mb=run.config.evaluate.evaluate_memory_mb,
    mesh=mesh,
  )
  return _evaluated(run, "new_items", items, users, known=prepared.known, truth=prepared.test)


def users_given_ratings(run: Run, *, mesh: Mesh | None = None) -> dict[str, Evaluation]:
  """Metrics of held-out users after the model was given 1, 3, 5, 10 of their ratings.

  The users are those with more test ratings than the largest number given. The given ratings are
  the first of a random order determined by the split's seed; the truth is what follows the largest
  number, so that users and truth are the same for every number. Only fitted models are computed
  again; the text of a user is built from the given ratings.

  Returns: {"given_1": …, …}; empty where no held-out user has enough ratings and a positive after
    them.
  """
  test = run.prepared.test
  draws = pair_draws(test, seeded_generator(run.config.data.split_seed, purpose=2))
  rank = rank_within(test.user, np.lexsort((draws, test.user)))
  enough = np.bincount(test.user, minlength=test.num_users)[test.user] > max(GIVEN)
  truth = test.take(enough & (rank >= max(GIVEN)))
  if not run.prepared.feedback.liked(truth.rating).any():
    return {}
  users = distinct(truth.user)
  found = {}
  for count in GIVEN:
    extended = with_new_ratings(run, test.take(enough & (rank < count)))
    items, _ = top_lists(extended, users, k=max(run.config.evaluate.ks), mesh=mesh)
    name = f"given_{count}"
    found[name] = _evaluated(run, name, items, users, known=extended.prepared.known, truth=truth)
  return found


@dataclasses.dataclass(frozen=True)
class _AmongItems:
  """A score function with −∞ for all other items; its serving state is (the model's, [I] bool)."""

  score: Callable[[Any, jax.Array], jax.Array]

  def __call__(self, serving_state: tuple[Any, jax.Array], users: jax.Array) -> jax.Array:
    of_model, allowed = serving_state
    return jnp.where(allowed, self.score(of_model, users), -jnp.inf)


def _evaluated(
  run: Run,
  name: str,
  items: np.ndarray,
  users: np.ndarray,
  *,
  known: Interactions,
  truth: Interactions,
) -> Evaluation:
  settings = run.config.evaluate
  evaluation = full_ranking(
    items,
    users,
    train=known,
    test=truth,
    feedback=run.prepared.feedback,
    ks=settings.ks,
    num_bootstrap=settings.bootstrap,
  )
  return dataclasses.replace(evaluation, protocol=name)
