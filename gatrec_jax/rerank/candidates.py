"""Candidates: the lists that are re-ranked, with the relevant items of the evaluated part."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions, distinct
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.serve.recommendations import lists_without
from gatrec_jax.serve.run import Run, before_validation


@dataclasses.dataclass(frozen=True)
class Candidates:
  """Lists to re-rank: their first K items are candidates, the rest keep their positions.

  Attributes:
    users: [m] int32, indices.
    lists: [m, N] int32 items, best first, padded with −1; N ≥ K.
    scores: [m, N] float32 of the system that made the lists, descending; −inf for padding.
    top: K, the number of candidates.
    relevant: [m, N] bool, positives of the evaluated part.
    num_relevant: [m] int32, all positives of the user in that part, in the list or not.
  """

  users: np.ndarray
  lists: np.ndarray
  scores: np.ndarray
  top: int
  relevant: np.ndarray
  num_relevant: np.ndarray

  @property
  def items(self) -> np.ndarray:
    """[m, K] int32, the candidates."""
    return self.lists[:, : self.top]

  @property
  def base(self) -> np.ndarray:
    """[m, K] float32, their scores."""
    return self.scores[:, : self.top]

  @property
  def valid(self) -> np.ndarray:
    """[m, K] bool, False for padding."""
    return self.items >= 0

  @property
  def hits(self) -> np.ndarray:
    """[m, K] bool, which candidates are relevant."""
    return self.relevant[:, : self.top]

  def take(self, rows: np.ndarray) -> Candidates:
    """The candidates of some users. Args: rows: indices or a mask of the m users."""
    return Candidates(
      self.users[rows],
      self.lists[rows],
      self.scores[rows],
      self.top,
      self.relevant[rows],
      self.num_relevant[rows],
    )

  def reordered(self, scores: np.ndarray) -> np.ndarray:
    """Sorts the candidates by descending scores; the rest keep their positions.

    Args: scores: [m, K] float. Candidates with equal scores keep their order.
    Returns: [m, N] int32 lists.
    """
    padded = np.where(self.valid, scores, -np.inf)
    order = np.argsort(-padded, axis=1, kind="stable")
    return np.concatenate(
      [np.take_along_axis(self.items, order, axis=1), self.lists[:, self.top :]], axis=1
    )

  def along(self, lists: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The candidates' values in the order of other lists of the same users.

    Args: lists: [m, N] int32. values: [m, K] float.
    Returns: [m, N] float, NaN for items that are not candidates.
    """
    same = (lists[:, :, None] == self.items[:, None, :]) & self.valid[:, None, :]
    found = np.take_along_axis(np.asarray(values), same.argmax(axis=2), axis=1)
    return np.where(same.any(axis=2), found, np.nan)


def validation_candidates(run: Run, *, top: int) -> Candidates:
  """The run's lists for users with a validation positive, from all but their training items.

  No validation rating is in the histories that they are made from.

  Args: run: trained. top: K candidates.
  Raises: InputError if the run has no validation part.
  """
  prepared = run.prepared
  liked = prepared.feedback.liked(prepared.valid.rating)
  if not liked.any():
    raise InputError(
      f"{run.workdir}: has no validation ratings to learn the fusion weights on; train with "
      "`valid_share=0.1`"
    )
  users = distinct(prepared.valid.user[liked])
  run = before_validation(run)
  return _of_run(run, users, prepared.valid, seen=prepared.train, top=top, length=top)


def run_candidates(run: Run, users: np.ndarray, *, top: int, length: int) -> Candidates:
  """The run's lists for given users, with relevance from the test part.

  Args: run: trained. users: [m] int32, indices. top: K candidates. length: N of the lists, ≥ K.
  """
  return _of_run(
    run, users, run.prepared.test, seen=run.prepared.known, top=top, length=max(top, length)
  )


def file_candidates(path: str | os.PathLike[str], prepared: Prepared, *, top: int) -> Candidates:
  """The lists of a file from any tool, with scores 1/rank and relevance from the test part.

  Args: path: of the file. prepared: catalog and split. top: K candidates.
  Raises: InputError as `read_recommendations`, or for items that a user has rated in training.
  """
  ids = prepared.interactions
  users, lists = read_recommendations(path, user_ids=ids.user_ids, item_ids=ids.item_ids)
  known = prepared.known
  seen = np.isin(_keys(users, lists, known.num_items), _pairs(known)) & (lists >= 0)
  if seen.any():
    row, place = np.argwhere(seen)[0]
    raise InputError(
      f"user {ids.user_ids[users[row]]} rated item "
      f"{ids.item_ids[lists[row, place]]} in training ({seen.sum()} such rows); leave out items "
      "that users have rated",
      field="candidates",
      value=path,
    )
  ranks = np.arange(1, lists.shape[1] + 1)
  scores = np.where(lists >= 0, 1.0 / ranks, -np.inf).astype(np.float32)
  return judged(users, lists, scores, prepared.test, prepared.feedback, top=top)


def judged(
  users: np.ndarray,
  lists: np.ndarray,
  scores: np.ndarray,
  truth: Interactions,
  feedback: Feedback,
  *,
  top: int,
) -> Candidates:
  """Candidates from lists, with relevance from ratings.

  Args:
    users: [m] int32. lists: [m, N] int32. scores: [m, N] float32.
    truth: ratings of the evaluated part. feedback: which ratings are relevant.
    top: K, truncated to N.
  Raises: InputError for K below 1.
  """
  if top < 1:
    raise InputError("must be at least 1", field="top_candidates", value=top)
  liked = truth.take(feedback.liked(truth.rating))
  relevant = np.isin(_keys(users, lists, truth.num_items), _pairs(liked)) & (lists >= 0)
  counts = np.bincount(liked.user, minlength=truth.num_users)[users].astype(np.int32)
  return Candidates(users, lists, scores, min(top, lists.shape[1]), relevant, counts)


def _of_run(
  run: Run, users: np.ndarray, truth: Interactions, *, seen: Interactions, top: int, length: int
) -> Candidates:
  lists, scores = lists_without(run, users, seen=seen, k=length)
  return judged(users, lists, scores, truth, run.prepared.feedback, top=top)


def _keys(users: np.ndarray, lists: np.ndarray, num_items: int) -> np.ndarray:
  """[m, N] int64, a distinct number for each pair of user and item."""
  return users[:, None].astype(np.int64) * num_items + lists


def _pairs(rows: Interactions) -> np.ndarray:
  """[R] int64, the same numbers for the pairs of interactions."""
  return rows.user.astype(np.int64) * rows.num_items + rows.item
