"""Ranking metrics: pure functions of hits in rank order that return one value per user.

Each per-user function takes `hits` ([B, L] bool, True where the item at that rank is relevant;
L may be below k, the missing ranks count as misses) and returns [B] float32, 0 where `where`
([B] bool) is False. `k` is a Python int ≥ 1 and static under jit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

Array = jax.Array

DEFINITIONS: Mapping[str, str] = MappingProxyType(
  {
    "precision": "relevant items in the top K ÷ K",
    "recall": "relevant items in the top K ÷ all relevant test items of the user",
    "ndcg": "binary gains, discount 1/log2(rank + 1), ÷ the ideal over min(relevant, K)",
    "map": "sum of the precision at each hit in the top K ÷ min(relevant, K)",
    "mrr": "1 ÷ rank of the first hit in the top K, else 0",
    "hit": "1 where the top K holds a relevant item, else 0",
    "coverage": "share of the catalog that is in any user's top K",
    "novelty": "mean −log2(share of training users who rated the item) over the top K",
    "popularity": "mean popularity percentile of the top K (1 = most rated in training)",
    "gini": "Gini index of how often each catalog item is recommended (0 = evenly)",
    "diversity": "1 − mean pairwise cosine of the item vectors in the top K",
  }
)
"""Definitions of the metrics under full ranking over all items not rated in training."""

JUDGED_DEFINITIONS: Mapping[str, str] = MappingProxyType(
  {
    "precision": "hits ÷ recommendations of rank ≤ K that the user rated in the test set "
    "(users with at least one)",
    "recall": "those hits ÷ relevant test items (users with at least one relevant)",
    "ndcg": "binary gains at positions in the condensed list ÷ the ideal over min(relevant, K) "
    "(users with a non-empty list and a relevant item)",
    "map": "sum of the precision at each hit of the condensed list ÷ relevant items "
    "(users with a hit)",
    "coverage": "distinct items of the condensed lists ÷ items of the test set",
    "novelty": "mean test-set rating count of the condensed list (lower = more novel)",
  }
)
"""Definitions under the judged-only protocol, over items that the user rated in the test set."""


def _masked(values: Array, where: Array | None) -> Array:
  values = values.astype(jnp.float32)
  return values if where is None else jnp.where(where, values, 0.0)


def _ratio(numerator: Array, denominator: Array) -> Array:
  """numerator ÷ denominator, 0 where the denominator is not positive (and no NaN on the way)."""
  positive = denominator > 0
  return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0.0)


def _discounts(length: int) -> Array:
  return 1.0 / jnp.log2(jnp.arange(length, dtype=jnp.float32) + 2.0)


def precision(hits: Array, *, k: int, where: Array | None = None) -> Array:
  """Relevant items among the first k ÷ k, even if the list is shorter than k.

  Args: hits: [B, L] bool in rank order. where: [B] bool.
  Returns: [B] float32.

  >>> hits = jnp.array([[True, False, True]])
  >>> precision(hits, k=2).tolist()
  [0.5]
  """
  return _masked(hits[:, :k].sum(axis=1) / k, where)


def condensed_precision(hits: Array, lengths: Array, *, where: Array | None = None) -> Array:
  """Hits ÷ length of the condensed list (the judged-only protocol of Ebrat et al. 2025).

  Args: hits: [B, L] bool by position in the condensed list. lengths: [B] int32.
  Returns: [B] float32, 0 for an empty list.

  >>> condensed_precision(jnp.array([[True, False]]), jnp.array([2])).tolist()
  [0.5]
  """
  return _masked(_ratio(hits.sum(axis=1), lengths), where)


def recall(hits: Array, num_relevant: Array, *, k: int, where: Array | None = None) -> Array:
  """Relevant items among the first k ÷ all relevant items of the user.

  Args: hits: [B, L] bool in rank order. num_relevant: [B] int32. where: [B] bool.
  Returns: [B] float32, 0 where nothing is relevant.

  >>> hits = jnp.array([[True, False, True]])
  >>> recall(hits, jnp.array([4]), k=3).tolist()
  [0.5]
  """
  return _masked(_ratio(hits[:, :k].sum(axis=1), num_relevant), where)


def ndcg(hits: Array, num_relevant: Array, *, k: int, where: Array | None = None) -> Array:
  """Normalized discounted cumulative gain at k, binary gains (Järvelin and Kekäläinen 2002).

  DCG = Σ hit(rank) / log2(rank + 1); the ideal has its min(num_relevant, k) hits first.

  Args: hits: [B, L] bool in rank order. num_relevant: [B] int32. where: [B] bool.
  Returns: [B] float32, 0 where nothing is relevant.

  >>> hits = jnp.array([[True, False, True]])
  >>> print(ndcg(hits, jnp.array([2]), k=3).round(3))  # (1 + 1/2) ÷ (1 + 1/log2(3))
  [0.92]
  """
  hits = hits[:, :k]
  gain = (hits * _discounts(hits.shape[1])).sum(axis=1)
  ideal = jnp.concatenate([jnp.zeros(1), jnp.cumsum(_discounts(k))])
  return _masked(_ratio(gain, ideal[jnp.clip(num_relevant, 0, k)]), where)


def precision_sum(hits: Array, *, k: int, where: Array | None = None) -> Array:
  """Sum of the precision at each hit among the first k: the unnormalized average precision.

  Args: hits: [B, L] bool in rank order. where: [B] bool.
  Returns: [B] float32.

  >>> hits = jnp.array([[True, False, True]])
  >>> print(precision_sum(hits, k=3).round(3))  # 1 + 2/3
  [1.667]
  """
  hits = hits[:, :k]
  ranks = jnp.arange(1, hits.shape[1] + 1, dtype=jnp.float32)
  return _masked(jnp.where(hits, jnp.cumsum(hits, axis=1) / ranks, 0.0).sum(axis=1), where)


def average_precision(
  hits: Array, num_relevant: Array, *, k: int, where: Array | None = None
) -> Array:
  """Average precision at k: the precision at each hit, summed, ÷ min(num_relevant, k).

  Args: hits: [B, L] bool in rank order. num_relevant: [B] int32. where: [B] bool.
  Returns: [B] float32, 0 where nothing is relevant.

  >>> hits = jnp.array([[True, False, True]])
  >>> average_precision(hits, jnp.array([4]), k=2).tolist()
  [0.5]
  """
  return _masked(_ratio(precision_sum(hits, k=k), jnp.minimum(num_relevant, k)), where)


def reciprocal_rank(hits: Array, *, k: int, where: Array | None = None) -> Array:
  """1 ÷ rank of the first hit among the first k, 0 where there is none.

  Args: hits: [B, L] bool in rank order. where: [B] bool.
  Returns: [B] float32.

  >>> reciprocal_rank(jnp.array([[False, True, True]]), k=3).tolist()
  [0.5]
  """
  hits = hits[:, :k]
  ranks = jnp.arange(1, hits.shape[1] + 1, dtype=jnp.float32)
  return _masked(jnp.max(jnp.where(hits, 1.0 / ranks, 0.0), axis=1, initial=0.0), where)


def hit(hits: Array, *, k: int, where: Array | None = None) -> Array:
  """1 where any of the first k is relevant, else 0.

  Args: hits: [B, L] bool in rank order. where: [B] bool.
  Returns: [B] float32.

  >>> hit(jnp.array([[False, True]]), k=1).tolist(), hit(jnp.array([[False, True]]), k=2).tolist()
  ([0.0], [1.0])
  """
  return _masked(hits[:, :k].any(axis=1), where)


def list_mean(values: Array, valid: Array, *, k: int, where: Array | None = None) -> Array:
  """Mean of a per-item value over the recommended items of rank ≤ k.

  Novelty is this over `self_information`, popularity bias over `popularity_percentile`, and the
  paper's novelty over rating counts of the test set.

  Args: values: [B, L] float. valid: [B, L] bool, False where no item is recommended at that rank.
    where: [B] bool.
  Returns: [B] float32, 0 for an empty list.

  >>> list_mean(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, True, False]]), k=3).tolist()
  [1.5]
  """
  valid = valid[:, :k]
  total = jnp.where(valid, values[:, :k], 0.0).sum(axis=1)
  return _masked(_ratio(total, valid.sum(axis=1)), where)


def intra_list_diversity(
  vectors: Array, valid: Array, *, k: int, where: Array | None = None
) -> Array:
  """1 − mean cosine over all pairs of recommended items of rank ≤ k (Ziegler et al. 2005).

  The pairs are summed as (|Σ v|² − Σ |v|²) / 2 over unit vectors, so no [L, L] table is made.

  Args: vectors: [B, L, D] float item vectors (a zero vector has cosine 0 with all). valid: [B, L]
    bool. where: [B] bool.
  Returns: [B] float32, 0 where the list has fewer than two items.

  >>> vectors = jnp.array([[[1.0, 0.0], [0.0, 2.0]]])
  >>> intra_list_diversity(vectors, jnp.array([[True, True]]), k=2).tolist()
  [1.0]
  """
  valid = valid[:, :k]
  norm = jnp.linalg.norm(vectors[:, :k], axis=-1, keepdims=True)
  unit = jnp.where(valid[..., None], _ratio(vectors[:, :k], norm), 0.0)
  length = valid.sum(axis=1)
  pairs = length * (length - 1) / 2
  cosines = ((unit.sum(axis=1) ** 2).sum(axis=-1) - (unit**2).sum(axis=(1, 2))) / 2
  return _masked(jnp.where(pairs > 0, 1.0 - _ratio(cosines, pairs), 0.0), where)


def self_information(counts: Array, num_users: int | Array) -> Array:
  """−log2 of the share of users who rated each item (Zhou et al. 2010); unrated items count as 1.

  Args: counts: [I] int32 training ratings per item. num_users: users with training ratings.
  Returns: [I] float32, ≥ 0.

  >>> self_information(jnp.array([1, 2, 0]), num_users=4).tolist()
  [2.0, 1.0, 2.0]
  """
  return -jnp.log2(jnp.clip(counts, 1, None) / jnp.maximum(num_users, 1)).astype(jnp.float32)


def popularity_percentile(counts: Array) -> Array:
  """Share of the catalog with fewer ratings than each item, half of the ties included.

  Args: counts: [I] int32 training ratings per item.
  Returns: [I] float32 in (0, 1).

  >>> popularity_percentile(jnp.array([5, 1])).tolist()
  [0.75, 0.25]
  """
  ordered = jnp.sort(counts)
  below = jnp.searchsorted(ordered, counts, side="left")
  upto = jnp.searchsorted(ordered, counts, side="right")
  return ((below + upto) / (2 * counts.shape[0])).astype(jnp.float32)


def coverage(item_counts: Array, *, denominator: int | None = None) -> Array:
  """Share of items that are recommended at least once.

  Args: item_counts: [I] int32, how many users have the item in their top K. denominator: number
    of items that could be recommended (I by default).
  Returns: [] float32.

  >>> coverage(jnp.array([3, 0, 1, 0])).item()
  0.5
  """
  return (item_counts > 0).sum() / jnp.float32(denominator or item_counts.shape[0])


def gini(item_counts: Array) -> Array:
  """Gini index of recommendation counts: 0 all items equally often, → 1 one item takes all.

  G = Σ (2 i − I − 1) x_(i) / (I Σ x), x ascending (Gini 1912 in its order-statistics form).

  Args: item_counts: [I] int32.
  Returns: [] float32, 0 where nothing is recommended.

  >>> gini(jnp.array([2, 2])).item(), gini(jnp.array([0, 4])).item()
  (0.0, 0.5)
  """
  size = item_counts.shape[0]
  ordered = jnp.sort(item_counts).astype(jnp.float32)
  weights = 2.0 * jnp.arange(1, size + 1) - size - 1
  return _ratio((weights * ordered).sum(), size * ordered.sum())
