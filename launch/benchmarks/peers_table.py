"""Suite `peers`: EASE and iALS on binary and graded relevance, and a sum of two of them, on u1–u5.

Every model is fitted to all training ratings of a fold with the settings of its preset, and ranks
all items that a user has not rated in training. Users are the unit of the comparison: the folds of
a user are averaged first, as in launch.compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.evaluate import Comparison, UserValues, compare_systems, full_ranking
from gatrec_jax.models import FittedModel, fit
from gatrec_jax.ops import sum_of_standardized, top_items_by
from gatrec_jax.runs.log import Log
from launch.cli.grid import Table

FOLDS = ("u1", "u2", "u3", "u4", "u5")
METRICS = ("ndcg@10", "recall@10")
REFERENCE, SEED = "ease", 0
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
  "ease": ("ease", {}),
  "ease graded": ("ease", {"relevance": "graded"}),
  "ials": ("ials", {}),
  "ials graded": ("ials", {"relevance": "graded"}),
  "ease_rated": ("ease_rated", {"relevance": "graded"}),
}
SUMMED = ("ials graded", "ease_rated")
Json = dict[str, Any]


def run_peers_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite on ML-100K in --data_dir. Raises InputError if it is not there."""
  runs: dict[str, list[UserValues]] = {}
  for fold in FOLDS:
    dataset = load_dataset("ml-100k", data_dir=flags["data_dir"] or "", fold=fold)
    train = dataset.interactions.take(~dataset.test_rows)
    test = dataset.interactions.take(dataset.test_rows)
    users = np.unique(test.user).astype(np.int32)
    models = {}
    for label, (name, settings) in MODELS.items():
      log.info(f"{fold}: {label}")
      models[label] = fit(name, train, seed=SEED, **settings)
    lists = {label: model.top_items(users)[0] for label, model in models.items()}
    lists[" + ".join(SUMMED)] = summed_lists([models[label] for label in SUMMED], train, users)
    for label, items in lists.items():
      found = full_ranking(items, users, train=train, test=test, ks=(10,), num_bootstrap=0)
      ids = tuple(test.user_ids[user] for user in found.users)
      values = {metric: np.asarray(found.per_user[metric], np.float64) for metric in METRICS}
      runs.setdefault(label, []).append(
        UserValues(label, fold, SEED, "full", ids, found.training_counts, values, fold)
      )
  compared = compare_systems(runs, reference=REFERENCE, metrics=METRICS)
  by_fold = {
    label: [float(run.values["ndcg@10"].mean()) for run in own] for label, own in runs.items()
  }
  return {"seed": SEED, "rows": [_row(label, compared, by_fold) for label in runs]}


def summed_lists(
  models: list[FittedModel], train: Interactions, users: np.ndarray, *, k: int = 10
) -> np.ndarray:
  """[B, k] int32, the best unseen items by the sum of the models' standardized scores.

  Scores are standardized user by user over the items with training ratings.
  """
  score = partial(_summed, [model.recommender.score for model in models])
  rated = np.bincount(train.item, minlength=train.num_items) > 0
  state = [model.serving_state for model in models], rated
  return top_items_by(score, state, users, num_items=train.num_items, seen=train, k=k)[0]


def _summed(scores: list[Callable[..., Any]], state: tuple[Any, Any], users: jax.Array) -> Any:
  serving_states, rated = state
  pairs = zip(scores, serving_states, strict=True)
  return sum_of_standardized([score(one, users) for score, one in pairs], where=rated)


def _row(label: str, compared: Comparison, by_fold: Mapping[str, list[float]]) -> Json:
  row: Json = {
    "model": label,
    "folds": dict(zip(FOLDS, by_fold[label], strict=True)),
    **{metric: compared.estimates[label][metric].mean for metric in METRICS},
  }
  if label != REFERENCE:
    against = compared.against[label]["ndcg@10"]
    row["difference"] = against.difference.says()
    row["holm_p_value"] = against.holm_p_value
  return row


def table(results: Json) -> Table:
  """The table of `run_peers_suite`'s results."""
  header = ["model", *FOLDS, "NDCG@10", "Recall@10", f"NDCG@10 − {REFERENCE} [95 %]", "Holm p"]
  rows = [
    [
      row["model"],
      *(f"{row['folds'][fold]:.4f}" for fold in FOLDS),
      f"{row['ndcg@10']:.4f}",
      f"{row['recall@10']:.4f}",
      row.get("difference", ""),
      f"{row['holm_p_value']:.4f}" if "holm_p_value" in row else "",
    ]
    for row in results["rows"]
  ]
  return Table(
    f"ML-100K, full ranking, positives ≥ 4, fitted to all training ratings, seed {results['seed']}",
    header,
    rows,
  )
