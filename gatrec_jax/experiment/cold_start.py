"""How a run does where it knows little: items, and users, that training has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.split_draws import pair_draws, rank_within, seeded_generator
from gatrec_jax.evaluate.evaluation import Evaluation
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.serve.new_ratings import takes_new_ratings, with_new_ratings
from gatrec_jax.serve.run import Run, top_lists

GIVEN = (1, 3, 5, 10)
"""How many ratings users are given who are new to the model."""


def cold_evaluations(run: Run) -> dict[str, Evaluation]:
  """What the splits by whole items and whole users are for, beside full ranking.

  Returns: of `cold_items` {"new_items": …}; of `cold_users` {"given_1": …, …} for `GIVEN`; else
    nothing. Nothing either where the model cannot take ratings without training again, or where
    held-out users have too few.
  """
  split = run.config.data.split
  if split == "cold_items":
    return {"new_items": among_new_items(run)}
  if split == "cold_users" and takes_new_ratings(run.recommender):
    return users_given_ratings(run)
  return {}


def among_new_items(run: Run) -> Evaluation:
  """Full ranking with the items without training ratings as the only candidates."""
  prepared = run.prepared
  new = np.bincount(prepared.train.item, minlength=prepared.interactions.num_items) == 0
  users = np.arange(prepared.interactions.num_users, dtype=np.int32)
  items, _ = top_items_by(
    _AmongItems(run.recommender.score),
    (run.serving_state, jnp.asarray(new)),
    users,
    num_items=run.recommender.num_items,
    seen=prepared.known,
    k=max(run.config.evaluate.ks),
    memory_mb=run.config.evaluate.evaluate_memory_mb,
  )
  return _evaluated(run, "new_items", items, users, known=prepared.known, truth=prepared.test)


def users_given_ratings(run: Run) -> dict[str, Evaluation]:
  """Held-out users are given 1, 3, 5, 10 of their ratings, whatever these are, and ranked anew.

  The users are those with more test ratings than the most that are given; the ratings are the first
  of a random order that hangs on the split's seed, and the truth is what lies behind the last given
  one, so that users and truth are the same for every number. Nothing is trained again but models
  in closed form; the text of a user is built from what she gave. Nothing where no held-out user
  has so many ratings and a positive behind them.
  """
  test = run.prepared.test
  draws = pair_draws(test, seeded_generator(run.config.data.split_seed, purpose=2))
  rank = rank_within(test.user, np.lexsort((draws, test.user)))
  enough = np.bincount(test.user, minlength=test.num_users)[test.user] > max(GIVEN)
  truth = test.take(enough & (rank >= max(GIVEN)))
  if not run.prepared.feedback.liked(truth.rating).any():
    return {}
  users = np.unique(truth.user).astype(np.int32)
  found = {}
  for count in GIVEN:
    told = with_new_ratings(run, test.take(enough & (rank < count)))
    items, _ = top_lists(told, users, k=max(run.config.evaluate.ks))
    name = f"given_{count}"
    found[name] = _evaluated(run, name, items, users, known=told.prepared.known, truth=truth)
  return found


@dataclasses.dataclass(frozen=True)
class _AmongItems:
  """A score function with −∞ for all other items; its tables are (the model's, [I] bool)."""

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
