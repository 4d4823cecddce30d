"""Where candidates and the data about their users come from: a trained run, or a file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from gatrec_jax.config.schema import Config
from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.experiment.train_and_evaluate import open_run
from gatrec_jax.rerank.candidates import (
  Candidates,
  file_candidates,
  run_candidates,
  validation_candidates,
)
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.serve.run import Run, load_run
from gatrec_jax.stages.config_file import read_config
from gatrec_jax.stages.data import load_prepared, prepare
from gatrec_jax.stages.texts import build_profiles, read_texts

LENGTH = 50  # items per list, candidates included
_SAMPLE_SEED = 0  # one sample, so that models are compared over the same users


@dataclasses.dataclass(frozen=True)
class Source:
  """The input of re-ranking.

  Attributes:
    name: of the system that made the candidates, for messages.
    config, workdir, prepared: of the run folder.
    candidates: to re-rank. validation: to learn weights on; None for lists from a file.
    truth: the test ratings that metrics are about: of all users, or of those that were chosen.
    user_profiles: [U] texts, None for users without one. item_profiles: [I], likewise.
    text_vectors: [U + I, D] float32, or None.
  """

  name: str
  config: Config
  workdir: pathlib.Path
  prepared: Prepared
  candidates: Candidates
  validation: Candidates | None
  truth: Interactions
  user_profiles: Sequence[str | None]
  item_profiles: Sequence[str | None]
  text_vectors: np.ndarray | None


def open_source(
  workdir: pathlib.Path,
  *,
  top: int,
  candidates: str | None = None,
  config: Config | None = None,
  users: Sequence[str] | None = None,
  max_users: int | None = None,
  log: Log = SILENT,
) -> Source:
  """Opens a trained run with its own candidates, or the lists of a file in a run folder.

  Args:
    workdir: the run folder. top: K.
    candidates: file with lists; None for the run's own.
    config: of the data, for a file of lists if the folder does not contain a run yet.
    users: raw ids whose lists are re-ranked; None for all.
    max_users: re-ranks a random sample of so many users with a test positive; None for all users.
    log: where messages go.
  Raises: InputError for a run that is not trained or has no validation part, for unknown users,
    or for an invalid file.
  """
  if candidates:
    return _of_file(
      config or Config(), workdir, candidates, top=top, users=users, max_users=max_users, log=log
    )
  run = load_run(workdir)
  rows = _chosen(run.prepared, users, max_users)
  rows = np.arange(run.prepared.interactions.num_users) if rows is None else rows
  lists = run_candidates(run, rows.astype(np.int32), top=top, length=max(LENGTH, top))
  truth = run.prepared.test if users is max_users is None else _of(run.prepared, lists)
  return _with_texts(run, lists, validation_candidates(run, top=top), truth)


def _with_texts(run: Run, lists: Candidates, validation: Candidates, truth: Interactions) -> Source:
  kind = run.config.model.kind
  return Source(
    "the GAT" if kind == "gat" else kind,
    run.config,
    run.workdir,
    run.prepared,
    lists,
    validation,
    truth,
    *_texts(run.workdir, run.config, run.prepared),
    text_vectors=run.texts.vectors if run.texts.is_text else None,
  )


def _of_file(
  config: Config,
  workdir: pathlib.Path,
  path: str,
  *,
  top: int,
  users: Sequence[str] | None,
  max_users: int | None,
  log: Log,
) -> Source:
  if (workdir / "config.json").exists():
    config = read_config(workdir)
    prepared = load_prepared(workdir)
  else:
    workdir = open_run(config, workdir)
    prepared = prepare(config.data, workdir, log=log)
    if config.model.reads_text:
      build_profiles(config.text, workdir, prepared, data=config.data, log=log)
  lists = file_candidates(path, prepared, top=top)
  truth = prepared.test
  rows = _chosen(prepared, users, max_users, among=lists.users)
  if rows is not None:
    wanted = np.isin(lists.users, rows)
    if not wanted.any():
      chosen = ",".join(users or [])
      raise InputError(f"{path} has no list of these users", field="users", value=chosen)
    lists = lists.take(wanted)
    truth = _of(prepared, lists)
  return Source(
    pathlib.Path(path).name,
    config,
    workdir,
    prepared,
    lists,
    None,
    truth,
    *_texts(workdir, config, prepared),
    text_vectors=None,
  )


def _texts(
  workdir: pathlib.Path, config: Config, prepared: Prepared
) -> tuple[Sequence[str | None], Sequence[str | None]]:
  if not config.model.reads_text:
    ids = prepared.interactions
    return [None] * ids.num_users, [None] * ids.num_items
  return read_texts(workdir, "users"), read_texts(workdir, "items")


def _chosen(
  prepared: Prepared,
  users: Sequence[str] | None,
  max_users: int | None,
  *,
  among: np.ndarray | None = None,
) -> np.ndarray | None:
  """Indices of the users that are re-ranked, ascending; None for all.

  Args: among: whom a sample is drawn from, None for all.
  Raises: InputError for both kinds of choice, unknown users, or a sample of nobody.
  """
  if max_users is None:
    return None if users is None else _rows(users, prepared.interactions.user_ids)
  if users is not None:
    raise InputError("leave it out where `users` names them", field="max_users", value=max_users)
  if max_users < 1:
    raise InputError("must be at least 1", field="max_users", value=max_users)
  liked = distinct(prepared.test.user[prepared.feedback.liked(prepared.test.rating)])
  liked = liked if among is None else liked[np.isin(liked, among)]
  return np.sort(np.random.default_rng(_SAMPLE_SEED).permutation(liked)[:max_users])


def _of(prepared: Prepared, lists: Candidates) -> Interactions:
  """The test ratings of these users; of all where none of theirs is a like to measure by."""
  own = prepared.test.take(np.isin(prepared.test.user, lists.users))
  return own if prepared.feedback.liked(own.rating).any() else prepared.test


def _rows(users: Sequence[str], ids: Sequence[str]) -> np.ndarray:
  users = require_list(users, field="users")
  places = {raw: row for row, raw in enumerate(ids)}
  if unknown := [user for user in users if user not in places]:
    raise InputError(
      f"not in the catalog ({len(ids)} users, such as {', '.join(ids[:3])})",
      field="users",
      value=",".join(unknown[:5]),
    )
  return np.array(sorted({places[user] for user in users}), np.int64)
