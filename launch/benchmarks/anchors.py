"""Suite `anchors`: models on the same splits as RecBole's published results.

Results on another random split of the same protocol differ because of the split: the standard
deviation of NDCG@10 between splits of ML-100K is .006. RecBole shuffles the rows of the file with
PyTorch's generator (seed 2020) and holds out the last tenths of each user's rows for validation and
test; for users with fewer than ten rows it still holds out one row for each, if there are enough.
The shuffle is reproduced here without PyTorch: it is a Fisher-Yates shuffle driven by the raw
32-bit draws of the Mersenne Twister that NumPy also has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatrec_jax.config.models import AdmmSlimConfig, EaseConfig, ItemKnnConfig, SlimConfig
from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.protocols import PROTOCOLS, apply_protocol
from gatrec_jax.data.split_draws import Split
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.runs.log import Log
from launch.cli.grid import Table

SEED = 2020  # RecBole's default
METRICS = ("ndcg@10", "recall@10", "mrr@10", "hit@10", "precision@10")
Json = dict[str, Any]

# data set, protocol -> label -> settings and the published NDCG@10 (RecBole's documentation for
# ML-1M; a run of RecBole for ML-100K).
ANCHORS: Mapping[tuple[str, str], Mapping[str, tuple[ModelSettings, float]]] = {
  ("ml-100k", "recbole_b"): {
    "ease l2=200": (EaseConfig(l2=200.0), 0.2805),
    "slim": (SlimConfig(alpha=0.05, l1_ratio=0.01), 0.2820),
    "admm_slim": (AdmmSlimConfig(l1=1.0, l2=500.0), 0.2833),
    "item_knn": (ItemKnnConfig(), 0.2394),
  },
  ("ml-1m", "recbole_a"): {
    "ease l2=1000": (EaseConfig(l2=1000.0), 0.2865),
    "slim": (SlimConfig(alpha=0.05, l1_ratio=0.01, iterations=120), 0.2782),
    "slim, RecBole's defaults": (SlimConfig(alpha=0.2, l1_ratio=0.02), 0.2782),
    "admm_slim": (AdmmSlimConfig(l1=5.0, l2=5000.0, item_power=1.0), 0.2904),
  },
}


def torch_permutation(size: int, seed: int) -> np.ndarray:
  """[size] int64, equal to torch.randperm(size) on a CPU after torch.manual_seed(seed)."""
  draws = np.random.RandomState(seed).randint(0, 2**32, size=size, dtype=np.uint32)
  order = list(range(size))
  for place, draw in enumerate(draws[:-1].tolist()):
    other = place + draw % (size - place)
    order[place], order[other] = order[other], order[place]
  return np.array(order)


def recbole_split(interactions: Interactions, seed: int) -> Split:
  """RecBole's split of each user's rows by [0.8, 0.1, 0.1]; indices in the order of the file."""
  order = torch_permutation(len(interactions), seed)
  order = order[np.argsort(interactions.user[order], kind="stable")]
  count = np.bincount(interactions.user, minlength=interactions.num_users)
  held = count // 10
  tested = np.where(count > 1, np.maximum(held, 1), 0)
  validated = np.where(count > 2, np.maximum(held, 1), 0)
  user = interactions.user[order]
  start = np.concatenate([[0], np.cumsum(count)[:-1]])
  from_end = count[user] - (np.arange(len(order)) - start[user])  # 1 for a user's last row
  is_test = from_end <= tested[user]
  is_valid = ~is_test & (from_end <= (tested + validated)[user])
  parts = (~is_test & ~is_valid, is_valid, is_test)
  return Split(*(np.sort(order[part]) for part in parts))


def run_anchors_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite on the MovieLens data in --data_dir. Raises InputError if they are not there."""
  return run_anchors(flags["data_dir"] or "", log=log)


def run_anchors(data_dir: str, *, log: Log) -> Json:
  """Fits and tests every model of `ANCHORS`. Raises InputError if a data set is missing."""
  rows = []
  for (name, protocol), models in ANCHORS.items():
    dataset = apply_protocol(load_dataset(name, data_dir=data_dir), PROTOCOLS[protocol])
    rows += [
      {"data": name, "protocol": protocol, **row}
      for row in _tested(dataset.interactions, models, log=log)
    ]
  if not rows:
    raise InputError("nothing to measure")
  return {"seed": SEED, "rows": rows}


def _tested(
  interactions: Interactions, models: Mapping[str, tuple[ModelSettings, float]], *, log: Log
) -> list[Json]:
  import jax

  split = recbole_split(interactions, SEED)
  train, test = interactions.take(split.train), interactions.take(split.test)
  known = interactions.take(np.sort(np.append(split.train, split.valid)))
  num_users, num_items = interactions.num_users, interactions.num_items
  users = np.unique(test.user).astype(np.int32)
  rows = []
  for label, (settings, published) in models.items():
    log.info(f"{label}: {len(train)} training rows, {num_users} users, {num_items} items")
    recommender = make_recommender(settings, num_users=num_users, num_items=num_items)
    inputs = make_inputs(recommender, train, feedback=Feedback(3.0, 2.0))
    started = time.monotonic()
    params = jax.block_until_ready(jax.jit(recommender.fit)(inputs, jax.random.key(0)))
    seconds = time.monotonic() - started
    items, _ = top_items_by(
      recommender.score,
      recommender.serving_state(params, inputs),
      users,
      num_items=num_items,
      seen=known,
      k=10,
    )
    found = full_ranking(
      items, users, train=known, test=test, feedback=Feedback(3.0, 2.0), ks=(10,), num_bootstrap=0
    )
    rows.append(
      {
        "model": label,
        "published": published,
        "seconds": seconds,
        **{metric: found.summary[metric].mean for metric in METRICS},
      }
    )
  return rows


def table(results: Json) -> Table:
  """The table of `run_anchors`'s results."""
  header = ["data", "model", "published NDCG@10", *METRICS, "difference", "fit s"]
  rows = [
    [
      f"{row['data']} {row['protocol']}",
      row["model"],
      f"{row['published']:.4f}",
      *(f"{row[metric]:.4f}" for metric in METRICS),
      f"{row['ndcg@10'] - row['published']:+.4f}",
      f"{row['seconds']:.1f}",
    ]
    for row in results["rows"]
  ]
  return Table("RecBole's own splits, seed 2020", header, rows)
