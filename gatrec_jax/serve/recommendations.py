"""Scores and lists of a trained run, for its users and for users that it has never seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.serve.run import Run
from gatrec_jax.stages.texts import texts_of_new_users


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
  index = indices_of(users, run.prepared.interactions.user_ids, "user")
  return np.asarray(run.recommender.score(run.serving_state, jnp.asarray(index)), np.float32)


def recommend(
  run: Run, users: Sequence[str | int] | None = None, *, top_n: int = 10, exclude_seen: bool = True
) -> Recommendations:
  """The best items for the given user ids (None = all).

  Args: exclude_seen: leave out training and validation items.
  Raises:
    InputError: an unknown user id, a lone string instead of a list of ids, or `top_n` below 1.
  """
  _require_positive(top_n)
  users = None if users is None else require_list(users, field="users")
  user_ids = run.prepared.interactions.user_ids
  index = np.arange(len(user_ids)) if users is None else indices_of(users, user_ids, "user")
  items, scores = top_lists(run, index.astype(np.int32), k=top_n, exclude_seen=exclude_seen)
  return _named(run, [user_ids[u] for u in index], items, scores)


def recommend_to_new_user(
  run: Run,
  liked: Sequence[str | int],
  *,
  disliked: Sequence[str | int] = (),
  top_n: int = 10,
  exclude_seen: bool = True,
) -> Recommendations:
  """The best items for a user known only by liked (and disliked) items; nothing is retrained.

  In the GAT the user becomes a node that receives from those items (the highest and the lowest
  training rating as the edge's rating, the latest time), with the text built from them.

  Raises:
    InputError: no liked item, an unknown or repeated item id, a lone string instead of a list of
      ids, `top_n` below 1, or a model that serves only the users it was trained on.
  """
  _require_positive(top_n)
  liked = require_list(liked, field="liked")
  disliked = require_list(disliked, field="disliked")
  item_ids = run.prepared.interactions.item_ids
  good, bad = indices_of(liked, item_ids, "item"), indices_of(disliked, item_ids, "item")
  if not len(good):
    raise InputError("give at least one item id", field="liked")
  both = np.concatenate([good, bad])
  if len(np.unique(both)) < len(both):
    raise InputError("an item id is given twice, or as liked and as disliked", field="liked")
  all_scores = new_user_scores(run, liked=[good], disliked=[bad])
  seen = None
  if exclude_seen:
    seen = dataclasses.replace(
      run.prepared.interactions.take(np.zeros(0, np.int64)),
      user=np.zeros(len(both), np.int32),
      item=both.astype(np.int32),
    )
  items, scores = top_items_by(
    _given_scores,
    all_scores,
    np.zeros(1, np.int32),
    num_items=len(item_ids),
    seen=seen,
    k=top_n,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
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
  rating = run.prepared.train.rating
  text = texts_of_new_users(
    run.workdir, run.config.text, run.prepared, run.texts, liked=liked, disliked=disliked
  )
  users = NewUsers(list(liked), list(disliked), text, float(rating.max()), float(rating.min()))
  return run.recommender.score_new(run.params, run.inputs, run.serving_state, users)


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


def indices_of(ids: Sequence[str | int], vocabulary: Sequence[str], kind: str) -> np.ndarray:
  """[n] int64 positions of raw ids in a vocabulary.

  Args: kind: `user` or `item`, for the message.
  Raises: InputError for ids that are not there.
  """
  positions = {raw: i for i, raw in enumerate(vocabulary)}
  missing = [str(i) for i in ids if str(i) not in positions]
  if missing:
    raise InputError(
      f"{kind} {', '.join(missing[:5])}: not in the catalog ({len(vocabulary)} {kind}s, such as "
      f"{', '.join(vocabulary[:3])})"
    )
  return np.array([positions[str(i)] for i in ids], np.int64)


def _require_positive(top_n: int) -> None:
  if top_n < 1:
    raise InputError("must be at least 1", field="top_n", value=top_n)
