"""The two protocols: full ranking (the default) and the paper's judged-only one."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.evaluate import metrics
from gatrec_jax.evaluate.evaluation import Evaluation, summarize
from gatrec_jax.sharding.placement import to_device

Array = jax.Array

# Lists whose item vectors are gathered at a time for the diversity, so that [B, K, D] stays small.
_DIVERSITY_BATCH = 512


def full_ranking(
  recommended: np.ndarray,
  users: np.ndarray,
  *,
  train: Interactions,
  test: Interactions,
  ks: Sequence[int],
  feedback: Feedback = Feedback(),
  item_vectors: np.ndarray | None = None,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Evaluation:
  """Metrics of full ranking: over every item that the user has not rated in training.

  All users with at least one relevant test item are evaluated; those missing from `users` have an
  empty list and score 0. Ranks that a short list lacks are misses. Novelty, popularity and
  diversity are undefined for an empty list (diversity: below 2 items), so their n is smaller.
  Definitions: `metrics.DEFINITIONS`.

  Args:
    recommended: [m, L] int32 item indices, best first, −1 = none.
    users: [m] int32, the user of each list, each at most once.
    train: the interactions excluded from the lists; popularity and buckets come from it, too.
    test: the truth; same vocabularies as `train`.
    ks: cut-offs K.
    feedback: which test ratings are relevant: the likes.
    item_vectors: [I, D] float, for the diversity; None leaves it out.
    num_bootstrap: resamples of users for the intervals, 0 for none. seed: of the resamples.

  Raises:
    InputError: training pairs among the recommendations, truth that overlaps the training
      history, a user or an item twice, an index outside the vocabulary, nothing relevant.

  >>> train = Interactions.from_indices([0, 1], [0, 1], [5, 5], num_users=2, num_items=4)
  >>> test = Interactions.from_indices([0, 1], [1, 0], [5, 4], num_users=2, num_items=4)
  >>> lists = np.array([[1, 2], [2, 3]])
  >>> found = full_ranking(lists, np.array([0, 1]), train=train, test=test, ks=[2])
  >>> found.summary["ndcg@2"].mean, found.per_user["recall@2"].tolist()
  (0.5, [1.0, 0.0])
  """
  ks = tuple(require_list(ks, field="ks"))
  users = np.asarray(users)
  recommended = np.asarray(recommended, np.int32)
  known = _pair_keys(train)
  _check_lists(recommended, users, train, known)
  _check_truth(train, test, known)
  relevant = feedback.liked(test.rating)
  num_relevant = np.bincount(test.user[relevant], minlength=test.num_users)
  evaluated = np.flatnonzero(num_relevant).astype(np.int32)
  if not len(evaluated):
    raise InputError(
      f"no test rating reaches `positive_threshold={feedback.positive_threshold:g}`: nothing to "
      "evaluate"
    )
  lists = _lists_of(evaluated, recommended, users, width=max(ks))
  hits = _is_member(lists, evaluated, _pair_keys(test, relevant), test.num_items)

  item_counts = np.bincount(train.item, minlength=train.num_items)
  num_training_users = len(distinct(train.user))
  values = _full_metrics(
    hits,
    lists,
    num_relevant[evaluated].astype(np.int32),
    item_counts.astype(np.int32),
    np.int32(num_training_users),
    ks=ks,
  )
  per_user = _in_order(values)
  if item_vectors is not None:
    per_user |= _diversity(item_vectors, lists, ks)
  for k in ks:
    lengths = (lists[:, :k] >= 0).sum(axis=1)
    for name, shortest in (("novelty", 1), ("popularity", 1), ("diversity", 2)):
      if f"{name}@{k}" in per_user:
        per_user[f"{name}@{k}"][lengths < shortest] = np.nan

  tops = [lists[:, :k] for k in ks]
  times = [np.bincount(top[top >= 0], minlength=train.num_items) for top in tops]
  together = {}
  for k, coverage, gini in zip(ks, *_catalog_metrics(np.array(times, np.int32)), strict=True):
    together |= {f"coverage@{k}": float(coverage), f"gini@{k}": float(gini)}
  return summarize(
    "full",
    evaluated,
    per_user,
    together,
    num_bootstrap=num_bootstrap,
    seed=seed,
    training_counts=np.bincount(train.user, minlength=train.num_users)[evaluated],
  )


def judged_ranking(
  recommended: np.ndarray,
  users: np.ndarray,
  *,
  train: Interactions,
  test: Interactions,
  ks: Sequence[int],
  feedback: Feedback = Feedback(),
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Evaluation:
  """Metrics under the paper's protocol: only recommendations that the user rated in the test set.

  From each list the items of rank ≤ K with a test rating (any) make a condensed list, whose
  positions 1, 2, … replace the ranks. Which users count depends on the metric
  (`metrics.JUDGED_DEFINITIONS`; Ebrat et al. 2025), all among those with a test rating. The values
  are far above those of full ranking and not comparable with them.

  Args, raised: as in `full_ranking`.

  >>> train = Interactions.from_indices([0, 1], [0, 1], [5, 5], num_users=2, num_items=4)
  >>> test = Interactions.from_indices([0, 1], [1, 0], [5, 4], num_users=2, num_items=4)
  >>> lists = np.array([[1, 2], [2, 3]])
  >>> found = judged_ranking(lists, np.array([0, 1]), train=train, test=test, ks=[2])
  >>> found.summary["ndcg@2"].mean, found.summary["ndcg@2"].n  # user 1 has no judged item
  (1.0, 1)
  """
  ks = tuple(require_list(ks, field="ks"))
  users = np.asarray(users)
  recommended = np.asarray(recommended, np.int32)
  known = _pair_keys(train)
  _check_lists(recommended, users, train, known)
  _check_truth(train, test, known)
  if not len(test):
    raise InputError("the test part has no rows: nothing to evaluate")
  relevant = feedback.liked(test.rating)
  evaluated = distinct(test.user)
  num_relevant = np.bincount(test.user[relevant], minlength=test.num_users)[evaluated]
  lists = _lists_of(evaluated, recommended, users, width=max(ks))
  judged = _is_member(lists, evaluated, _pair_keys(test), test.num_items)
  hits = _is_member(lists, evaluated, _pair_keys(test, relevant), test.num_items)

  rating_counts = np.bincount(test.item, minlength=test.num_items)
  values, condensed = _judged_metrics(
    judged, hits, lists, num_relevant.astype(np.int32), rating_counts, ks=ks
  )
  together = {}
  for k, kept in zip(ks, condensed, strict=True):
    kept = np.asarray(kept)
    times = np.bincount(kept[kept >= 0], minlength=test.num_items)
    together[f"coverage@{k}"] = float(
      metrics.coverage(times, denominator=int((rating_counts > 0).sum()))
    )
  per_user = _in_order(values)
  return summarize(
    "judged",
    evaluated,
    per_user,
    together,
    num_bootstrap=num_bootstrap,
    seed=seed,
    training_counts=np.bincount(train.user, minlength=train.num_users)[evaluated],
  )


@functools.partial(jax.jit, static_argnames="ks")
def _full_metrics(
  hits: Array,
  lists: Array,
  num_relevant: Array,
  item_counts: Array,
  num_users: Array,
  *,
  ks: tuple[int, ...],
) -> dict[str, Array]:
  """All per-user metrics that need no item vectors: {"ndcg@10": [n] float32}."""
  information = metrics.self_information(item_counts, num_users)
  percentile = metrics.popularity_percentile(item_counts)
  valid = lists >= 0
  values = {}
  for k in ks:
    values |= {
      f"precision@{k}": metrics.precision(hits, k=k),
      f"recall@{k}": metrics.recall(hits, num_relevant, k=k),
      f"ndcg@{k}": metrics.ndcg(hits, num_relevant, k=k),
      f"map@{k}": metrics.average_precision(hits, num_relevant, k=k),
      f"mrr@{k}": metrics.reciprocal_rank(hits, k=k),
      f"hit@{k}": metrics.hit(hits, k=k),
      f"novelty@{k}": metrics.list_mean(information[lists], valid, k=k),
      f"popularity@{k}": metrics.list_mean(percentile[lists], valid, k=k),
    }
  return values


@jax.jit
def _catalog_metrics(times: Array) -> tuple[Array, Array]:
  """[K] coverage and Gini index. Args: times: [K, I], how often each item is recommended."""
  return jax.vmap(metrics.coverage)(times), jax.vmap(metrics.gini)(times)


@functools.partial(jax.jit, static_argnames="ks")
def _judged_metrics(
  judged: Array,
  hits: Array,
  lists: Array,
  num_relevant: Array,
  rating_counts: Array,
  *,
  ks: tuple[int, ...],
) -> tuple[dict[str, Array], list[Array]]:
  """Per-user metrics, NaN where a user does not count, and for each K the lists [n, K] (−1)."""
  values, kept = {}, []
  for k in ks:
    # A stable sort on "not judged" moves the judged items to the front in their order.
    order = jnp.argsort(~judged[:, :k], axis=1, stable=True)
    valid, gains, items = (
      jnp.take_along_axis(table[:, :k], order, axis=1) for table in (judged, hits, lists)
    )
    filled, has_relevant = valid.any(axis=1), num_relevant > 0
    by_name = {
      "precision": (metrics.condensed_precision(gains, valid.sum(axis=1)), filled),
      "recall": (metrics.recall(gains, num_relevant, k=k), has_relevant),
      "ndcg": (metrics.ndcg(gains, num_relevant, k=k), filled & has_relevant),
      "map": (metrics.precision_sum(gains, k=k) / jnp.maximum(num_relevant, 1), gains.any(axis=1)),
      "novelty": (metrics.list_mean(rating_counts[items], valid, k=k), filled),
    }
    for name, (value, counted) in by_name.items():
      values[f"{name}@{k}"] = jnp.where(counted, value, jnp.nan)
    kept.append(jnp.where(valid, items, -1))
  return values, kept


def _in_order(values: dict[str, Array]) -> dict[str, np.ndarray]:
  """Host copies in the order of the definitions (jit returns dictionaries sorted by name)."""
  order = list(metrics.DEFINITIONS)
  by_name = sorted(
    values, key=lambda name: (int(name.rpartition("@")[2]), order.index(name.rpartition("@")[0]))
  )
  return {name: np.array(values[name]) for name in by_name}


@functools.partial(jax.jit, static_argnames="ks")
def _diversity_of_batch(item_vectors: Array, lists: Array, *, ks: tuple[int, ...]) -> list[Array]:
  vectors = item_vectors[lists]
  return [metrics.intra_list_diversity(vectors, lists >= 0, k=k) for k in ks]


def _diversity(
  item_vectors: np.ndarray, lists: np.ndarray, ks: Sequence[int]
) -> dict[str, np.ndarray]:
  item_vectors = to_device(item_vectors)
  batch = min(_DIVERSITY_BATCH, len(lists))
  padded = np.pad(lists, ((0, -len(lists) % batch), (0, 0)), constant_values=-1)
  parts = [
    _diversity_of_batch(item_vectors, padded[first : first + batch], ks=tuple(ks))
    for first in range(0, len(padded), batch)
  ]
  return {
    f"diversity@{k}": np.concatenate([part[i] for part in parts])[: len(lists)]
    for i, k in enumerate(ks)
  }


def _pair_keys(interactions: Interactions, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
  """Sorted int64 keys user · I + item of the chosen rows ([R] bool, or all)."""
  user, item = interactions.user[rows].astype(np.int64), interactions.item[rows]
  return np.sort(user * interactions.num_items + item)


def _is_member(
  lists: np.ndarray, users: np.ndarray, keys: np.ndarray, num_items: int
) -> np.ndarray:
  """[n, L] bool: whether (user of the row, item) is among the sorted keys; False for −1."""
  wanted = users[:, None].astype(np.int64) * num_items + lists
  return _contains(keys, wanted) & (lists >= 0)


def _contains(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Whether each of `wanted` is among the sorted keys; fast where `wanted` is sorted, too."""
  if not len(keys):
    return np.zeros(wanted.shape, bool)
  return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted


def _lists_of(
  evaluated: np.ndarray, recommended: np.ndarray, users: np.ndarray, *, width: int
) -> np.ndarray:
  """[n, width] int32: the evaluated users' lists, truncated or padded with −1."""
  lists = np.full((len(evaluated), width), -1, np.int32)
  _, into, source = np.intersect1d(evaluated, users, assume_unique=True, return_indices=True)
  shared = min(width, recommended.shape[1])
  lists[into, :shared] = recommended[source, :shared]
  return lists


def _check_lists(
  recommended: np.ndarray, users: np.ndarray, train: Interactions, known: np.ndarray
) -> None:
  """Args: known: keys of `train`."""
  if recommended.ndim != 2 or recommended.shape[0] != len(users):
    raise InputError(
      f"{len(users)} users need recommendations of shape [{len(users)}, K], "
      f"not {list(recommended.shape)}"
    )
  if len(users) and (users.min() < 0 or users.max() >= train.num_users):
    raise InputError(f"user indices of recommendations must lie in 0…{train.num_users - 1}")
  if recommended.size and (recommended.min() < -1 or recommended.max() >= train.num_items):
    raise InputError(f"recommended item indices must lie in 0…{train.num_items - 1}, or be -1")
  names, counts = np.unique(users, return_counts=True)
  if (counts > 1).any():
    user = train.user_ids[names[counts > 1][0]]
    raise InputError(f"user {user} has more than one list of recommendations; give one")
  ordered = np.sort(recommended, axis=1)
  repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
  if repeated.any():
    user = train.user_ids[users[np.flatnonzero(repeated)[0]]]
    raise InputError(f"an item appears twice among the recommendations of user {user}")
  if _is_member(ordered, users, known, train.num_items).any():
    rated = _is_member(recommended, users, known, train.num_items)
    row, rank = np.argwhere(rated)[0]
    raise InputError(
      f"{rated.sum()} recommendations are training pairs (first: user {train.user_ids[users[row]]}"
      f", item {train.item_ids[recommended[row, rank]]}); leave out what users rated in training"
    )


def _check_truth(train: Interactions, test: Interactions, known: np.ndarray) -> None:
  """Args: known: keys of `train`."""
  if train.user_ids != test.user_ids or train.item_ids != test.item_ids:
    raise InputError("training and test part must share one vocabulary of users and items")
  keys = _pair_keys(test)
  overlap = keys[_contains(known, keys)]
  if len(overlap):
    user, item = divmod(int(overlap[0]), train.num_items)
    raise InputError(
      f"{len(overlap)} test pairs are also in the training history (first: user "
      f"{test.user_ids[user]}, item {test.item_ids[item]}); "
      "the parts of a split must be disjoint"
    )
