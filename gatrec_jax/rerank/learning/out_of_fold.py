"""Out-of-fold candidates: recommendations of GATs that were not trained on the relevant ratings.

If a re-ranker learned from candidates of a model that was trained on the relevant ratings
themselves, it would learn to trust that model's memorization. So the training ratings are divided
into folds. For each fold a GAT is trained without it, on texts built without it, and the re-ranker
learns from this GAT's candidates, with the positives of the fold as relevant items.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.schema import Config
from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.split_draws import Split
from gatrec_jax.data.splits import BY_TIME, split_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.train_and_evaluate import open_run, train
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import Run
from gatrec_jax.stages.data import OUTPUTS, load_prepared, write_prepared
from gatrec_jax.stages.texts import read_texts


@dataclasses.dataclass(frozen=True)
class TrainingLists:
  """Candidates of one fold with their relevance.

  Attributes:
    users: [m] int32, the users with a positive among their candidates.
    items: [m, N] int32 candidates, best first, padded with −1.
    relevant: [m, N] bool, held-out positives.
    history: the ratings that the fold's GAT was trained on, without the held-out ones.
    profiles: [U] texts built from `history` alone, None for users without one.
  """

  users: np.ndarray
  items: np.ndarray
  relevant: np.ndarray
  history: Interactions
  profiles: list[str | None]


def out_of_fold_lists(
  config: Config, workdir: pathlib.Path, prepared: Prepared, *, folds: int, length: int, log: Log
) -> list[TrainingLists]:
  """Trains a GAT per fold, unless the run folder has it already, and returns their candidates.

  Only training ratings are read. User profiles are rebuilt without the fold, because given profiles
  would reflect its ratings. If the run chooses its checkpoint on validation ratings, each GAT
  chooses its own on its fold.

  Args:
    config: of the run. workdir: its folder, with the data stage done. prepared: from that stage.
    folds: at least 2. length: N, candidates per user.
    log: where messages and progress go.
  Raises:
    InputError: for too few folds or ratings.
    Interrupted: on a signal; calling again resumes the work.
  """
  if folds < 2:
    raise InputError("must be at least 2", field="out_of_fold", value=folds)
  lists = []
  for fold in range(folds):
    log.info(f"out of fold {fold + 1} of {folds}")
    part = _trained_without(config, workdir, prepared, fold=fold, folds=folds, log=log)
    lists.append(_lists_of(part, length=length))
  total = sum(int(one.relevant.sum()) for one in lists)
  if not total:
    raise InputError("no held-out positive is among the candidates: nothing to learn from")
  log.info(f"out of fold: {sum(len(one.users) for one in lists)} lists with {total} positives")
  return lists


def _trained_without(
  config: Config, workdir: pathlib.Path, prepared: Prepared, *, fold: int, folds: int, log: Log
) -> Run:
  folder = workdir / "out_of_fold" / f"{fold + 1}-of-{folds}"
  folder.mkdir(parents=True, exist_ok=True)
  # Held-out ratings are written as the validation part. They are drawn at random, and with the
  # split by time a run would serve from them.
  fields = {"split": "random"} if config.data.split_kind in BY_TIME else {}
  config = with_fields(config, {"user_profiles": "", **fields})
  data = runs.read_sealed(workdir / "data" / "manifest.json")["inputs"]
  inputs = runs.digest("out of fold", data, fold, folds)
  runs.require_same_origin(folder, "data", inputs)

  def make() -> dict[str, object]:
    rows = prepared.train
    split = split_interactions(
      rows, kind="kfold", test_share=1 / folds, valid_share=0.0, fold=str(fold + 1)
    )
    held_out = Split(split.train, split.test, split.valid)
    return write_prepared(
      folder / "data", dataclasses.replace(prepared, interactions=rows, split=held_out, facts={})
    )

  runs.stage(folder / "data", name="data", inputs=inputs, make=make, log=SILENT, outputs=OUTPUTS)
  open_run(config, folder)
  return train(config, folder, load_prepared(folder), log=log)[0]


def _lists_of(part: Run, *, length: int) -> TrainingLists:
  prepared: Prepared = part.prepared
  held_out = prepared.valid
  liked = prepared.feedback.liked(held_out.rating)
  users = distinct(held_out.user[liked])
  items, _ = top_lists(
    dataclasses.replace(part, prepared=_without_held_out(prepared)), users, k=length
  )
  pairs = held_out.user[liked].astype(np.int64) * held_out.num_items + held_out.item[liked]
  relevant = np.isin(users[:, None].astype(np.int64) * held_out.num_items + items, pairs)
  relevant &= items >= 0
  kept = relevant.any(axis=1)
  profiles: list[str | None] = [None] * held_out.num_users
  if part.config.model.reads_text:
    profiles = read_texts(part.workdir, "users")
  return TrainingLists(users[kept], items[kept], relevant[kept], prepared.train, profiles)


def _without_held_out(prepared: Prepared) -> Prepared:
  """Treats held-out ratings like test ratings, so that their items are candidates."""
  nothing = np.zeros(0, np.int64)
  held_out = Split(prepared.split.train, nothing, prepared.split.valid)
  return dataclasses.replace(prepared, split=held_out)
