"""Whether the ratings that reasons cite also matter to a model that is trained without them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.experiment.train_and_evaluate import open_run, train
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.serve.run import Run
from gatrec_jax.stages.data import OUTPUTS, load_prepared, write_prepared

Pairs = Sequence[tuple[int, int]]
"""Users and recommended items, by index; each user once."""


def retrained_falls(
  run: Run, pairs: Pairs, removed: Mapping[str, Sequence[Sequence[int]]], *, log: Log
) -> dict[str, dict[str, float]]:
  """Retrains the run's model without some ratings of all pairs' users, once per way to choose them.

  The removed ratings are a small share of all, so one training serves all pairs. Seed and settings
  are those of the run, so nothing else differs. Texts of users are rebuilt.

  Args:
    run: that is retrained.
    pairs: m users and recommended items.
    removed: by name, m sets of items that the user has rated in training.
    log: where messages and progress go.
  Returns: by name, `score` and `rank`: the mean drops of the item's score and of its rank among the
    items that the user had not rated, compared with the run.
  """
  before = _standings(run, run, pairs)
  falls = {}
  for name, sets in removed.items():
    log.info(
      f"audit: retraining without {sum(map(len, sets))} {name} ratings of {len(pairs)} users"
    )
    after = _standings(_trained_without(run, pairs, sets, name=name, log=log), run, pairs)
    score, rank = (
      np.mean([a[k] - b[k] for a, b in zip(after, before, strict=True)]) for k in (0, 1)
    )
    falls[name] = {"score": float(-score), "rank": float(rank)}
  return falls


def _trained_without(
  run: Run, pairs: Pairs, sets: Sequence[Sequence[int]], *, name: str, log: Log
) -> Run:
  folder = run.workdir / "retrained" / name
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  config = with_fields(run.config, {"user_profiles": ""})
  prepared = _without(run.prepared, pairs, sets)
  runs.stage(
    folder / "data",
    name="data",
    inputs=name,
    outputs=OUTPUTS,
    log=SILENT,
    make=lambda: write_prepared(folder / "data", prepared),
  )
  open_run(config, folder)
  trained = train(config, folder, load_prepared(folder), log=log)[0]
  shutil.rmtree(folder)
  return trained


def _without(prepared: Prepared, pairs: Pairs, sets: Sequence[Sequence[int]]) -> Prepared:
  gone = {(user, int(item)) for (user, _), items in zip(pairs, sets, strict=True) for item in items}
  rows = prepared.interactions

  def left(part: np.ndarray) -> np.ndarray:
    ends = zip(rows.user[part].tolist(), rows.item[part].tolist(), strict=True)
    return part[np.array([pair not in gone for pair in ends], bool)]

  split = prepared.split
  split = dataclasses.replace(split, train=left(split.train), valid=left(split.valid))
  return dataclasses.replace(prepared, split=split, facts={})


def _standings(run: Run, of: Run, pairs: Pairs) -> list[tuple[float, int]]:
  """Score and rank of each pair by `run`, among the items that users have not rated in `of`."""
  known, found = of.prepared.known, []
  for user, item in pairs:
    scores = np.asarray(jax.jit(run.recommender.score)(run.serving_state, np.array([user])))[0]
    free = np.ones(len(scores), bool)
    free[known.item[known.user == user]] = False
    found.append((float(scores[item]), 1 + int(((scores > scores[item]) & free).sum())))
  return found
