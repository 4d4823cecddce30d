"""Suite `als`: iALS beside `implicit`, the same objective on the same pairs with the same threads.

`implicit` weights observed pairs, with target 1, by alpha, and others by 1. Ours weights observed
pairs by 1 and all pairs, with target 0, by α₀. Completing the square of an observed pair gives the
weight 1 + α₀ and the target 1 / (1 + α₀), and the factors of a problem shrink with the root of its
target. So alpha = 1 + 1/α₀ and regularization = l2 · alpha, with l2_power 0, give the same
rankings in the optimum. Both stop short of it: `implicit` makes three steps of conjugate gradients
in each pass, ours `cg_steps` from a better start.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.models import IalsConfig
from gatrec_jax.config.schema import DataConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines.ials import IalsRecommender
from gatrec_jax.ops.scores import dot_product_scores
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.runs.log import Log
from gatrec_jax.stages.data import prepared_in_memory
from launch.benchmarks.measure import peer_process
from launch.benchmarks.peers.process import Process
from launch.cli.grid import Table, amount

ITERATIONS = (4, 8, 15)
SETTINGS = IalsConfig(width=64, unobserved_weight=0.3, l2=10.0, l2_power=0.0)
OURS, PEER = "gatrec_jax", "implicit"
K = 10
Json = dict[str, Any]
Factors = tuple[np.ndarray, np.ndarray]
Fit = tuple[float, float, float | None]  # seconds, seconds of all CPUs, peak MiB


def run_als_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite on ML-1M in --data_dir (random 80 %), or on --dataset with --test_file if given.

  Raises: InputError: the data are not there or cannot be read, or a peer as in `peer_process`.
  """
  data = DataConfig(
    dataset=flags["train_file"] or flags["dataset"] or "ml-1m",
    test_file=flags["test_file"] or "",
    data_dir=flags["data_dir"] or "",
    split="random",
    test_share=0.2,
    valid_share=0.0,
  )
  prepared = prepared_in_memory(data)
  with peer_process(flags, "implicit_als.py") as peer:
    return run_als(
      prepared, peer, repeats=flags["repeats"], log=log, name=data.dataset, iterations=ITERATIONS
    )


def run_als(
  prepared: Prepared,
  peer: Process | None,
  *,
  repeats: int,
  log: Log,
  name: str,
  iterations: Sequence[int],
) -> Json:
  """Fits both for each number of iterations; everything that the table shows, as plain values.

  Args:
    prepared: its likes among the training rows are the observed pairs.
    peer: the process of the package; None measures ours alone.
    repeats: timed fits of each; which of the two goes first alternates.
    name: of the data set. iterations: the numbers to fit with.
  """
  train = prepared.train
  judged = prepared.feedback.judge(train.rating)
  pairs = int(judged.liked.sum())
  rows: list[Json] = []
  with tempfile.TemporaryDirectory() as folder:
    given, written = Path(folder) / "pairs.npz", Path(folder) / "factors.npz"
    about = None
    if peer:
      about = peer.ask("hello")
      np.savez(
        given,
        user=train.user[judged.liked],
        item=train.item[judged.liked],
        sizes=[train.num_users, train.num_items],
      )
      peer.ask("load", path=str(given))
    for count in iterations:
      log.info(f"{count} iterations on {pairs} pairs")
      fitter = _Ours(prepared, count)
      first, *_ = fitter.fit()
      own, theirs = [], []
      for number in range(repeats):
        for ours in (number % 2 == 0, number % 2 == 1):
          if ours:
            own.append(fitter.fit())
          elif peer:
            time.sleep(0.5)  # our threads spin for a while before they sleep
            theirs.append(_peer_fit(peer, count, written))
      rows.append(_row(OURS, count, own, prepared, fitter.factors, first=first))
      if peer:
        with np.load(written) as file:
          rows.append(_row(PEER, count, theirs, prepared, (file["user"], file["item"])))
  return {
    "data": name,
    "pairs": pairs,
    "users": train.num_users,
    "items": train.num_items,
    "device": jax.default_backend(),
    "repeats": repeats,
    "peer": about,
    "rows": rows,
    "equal_time": equal_time(rows),
  }


class _Ours:
  """Our fit, from training rows to factors."""

  def __init__(self, prepared: Prepared, iterations: int) -> None:
    train, settings = prepared.train, dataclasses.replace(SETTINGS, iterations=iterations)
    self._train, self._judged = train, prepared.feedback.judge(train.rating)
    self._recommender = IalsRecommender(settings, train.num_users, train.num_items)
    self._inputs = make_inputs(self._recommender, train, feedback=prepared.feedback)
    self._program = jax.jit(self._recommender.fit)
    self.factors: Factors | None = None

  def fit(self) -> Fit:
    """Fits once. The first call compiles."""
    runs.reset_peak_memory()
    begun, cpu = time.perf_counter(), time.process_time()
    own = self._recommender.own_inputs(self._train, self._judged)
    inputs = dataclasses.replace(self._inputs, own=jax.tree.map(jax.numpy.asarray, own))
    params = self._program(inputs, jax.random.key(0))
    jax.block_until_ready(params)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    self.factors = np.asarray(params["user"]), np.asarray(params["item"])
    return seconds, cpu, float(runs.peak_memory_mb())


def corresponding(settings: IalsConfig) -> dict[str, float]:
  """The peer's `alpha` and `regularization` for our settings, of which l2_power is 0.

  >>> corresponding(IalsConfig(unobserved_weight=0.25, l2=2.0, l2_power=0.0))
  {'alpha': 5.0, 'regularization': 10.0}
  """
  alpha = 1 + 1 / settings.unobserved_weight
  return {"alpha": alpha, "regularization": settings.l2 * alpha}


def equal_time(rows: Sequence[Json]) -> list[Json]:
  """The best NDCG of each model within the time that the other's longest fit takes.

  Returns: per budget `seconds`, `of` (whose longest fit it is), and the value of each model, None
    where none of its fits is so short; nothing without a peer.
  """
  if not any(row["model"] == PEER for row in rows):
    return []
  found = []
  for model in (PEER, OURS):
    budget = max(row["median_seconds"] for row in rows if row["model"] == model)
    values: Json = {"of": model, "seconds": budget}
    for one in (OURS, PEER):
      within = [
        row["ndcg"] for row in rows if row["model"] == one and row["median_seconds"] <= budget
      ]
      values[one] = max(within, default=None)
    found.append(values)
  return found


def _peer_fit(peer: Process, iterations: int, path: Path) -> Fit:
  answer = peer.ask(
    "fit", factors=SETTINGS.width, iterations=iterations, path=str(path), **corresponding(SETTINGS)
  )
  return answer["seconds"], answer["cpu_seconds"], answer["peak_memory_mb"]


def _row(
  model: str,
  iterations: int,
  fits: Sequence[Fit],
  prepared: Prepared,
  factors: Factors,
  *,
  first: float | None = None,
) -> Json:
  """Args: first: seconds of the call that compiled."""
  seconds = [one for one, _, _ in fits]
  median = statistics.median(seconds)
  peaks = [peak for *_, peak in fits if peak is not None]
  return {
    "model": model,
    "iterations": iterations,
    "seconds": seconds,
    "median_seconds": median,
    "median_cpu_seconds": statistics.median(cpu for _, cpu, _ in fits),
    "compile_seconds": None if first is None else max(first - median, 0.0),
    "peak_mb": max(peaks, default=None),
    "ndcg": _ndcg(prepared, factors),
  }


def _ndcg(prepared: Prepared, factors: Factors) -> float:
  """The mean NDCG over users with likes among the test rows."""
  train, test = prepared.train, prepared.interactions.take(prepared.split.test)
  users = np.unique(test.user).astype(np.int32)
  state = tuple(map(jax.numpy.asarray, factors))
  items, _ = top_items_by(
    dot_product_scores, state, users, num_items=train.num_items, seen=train, k=K
  )
  found = full_ranking(
    items, users, train=train, test=test, ks=(K,), feedback=prepared.feedback, num_bootstrap=0
  )
  return found.summary[f"ndcg@{K}"].mean


HEADER = (
  "",
  "iterations",
  "fit, s",
  "CPU, s",
  "compile, s",
  "peak, MiB",
  f"NDCG@{K}",
  "× as fast",
  "in CPU time",
)


def table(results: Json) -> Table:
  """The table of `run_als`'s results."""
  theirs = {row["iterations"]: row for row in results["rows"] if row["model"] == PEER}
  rows = []
  for row in results["rows"]:
    seconds, compiling, peak = row["seconds"], row["compile_seconds"], row["peak_mb"]
    other = theirs.get(row["iterations"]) if row["model"] == OURS else None
    times = ("median_seconds", "median_cpu_seconds")
    ratios = ["–" if other is None else f"{other[key] / row[key]:.2f}" for key in times]
    rows.append(
      (
        row["model"],
        str(row["iterations"]),
        f"{amount(row['median_seconds'])} ({amount(min(seconds))}–{amount(max(seconds))})",
        amount(row["median_cpu_seconds"]),
        "–" if compiling is None else amount(compiling),
        "–" if peak is None else f"{peak:.0f}",
        f"{row['ndcg']:.4f}",
        *ratios,
      )
    )
  said = {name: f"{value:g}" for name, value in corresponding(SETTINGS).items()}
  notes = [
    f"median (minimum–maximum) of {results['repeats']} fits, ours after one that compiles; seed 0; "
    "from pairs in memory to factors",
    f"{SETTINGS.width} factors; unobserved_weight {SETTINGS.unobserved_weight:g}, l2 "
    f"{SETTINGS.l2:g}, l2_power 0 = alpha {said['alpha']}, regularization "
    f"{said['regularization']}",
  ]
  if results["peer"]:
    about = ", ".join(f"{name} {value}" for name, value in results["peer"].items())
    notes.append(f"peer: {about}; its process holds no JAX, ours does")
  for one in results["equal_time"]:
    values = ", ".join(
      f"{name} {'–' if one[name] is None else f'{one[name]:.4f}'}" for name in (OURS, PEER)
    )
    notes.append(
      f"NDCG@{K} in {amount(one['seconds'])} s, the longest fit of {one['of']}: {values}"
    )
  title = (
    f"Implicit ALS · {results['data']}: {results['pairs']} pairs, {results['users']} users, "
    f"{results['items']} items · {results['device']}"
  )
  return Table(title, HEADER, rows, notes)
