"""The protocols against slow Python, against published figures, and on bad input."""

import csv
import json
import math

import numpy as np
import pytest
from helpers import evaluation as support

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.evaluation import bootstrap_intervals
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.ops.top_k import top_items

AS_USERS_DO = True
KS = (2, 5)


def naive_judged(lists, test, k):
  """The published evaluator, word by word: {metric: mean}, and the items in condensed lists."""
  values = {name: [] for name in ("precision", "recall", "ndcg", "map", "novelty")}
  covered = set()
  for user in sorted(set(test.user.tolist())):
    rated = {int(i): r for u, i, r in zip(test.user, test.item, test.rating) if u == user}
    relevant = {i for i, r in rated.items() if r >= 4}
    condensed = [i for i in lists[user, :k].tolist() if i in rated]
    covered |= set(condensed)
    hits = [i in relevant for i in condensed]
    if condensed:
      values["precision"].append(sum(hits) / len(condensed))
      values["novelty"].append(np.mean([(test.item == i).sum() for i in condensed]))
    if relevant:
      values["recall"].append(sum(hits) / len(relevant))
      ideal = sum(1 / math.log2(p + 1) for p in range(1, min(len(relevant), k) + 1))
      if condensed:
        gain = sum(1 / math.log2(p + 1) for p, hit in enumerate(hits, 1) if hit)
        values["ndcg"].append(gain / ideal)
    if any(hits):
      total = sum(sum(hits[:p]) / p for p, hit in enumerate(hits, 1) if hit)
      values["map"].append(total / len(relevant))
  return values, len(covered) / len(set(test.item.tolist()))


@pytest.mark.parametrize("seed", range(2))
def test_judged_protocol_equals_the_naive_one(seed):
  train, test = support.random_split(seed)
  lists = support.random_lists(train, seed, length=6)
  result = judged_ranking(lists, np.arange(7), train=train, test=test, ks=KS, num_bootstrap=0)
  for k in KS:
    expected, coverage = naive_judged(lists, test, k)
    for name, values in expected.items():
      found = result.summary[f"{name}@{k}"]
      assert found.n == len(values)
      assert found.mean == pytest.approx(np.mean(values) if values else 0.0, abs=1e-6)
    assert result.summary[f"coverage@{k}"].mean == pytest.approx(coverage)


@pytest.mark.parametrize("seed", range(2))
def test_full_protocol_equals_the_naive_one(seed):
  train, test = support.random_split(seed)
  lists = support.random_lists(train, seed, length=6)
  vectors = np.random.default_rng(seed).normal(size=(12, 3))
  result = full_ranking(
    lists, np.arange(7), train=train, test=test, ks=KS, item_vectors=vectors, num_bootstrap=0
  )
  relevant = {u: set(test.item[(test.user == u) & (test.rating >= 4)].tolist()) for u in range(7)}
  assert result.users.tolist() == [u for u in range(7) if relevant[u]]
  counts = np.bincount(train.item, minlength=12)
  for k in KS:
    tops = {u: [i for i in lists[u, :k].tolist() if i >= 0] for u in result.users}
    recall = [len(set(tops[u]) & relevant[u]) / len(relevant[u]) for u in result.users]
    np.testing.assert_allclose(result.per_user[f"recall@{k}"], recall, rtol=1e-6)
    novelty = [
      np.mean([-np.log2(max(counts[i], 1) / len(set(train.user))) for i in top]) if top else np.nan
      for top in tops.values()
    ]
    np.testing.assert_allclose(result.per_user[f"novelty@{k}"], novelty, rtol=1e-5)
    recommended = {i for top in tops.values() for i in top}
    assert result.summary[f"coverage@{k}"].mean == pytest.approx(len(recommended) / 12)
    assert result.summary[f"diversity@{k}"].n == sum(len(top) > 1 for top in tops.values())
  by_bucket = result.buckets_to_json()
  assert sum(bucket["ndcg@5"]["n"] for bucket in by_bucket.values()) == len(result.users)
  json.dumps([result.to_json(), by_bucket])


def test_a_missing_user_scores_zero_and_short_lists_are_misses():
  train = support.interactions([(0, 0, 5), (1, 0, 5), (2, 1, 3)], 3, 4)
  test = support.interactions([(0, 1, 5), (1, 2, 4), (2, 3, 2)], 3, 4)
  result = full_ranking(np.array([[1]]), np.array([0]), train=train, test=test, ks=(10,))
  assert result.users.tolist() == [0, 1]  # user 2 has nothing relevant
  assert result.per_user["ndcg@10"].tolist() == [1.0, 0.0]
  assert result.per_user["precision@10"].tolist() == pytest.approx([0.1, 0.0])
  assert np.isnan(result.per_user["novelty@10"][1])
  assert result.summary["novelty@10"].n == 1
  assert result.to_json()["recall@10"]["n"] == 2
  assert set(result.buckets) == {"1-4"}


def test_refuses_training_pairs_overlap_repeats_and_bad_indices():
  train = support.interactions([(0, 0, 5), (1, 1, 5)], 2, 3)
  test = support.interactions([(0, 1, 5)], 2, 3)
  arguments = {"train": train, "test": test, "ks": (2,)}
  cases = [
    ("training pairs .first: user u0, item i0", np.array([[1, 0]]), np.array([0]), {}),
    (
      "also in the training history .first: user u0, item i0",
      np.array([[1]]),
      np.array([0]),
      {"test": support.interactions([(0, 0, 5)], 2, 3)},
    ),
    ("twice among the recommendations of user u0", np.array([[1, 1]]), np.array([0]), {}),
    ("more than one list", np.array([[1], [2]]), np.array([0, 0]), {}),
    ("must lie in", np.array([[3]]), np.array([0]), {}),
    ("user indices", np.array([[1]]), np.array([2]), {}),
    ("positive_threshold=9", np.array([[1]]), np.array([0]), {"feedback": Feedback(9.0)}),
    ("shape", np.array([[1]]), np.array([0, 1]), {}),
  ]
  for message, lists, users, changed in cases:
    with pytest.raises(InputError, match=message):
      full_ranking(lists, users, **(arguments | changed))


def test_bootstrap_interval_matches_the_normal_one_and_is_seeded():
  values = np.random.default_rng(0).normal(size=(400, 2))
  values[:200, 1] = np.nan
  lo, hi = bootstrap_intervals(values, num_resamples=2000, seed=3)
  again = bootstrap_intervals(values, num_resamples=2000, seed=3)
  np.testing.assert_array_equal(lo, again[0])
  for column in range(2):
    kept = values[~np.isnan(values[:, column]), column]
    half = 1.96 * kept.std() / math.sqrt(len(kept))
    assert lo[column] == pytest.approx(kept.mean() - half, abs=0.15 * half)
    assert hi[column] == pytest.approx(kept.mean() + half, abs=0.15 * half)
  assert np.isnan(bootstrap_intervals(np.full((3, 1), np.nan), num_resamples=9, seed=0)[0]).all()


def test_published_method_judged_and_full():
  train, test = support.movielens_u1()
  folder = support.SHARED / "published"
  users, lists = read_recommendations(
    folder / "recommendations_ml100k_u1_integrated.csv",
    user_ids=train.user_ids,
    item_ids=train.item_ids,
  )
  arguments = {"train": train, "test": test, "num_bootstrap": 0}
  judged = judged_ranking(lists, users, ks=(5, 10, 20, 30, 40, 50), **arguments)
  columns = {
    "Precision": "precision",
    "Recall": "recall",
    "NDCG": "ndcg",
    "MAP": "map",
    "ItemCoverage": "coverage",
    "Novelty": "novelty",
  }
  with (folder / "metrics_ml100k_u1.csv").open() as file:
    published = [row for row in csv.DictReader(file) if row["Recommender"] == "Our Method"]
  assert len(published) == 6
  for row in published:
    for theirs, name in columns.items():
      found = judged.summary[f"{name}@{row['K']}"].mean
      assert found == pytest.approx(float(row[theirs]), rel=5e-7), (name, row["K"])
  full = full_ranking(lists, users, ks=(10, 20), **arguments)
  assert round(full.summary["ndcg@10"].mean, 4) == 0.4254
  assert full.summary["ndcg@10"].n == 456
  assert round(full.summary["recall@20"].mean, 3) == 0.324


def test_popularity_list_validates_the_evaluator():
  train, test = support.movielens_u1()
  counts = np.bincount(train.item[train.rating >= 4], minlength=train.num_items)
  users = np.arange(train.num_users)
  lists, _ = top_items(
    np.ones((len(users), 1), np.float32),
    counts[:, None].astype(np.float32),
    users,
    seen=train,
    k=20,
  )
  result = full_ranking(lists, users, train=train, test=test, ks=(10, 20), num_bootstrap=0).summary
  found = {name: result[name].mean for name in ("precision@10", "recall@10", "recall@20")}
  assert found == pytest.approx(
    {"precision@10": 0.223, "recall@10": 0.115, "recall@20": 0.184}, abs=5e-4
  )
  assert result["ndcg@10"].mean == pytest.approx(0.260, abs=1e-3)
