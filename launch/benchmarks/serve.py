"""Suite `serve`: the time from a request to its answer, for new and known users of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gatrec_jax import serve
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import SILENT, Log
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import Figure, Json, measure, suite_results

LIKED = (1, 2, 3, 7, 50, 300)


def run_serve(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Measures requests to the run in --workdir, ten items each.

  The first request of a kind compiles its programs; what later ones take longer at first is in
  their column `compile`.

  Raises: InputError: no run is given.
  """
  if not flags["workdir"]:
    raise InputError("give the folder of a trained run", field="workdir")
  run, repeats = serve.load_run(flags["workdir"]), flags["repeats"]
  rates, draws = device_rates("float32"), np.random.default_rng(0)
  ids = run.prepared.interactions
  log.info(f"serve: {flags['workdir']}")
  figures = []
  for count in LIKED:
    liked = _drawn(draws, ids.item_ids, count)
    figures.append(_new_user(run, f"new user, {len(liked)} liked", liked, repeats=repeats))
  user, *others = _drawn(draws, ids.user_ids, 3)
  odd = {"only": [ids.item_ids[::2]], "log": SILENT}
  figures += [
    measure("known user", lambda: serve.recommend(run, [user]).items, repeats=repeats),
    measure("another user", lambda: serve.recommend(run, others[:1]).items, repeats=repeats),
    measure("half the items", lambda: serve.recommend(run, [user], **odd).items, repeats=repeats),
    measure("all users", lambda: serve.recommend(run).items, repeats=repeats),
    measure(
      "similar items",
      lambda: [one.similarity for one in serve.similar_items(run, ids.item_ids[0]).items],
      repeats=repeats,
    ),
  ]
  return suite_results(
    f"requests to {run.config.preset}: {ids.num_users:,} users, {ids.num_items:,} items",
    figures,
    rates=rates,
    repeats=repeats,
  )


def _drawn(draws: np.random.Generator, ids: tuple[str, ...], count: int) -> list[str]:
  """Up to `count` distinct ids."""
  return [ids[one] for one in draws.permutation(len(ids))[:count]]


def _new_user(run: serve.Run, name: str, liked: list[str], *, repeats: int) -> Figure:
  return measure(name, lambda: serve.recommend_to_new_user(run, liked).items, repeats=repeats)
