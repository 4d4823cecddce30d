"""Suite `eval`: full ranking of all users of ML-1M, with all metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gatrec_jax.data.movielens import load_movielens
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.ops.top_k import top_items
from gatrec_jax.runs.log import Log
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import Counts, Json, measure, suite_results

WIDTH, KS = 64, (5, 10, 20, 50)


def run_eval(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Ranks the top 50 items of every user by random vectors, and computes all metrics."""
  rates, repeats = device_rates("float32"), flags["repeats"]
  log.info("ML-1M: full ranking")
  rows = load_movielens("ml-1m", data_dir=flags["data_dir"] or "").interactions
  order = np.random.default_rng(0).permutation(len(rows))
  cut = int(0.8 * len(rows))
  train, test = rows.take(np.sort(order[:cut])), rows.take(np.sort(order[cut:]))
  users = np.arange(rows.num_users, dtype=np.int32)
  keys = jax.random.split(jax.random.key(0))
  vectors = (
    jax.random.normal(keys[0], (rows.num_users, WIDTH)),
    jax.random.normal(keys[1], (rows.num_items, WIDTH)),
  )

  def rank() -> np.ndarray:
    return top_items(*vectors, users, seen=train, k=max(KS))[0]

  lists = rank()

  def evaluate(lists: np.ndarray) -> float:
    found = full_ranking(lists, users, train=train, test=test, ks=KS, num_bootstrap=0)
    return found.summary["ndcg@10"].mean

  cells = rows.num_users * rows.num_items
  counts = Counts(4 * (cells + WIDTH * (rows.num_users + rows.num_items)), 2.0 * WIDTH * cells)
  figures = [
    measure("all scores and the top 50", rank, repeats=repeats, counts=counts),
    measure(f"metrics at {', '.join(map(str, KS))}", lambda: evaluate(lists), repeats=repeats),
    measure("both", lambda: evaluate(rank()), repeats=repeats, counts=counts),
  ]
  return suite_results(
    f"full ranking of ML-1M: {rows.num_users:,} users, {rows.num_items:,} items, d {WIDTH}",
    figures,
    rates=rates,
    repeats=repeats,
  )
