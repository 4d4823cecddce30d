"""Suite `fusion`: fuses the lists published by Ebrat et al. (2025) with good and with bad rankers.

The candidates are the top 50 of `unified` on ML-100K u1, with score 1/rank. These lists come
without validation ratings, so the weights of one half of the users are fitted on the test ratings
of the other half, and no user's own ratings influence their weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.evaluate.significance import non_inferior, paired_difference
from gatrec_jax.rerank.fusion.fuse import METHODS, Fusion, cross_fit
from gatrec_jax.rerank.fusion.rules import order_of
from gatrec_jax.runs.log import Log
from launch.cli.grid import Table

LLM_ORDERS = ("batch", "bst", "relevancy_local", "relevancy_4o")
PLANTED_NOISE = 1.0
"""Standard deviation of the noise that a simulated ranker adds to the truth (0 or 1)."""
MARGIN = 0.002
WANTED_GAIN = 0.02
K = 10
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Published:
  """The published lists and the ratings that they are judged by.

  Attributes:
    train, test: the parts of the fold.
    users: [m] int32, the user of each row.
    items: [m, 50] int32 candidates, best first, padded with −1.
    base: [m, 50] float64, 1/rank.
    relevant: [m, 50] bool. num_relevant: [m] int64.
    orders: the LLM-re-ranked lists by name, as (users, items).
  """

  train: Interactions
  test: Interactions
  users: np.ndarray
  items: np.ndarray
  base: np.ndarray
  relevant: np.ndarray
  num_relevant: np.ndarray
  orders: Mapping[str, tuple[np.ndarray, np.ndarray]]

  @property
  def valid(self) -> np.ndarray:
    """[m, 50] bool."""
    return self.items >= 0


def open_published(data_dir: str) -> Published:
  """Reads ML-100K u1 and the lists in the folder `published` next to it. Raises InputError."""
  from gatrec_jax.data.archives import given_bases
  from gatrec_jax.data.datasets import load_dataset
  from gatrec_jax.data.splits import split_interactions

  name = "recommendations_ml100k_u1_unified{}.csv"
  folders = [base / "published" for base in given_bases(data_dir)]
  folder = next((f for f in folders if (f / name.format("")).is_file()), None)
  if folder is None:
    raise InputError(
      f"`suite=fusion` needs a folder with ml-100k and the published lists, "
      f"published/{name.format('')} and …_unified_llm_*.csv",
      field="data_dir",
      value=data_dir,
    )
  dataset = load_dataset("ml-100k", data_dir=data_dir, fold="u1")
  rows = dataset.interactions
  split = split_interactions(rows, kind="shipped", test_rows=dataset.test_rows, valid_share=0)
  train, test = rows.take(split.train), rows.take(split.test)

  def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_recommendations(path, user_ids=rows.user_ids, item_ids=rows.item_ids)

  users, items = read(folder / name.format(""))
  liked = test.rating >= 4
  keys = test.user[liked].astype(np.int64) * rows.num_items + test.item[liked]
  valid = items >= 0
  pairs = users[:, None].astype(np.int64) * rows.num_items + items
  return Published(
    train,
    test,
    users,
    items,
    base=np.broadcast_to(1.0 / np.arange(1, items.shape[1] + 1), items.shape),
    relevant=np.isin(pairs, keys) & valid,
    num_relevant=np.bincount(test.user[liked], minlength=rows.num_users)[users],
    orders={order: read(folder / name.format(f"_llm_{order}")) for order in LLM_ORDERS},
  )


def run_fusion_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite on the published lists in --data_dir. Raises InputError if they are not there."""
  return run_fusion(open_published(flags["data_dir"] or ""), log=log)


def run_fusion(
  published: Published,
  *,
  log: Log,
  methods: Sequence[str] = METHODS,
  noise_rankers: int = 10,
  simulated_rankers: int = 3,
  partitions: int = 5,
) -> Json:
  """Fuses every ranker by every method; everything that the table shows, as plain values.

  Args:
    published: lists and truth. log: for lines of progress. methods: of fusion.
    noise_rankers, simulated_rankers: how many of each are drawn.
    partitions: ways of dividing the users into halves for the LLM orders; the first is reported.
  """
  before = ndcg(published, published.users, published.items)
  results: Json = {
    "users": len(before),
    "k": K,
    "margin": MARGIN,
    "planted_noise": PLANTED_NOISE,
    "base": float(before.mean()),
    "alone": {
      name: float(ndcg(published, *order).mean()) for name, order in published.orders.items()
    },
    "methods": {},
  }
  for method in methods:
    log.info(f"fusion: {method}")

    def judge(feature: np.ndarray, seed: int, method: str = method) -> Json:
      return _judge(published, before, feature, method=method, seed=seed)

    noise = [judge(noise_ranker(published, seed), seed) for seed in range(noise_rankers)]
    planted = [judge(simulated_ranker(published, seed), seed) for seed in range(simulated_rankers)]
    orders = {}
    for name, order in published.orders.items():
      feature = order_as_scores(published, *order)
      orders[name] = [judge(feature, seed) for seed in range(partitions)]
    results["methods"][method] = {"noise": noise, "planted": planted, "orders": orders}
  return results | {"claims": claims(results)}


def claims(results: Json) -> dict[str, bool]:
  """Whether three claims about fusion hold for all methods and all rankers."""
  every = results["methods"].values()
  orders = [one for found in every for tried in found["orders"].values() for one in tried]
  return {
    "a random ranker costs less than .002": all(
      one["mean"] > -MARGIN for found in every for one in found["noise"]
    ),
    "a simulated ranker gains .02 or more": all(
      one["mean"] >= WANTED_GAIN for found in every for one in found["planted"]
    ),
    "each published LLM order is non-inferior, margin .002": all(
      one["non_inferior"] for one in orders
    ),
  }


def noise_ranker(published: Published, seed: int) -> np.ndarray:
  """[m, 50] random scores."""
  return np.random.default_rng([seed, 0]).normal(size=published.items.shape)


def simulated_ranker(published: Published, seed: int) -> np.ndarray:
  """[m, 50] scores: the truth plus noise."""
  noise = np.random.default_rng([seed, 1]).normal(size=published.items.shape)
  return published.relevant + PLANTED_NOISE * noise


def order_as_scores(published: Published, users: np.ndarray, items: np.ndarray) -> np.ndarray:
  """[m, 50] 1/rank of each candidate in another list of the same user, 0 if it is absent there."""
  scores = np.zeros(published.items.shape)
  row_of = {int(user): row for row, user in enumerate(users)}
  for row, user in enumerate(published.users.tolist()):
    if user not in row_of:
      continue
    there = items[row_of[user]]
    same = (published.items[row][:, None] == there) & (there >= 0)
    scores[row] = np.where(same.any(axis=1), 1.0 / (same.argmax(axis=1) + 1), 0.0)
  return scores


def ndcg(published: Published, users: np.ndarray, items: np.ndarray) -> np.ndarray:
  """[n] NDCG@10 of every user with a relevant test item, under full ranking."""
  found = full_ranking(
    items, users, train=published.train, test=published.test, ks=(K,), num_bootstrap=0
  )
  return found.per_user[f"ndcg@{K}"].astype(np.float64)


def _judge(
  published: Published, before: np.ndarray, feature: np.ndarray, *, method: str, seed: int
) -> Json:
  """Cross-fits by halves of the users and compares with the candidates' own order."""
  scores, fusions = cross_fit(
    published.base,
    {"llm": feature},
    published.relevant,
    published.num_relevant,
    valid=published.valid,
    method=method,
    k=K,
    seed=seed,
  )
  fused = np.take_along_axis(published.items, order_of(scores), axis=1)
  after = ndcg(published, published.users, fused)
  difference = paired_difference(after, before, seed=seed)
  return {
    "ndcg": float(after.mean()),
    **dataclasses.asdict(difference),
    "non_inferior": non_inferior(difference, MARGIN),
    "rules": [_rule(fusion) for fusion in fusions],
    "weights": [fusion.weights["all"]["llm"] for fusion in fusions],
  }


def _rule(fusion: Fusion) -> str:
  rule = fusion.rules["all"]
  return "0" if rule.keeps_base else f"{rule.method} {rule.weights['llm']:.2g}"


HEADER = ("ranker", "method", "alone", "fused", "fused − base [95 %]", "weight by half", "holds")


def table(results: Json) -> Table:
  """The table of `run_fusion`'s results."""
  rows: list[tuple[str, ...]] = []
  methods = results["methods"]

  for method, found in methods.items():
    noise = found["noise"]
    kept = sum(not weight for one in noise for weight in one["weights"])
    worst = min(noise, key=lambda one: one["mean"])
    rows.append(
      (
        f"random, worst of {len(noise)}",
        method,
        "–",
        f"{worst['ndcg']:.4f}",
        _interval(worst),
        f"0 in {kept} of {2 * len(noise)}",
        _word(worst["mean"] > -results["margin"]),
      )
    )
  for method, found in methods.items():
    worst = min(found["planted"], key=lambda one: one["mean"])
    rows.append(
      (
        f"simulated, worst of {len(found['planted'])}",
        method,
        "–",
        f"{worst['ndcg']:.4f}",
        _interval(worst),
        ", ".join(worst["rules"]),
        _word(worst["mean"] >= WANTED_GAIN),
      )
    )
  for name, alone in results["alone"].items():
    for method, found in methods.items():
      tried = found["orders"][name]
      holds = sum(one["non_inferior"] for one in tried)
      rows.append(
        (
          name,
          method,
          f"{alone:.4f}",
          f"{tried[0]['ndcg']:.4f}",
          _interval(tried[0]),
          ", ".join(tried[0]["rules"]),
          f"{_word(tried[0]['non_inferior'])} ({holds}/{len(tried)})",
        )
      )
  title = f"Fusion over unified's top 50 · ml-100k u1 · NDCG@{results['k']} {results['base']:.4f}"
  notes = [
    f"full ranking, {results['users']} users with a relevant test item; the weights of each half "
    "of the users are fitted on the other half, and stay 0 unless the 95 % interval of the "
    "cross-fitted gain lies above 0",
    "random: holds if it costs less than .002; simulated (truth 0 or 1 plus noise with standard "
    f"deviation {results['planted_noise']:g}): holds if it gains .02",
    "LLM orders (published, 1/rank, 0 if absent): holds if the fused list is non-inferior with "
    "margin .002; in parentheses, the number of divisions into halves for which it holds",
    *(f"{claim}: {_word(holds)}" for claim, holds in results["claims"].items()),
  ]
  return Table(title, HEADER, rows, notes)


def _word(holds: bool) -> str:
  return "yes" if holds else "NO"


def _interval(one: Json) -> str:
  return f"{one['mean']:+.4f} [{one['lo']:+.4f}, {one['hi']:+.4f}]"
