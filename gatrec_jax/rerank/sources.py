"""Where candidates and the data about their users come from: a trained run, or a file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from gatrec_jax.config.schema import Config
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


@dataclasses.dataclass(frozen=True)
class Source:
  """The input of re-ranking.

  Attributes:
    name: of the system that made the candidates, for messages.
    config, workdir, prepared: of the run folder.
    candidates: to re-rank. validation: to learn weights on; None for lists from a file.
    user_profiles: [U] texts, None for users without one. item_profiles: [I], likewise.
    text_vectors: [U + I, D] float32, or None.
  """

  name: str
  config: Config
  workdir: pathlib.Path
  prepared: Prepared
  candidates: Candidates
  validation: Candidates | None
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
  log: Log = SILENT,
) -> Source:
  """Opens a trained run with its own candidates, or the lists of a file in a run folder.

  Args:
    workdir: the run folder. top: K.
    candidates: file with lists; None for the run's own.
    config: of the data, for a file of lists if the folder does not contain a run yet.
    users: raw ids whose lists are re-ranked; None for all.
    log: where messages go.
  Raises: InputError for a run that is not trained or has no validation part, for unknown users,
    or for an invalid file.
  """
  if candidates:
    return _of_file(config or Config(), workdir, candidates, top=top, users=users, log=log)
  run = load_run(workdir)
  ids = run.prepared.interactions.user_ids
  rows = np.arange(len(ids)) if users is None else _rows(users, ids)
  lists = run_candidates(run, rows.astype(np.int32), top=top, length=max(LENGTH, top))
  return _with_texts(run, lists, validation_candidates(run, top=top))


def _with_texts(run: Run, lists: Candidates, validation: Candidates) -> Source:
  kind = run.config.model.kind
  return Source(
    "the GAT" if kind == "gat" else kind,
    run.config,
    run.workdir,
    run.prepared,
    lists,
    validation,
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
  if users is not None:
    wanted = np.isin(lists.users, _rows(users, prepared.interactions.user_ids))
    if not wanted.any():
      raise InputError(f"{path} has no list of these users", field="users", value=",".join(users))
    lists = lists.take(wanted)
  return Source(
    pathlib.Path(path).name,
    config,
    workdir,
    prepared,
    lists,
    None,
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
