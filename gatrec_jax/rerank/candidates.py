"""Candidates: the lists that are re-ranked, with their truth where it may be looked at."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.serve.recommendations import lists_without
from gatrec_jax.serve.run import Run


@dataclasses.dataclass(frozen=True)
class Candidates:
  """Lists to re-rank: their first K items are candidates, what follows keeps its place.

  Attributes:
    users: [m] int32, indices.
    lists: [m, N] int32 items, best first, −1 where a list ends; N ≥ K.
    scores: [m, N] float32 of whoever made the lists, descending; −inf where a list ends.
    top: K, how many are candidates.
    relevant: [m, N] bool, positives of the part that is predicted.
    num_relevant: [m] int32, all positives of the user there, in the list or not.
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
    """[m, K] bool, False where a list is shorter."""
    return self.items >= 0

  @property
  def hits(self) -> np.ndarray:
    """[m, K] bool, which candidates are relevant."""
    return self.relevant[:, : self.top]

  def take(self, rows: np.ndarray) -> Candidates:
    """Those of some users."""
    return Candidates(
      self.users[rows],
      self.lists[rows],
      self.scores[rows],
      self.top,
      self.relevant[rows],
      self.num_relevant[rows],
    )

  def reordered(self, scores: np.ndarray) -> np.ndarray:
    """[m, N] int32 lists with the candidates by descending `scores` [m, K], equal ones as before.

    What is no candidate stays where it was.
    """
    filled = np.where(self.valid, scores, -np.inf)
    order = np.argsort(-filled, axis=1, kind="stable")
    return np.concatenate(
      [np.take_along_axis(self.items, order, axis=1), self.lists[:, self.top :]], axis=1
    )

  def along(self, lists: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[m, N] the candidates' `values` [m, K] where they stand in other lists [m, N] of the same
    users; NaN for what is no candidate."""
    same = (lists[:, :, None] == self.items[:, None, :]) & self.valid[:, None, :]
    found = np.take_along_axis(np.asarray(values), same.argmax(axis=2), axis=1)
    return np.where(same.any(axis=2), found, np.nan)


def validation_candidates(run: Run, *, top: int) -> Candidates:
  """The run's lists for users with a validation positive, all but their training items in play.

  Raises: InputError where the run has no validation part.
  """
  prepared = run.prepared
  liked = prepared.feedback.liked(prepared.valid.rating)
  if not liked.any():
    raise InputError(
      f"{run.workdir}: has no validation ratings, which the weights of the re-ranker are learned "
      "on; train with `valid_share=0.1`"
    )
  users = np.unique(prepared.valid.user[liked]).astype(np.int32)
  return _of_run(run, users, prepared.valid, seen=prepared.train, top=top, length=top)


def run_candidates(run: Run, users: np.ndarray, *, top: int, length: int) -> Candidates:
  """The run's lists for the users with these indices ([m] int32), judged by the test part.

  Args: top: K candidates. length: N of the lists, at least K.
  """
  return _of_run(
    run, users, run.prepared.test, seen=run.prepared.known, top=top, length=max(top, length)
  )


def file_candidates(path: str | os.PathLike[str], prepared: Prepared, *, top: int) -> Candidates:
  """The lists of a file made by any tool, with scores 1/rank, judged by the test part.

  Raises: InputError as `read_recommendations`, or for items that a user rated in training.
  """
  ids = prepared.interactions
  users, lists = read_recommendations(path, user_ids=ids.user_ids, item_ids=ids.item_ids)
  known = prepared.known
  seen = np.isin(_keys(users, lists, known.num_items), _pairs(known)) & (lists >= 0)
  if seen.any():
    row, place = np.argwhere(seen)[0]
    raise InputError(
      f"user {ids.user_ids[users[row]]} rated item "
      f"{ids.item_ids[lists[row, place]]} in training ({seen.sum()} such rows); leave out what "
      "users have rated",
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
  """Puts lists and the positives of `truth` together.

  Args: users: [m] int32. lists, scores: [m, N]. feedback: which ratings of `truth` are positives.
    top: K, cut to N.
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
  """[m, N] int64, a number for each pair."""
  return users[:, None].astype(np.int64) * num_items + lists


def _pairs(rows: Interactions) -> np.ndarray:
  """[R] int64, the same numbers."""
  return rows.user.astype(np.int64) * rows.num_items + rows.item
