"""Scores and lists of a trained run, for its users and for users that it has never seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.serve.filters import Condition, item_mask, pairs_of, unrated
from gatrec_jax.serve.run import Run, indices_of, require_positive


@dataclasses.dataclass(frozen=True)
class Recommendations:
  """Lists of items.

  Attributes:
    users: [m] user ids as strings ("" for a user given by liked items).
    items: [m] lists of item ids, best first; shorter than requested where candidates run out.
    titles: [m] lists of titles, "" where an item has none.
    scores: [m] lists of floats.
  """

  users: Sequence[str]
  items: Sequence[Sequence[str]]
  titles: Sequence[Sequence[str]]
  scores: Sequence[Sequence[float]]


def score(run: Run, users: Sequence[str | int]) -> np.ndarray:
  """[B, I] float32 scores of every item for the given user ids; seen items are not masked.

  Raises:
    InputError: an unknown user id, or a lone string instead of a list of ids.
  """
  users = require_list(users, field="users")
  index = indices_of(users, run.user_index, "user")
  return np.asarray(jax.jit(run.recommender.score)(run.serving_state, index), np.float32)


def recommend(
  run: Run,
  users: Sequence[str | int] | None = None,
  *,
  top_n: int = 10,
  exclude_seen: bool = True,
  only: Sequence[Condition] = (),
  exclude: Sequence[Condition] = (),
  candidates: Mapping[str | int, Sequence[str | int]] | None = None,
  log: Log = CONSOLE,
) -> Recommendations:
  """The best items for the given user ids.

  A user for whom no item is left gets an empty list.

  Args:
    users: None for all, or for those of `candidates`.
    exclude_seen: leave out training and validation items.
    only: conditions that must all hold for an item: `genres=Comedy|Drama`, `year=1990..1999`, the
      path of a file of item ids, or a list of item ids (serve/filters.py: item_mask).
    exclude: conditions none of which may hold.
    candidates: item ids by user id, which alone may be recommended to that user.
    log: where unknown ids in files are reported.
  Raises:
    InputError: an unknown user or item id, a lone string instead of a list, `top_n` below 1, or a
      condition that cannot be read or that no item fulfills.
  """
  require_positive(top_n)
  where = item_mask(run, only=only, exclude=exclude, log=log)
  among = None if candidates is None else pairs_of(run, candidates)
  if users is None and candidates is not None:
    users = list(candidates)
  user_ids = run.prepared.interactions.user_ids
  if users is None:
    index = np.arange(len(user_ids))
  else:
    index = indices_of(require_list(users, field="users"), run.user_index, "user")
  items, scores = top_items_by(
    run.recommender.score,
    run.serving_state,
    index.astype(np.int32),
    num_items=run.recommender.num_items,
    seen=run.prepared.known if exclude_seen else None,
    k=top_n,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
    where=where,
    among=among,
  )
  return _named(run, [user_ids[u] for u in index], items, scores)


def recommend_to_new_user(
  run: Run,
  liked: Sequence[str | int],
  *,
  disliked: Sequence[str | int] = (),
  top_n: int = 10,
  exclude_seen: bool = True,
  only: Sequence[Condition] = (),
  exclude: Sequence[Condition] = (),
  log: Log = CONSOLE,
) -> Recommendations:
  """The best items for a user known only by liked (and disliked) items; nothing is retrained.

  In the GAT the user becomes a node that receives from those items (the highest and the lowest
  training rating as the edge's rating, the latest time), with the text built from them.

  Args: only, exclude, log: as in `recommend`.
  Raises:
    InputError: no liked item, an unknown or repeated item id, a lone string instead of a list of
      ids, `top_n` below 1, a model that serves only the users it was trained on, or as `recommend`
      for conditions.
  """
  require_positive(top_n)
  liked = require_list(liked, field="liked")
  disliked = require_list(disliked, field="disliked")
  good, bad = (indices_of(ids, run.item_index, "item") for ids in (liked, disliked))
  if not len(good):
    raise InputError("give at least one item id", field="liked")
  both = np.concatenate([good, bad])
  if len(np.unique(both)) < len(both):
    raise InputError("an item id is given twice, or as liked and as disliked", field="liked")
  where = item_mask(run, only=only, exclude=exclude, log=log)
  items, scores = top_items_by(
    _given_scores,
    new_user_scores(run, liked=[good], disliked=[bad]),
    np.zeros(1, np.int32),
    num_items=run.recommender.num_items,
    seen=unrated(run, np.zeros(len(both)), both) if exclude_seen else None,
    k=top_n,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
    where=where,
  )
  return _named(run, [""], items, scores)


def new_user_scores(
  run: Run, *, liked: Sequence[np.ndarray], disliked: Sequence[np.ndarray]
) -> jax.Array:
  """[B, I] scores for B users given by item indices; nothing is retrained.

  Raises: InputError: a model that serves only the users it was trained on.
  """
  if not run.recommender.serves_new_users:
    raise InputError(
      f"{run.workdir}: {run.config.model.kind} has no scores for users who were not in training; "
      "use a model that has (best, ease, ials, …)"
    )
  # Padded with users without ratings, so that a few programs serve any number of users.
  nothing = [np.zeros(0, np.int64)] * ((1 << (len(liked) - 1).bit_length()) - len(liked))
  good, bad = [*liked, *nothing], [*disliked, *nothing]
  text = run.texts_of_new_users(good, bad)
  users = NewUsers(good, bad, text, *run.rating_range)
  scores = run.recommender.score_new(run.params, run.inputs, run.serving_state, users)
  return scores[: len(liked)]


def _given_scores(scores: jax.Array, users: jax.Array) -> jax.Array:
  return scores[users]


def top_lists(
  run: Run, users: np.ndarray, *, k: int, exclude_seen: bool = True, mesh: Mesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The best items of the users with those indices, without their known items.

  Args:
    users: [m] int32.
    k: length of the lists.
    exclude_seen: leave out training and validation items.
    mesh: this process's devices of it share the work; None for one device.
  Returns:
    items [m, k] int32 (−1 where candidates run out) and scores [m, k] float32.
  """
  seen = run.prepared.known if exclude_seen else None
  return lists_without(run, users, seen=seen, k=k, mesh=mesh)


def lists_without(
  run: Run, users: np.ndarray, *, seen: Interactions | None, k: int, mesh: Mesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The same without the pairs of `seen`, whatever they are."""
  return top_items_by(
    run.recommender.score,
    run.serving_state,
    users,
    num_items=run.recommender.num_items,
    seen=seen,
    k=k,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
    mesh=mesh,
  )


def _named(
  run: Run, users: Sequence[str], items: np.ndarray, scores: np.ndarray
) -> Recommendations:
  item_ids, fields = run.prepared.interactions.item_ids, run.prepared.item_fields
  rows = [[int(i) for i in row if i >= 0] for row in items]
  return Recommendations(
    users=users,
    items=[[item_ids[i] for i in row] for row in rows],
    titles=[[str(fields[i].get("title", "")) for i in row] for row in rows],
    scores=[[float(s) for s in scores[m, : len(row)]] for m, row in enumerate(rows)],
  )
