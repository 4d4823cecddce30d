"""How many lists a language model scores: a sample for learning its weight, and what is measured.

A list without a relevant item among its candidates keeps its NDCG whatever the order, so it teaches
the fusion nothing. Only the others are scored; the rest count in every mean, as no gain.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.rerank.candidates import Candidates
from gatrec_jax.rerank.score_cache import CHUNK, Rate


@dataclasses.dataclass(frozen=True)
class ScoringPlan:
  """What is scored, and about what it takes.

  Attributes:
    test_lists: lists that are scored to be re-ranked.
    valid_lists: lists that are scored to learn the weight.
    valid_users: users of the sample that it is learned on, scored or not. all_valid_users: of
      whom the sample was drawn.
    rate: tokens and speed.
  """

  test_lists: int
  valid_lists: int
  valid_users: int
  all_valid_users: int
  rate: Rate

  @property
  def minutes(self) -> float:
    """Of the whole."""
    return self._minutes(self.test_lists + self.valid_lists)

  def says(self, what: str) -> str:
    """One line for the user. Args: what: the strategy and the model."""
    parts = [f"{self.test_lists} test lists ({self._minutes(self.test_lists):.1f} minutes)"]
    if self.all_valid_users:
      sample = (
        f"all {self.valid_users}"
        if self.valid_users == self.all_valid_users
        else f"{self.valid_users} of {self.all_valid_users}"
      )
      parts.append(
        f"{self.valid_lists} lists ({self._minutes(self.valid_lists):.1f} minutes) of {sample} "
        "validation users for the weight"
      )
    tokens = self.rate.tokens_per_list
    return (
      f"plan: {what} takes {tokens:.0f} tokens and {self._seconds:.3g} s a list; "
      f"{' and '.join(parts)}: {tokens * (self.test_lists + self.valid_lists):,.0f} tokens, "
      f"{self.minutes:.1f} minutes unless they are stored already"
    )

  @property
  def _seconds(self) -> float:
    return 1 / self.rate.lists_per_second if self.rate.lists_per_second else 0.0

  def _minutes(self, lists: int) -> float:
    return lists * self._seconds / 60


def plan_scoring(
  rate: Rate, *, test: np.ndarray, valid: np.ndarray, users: int | None, minutes: float
) -> ScoringPlan:
  """Sizes the validation sample.

  Args:
    rate: tokens and speed of the model.
    test: [m] bool, which test lists are scored.
    valid: [n] bool, which validation lists are worth scoring, users in random order; empty if
      there are none.
    users: how many validation users are taken, the first ones; None for as many as can be scored
      in `minutes`, and for at least `CHUNK` lists.
  """
  if users is None:
    most = max(CHUNK, int(minutes * 60 * rate.lists_per_second))
    beyond = np.flatnonzero(np.cumsum(valid) > most)
    users = int(beyond[0]) if len(beyond) else len(valid)
  users = min(users, len(valid))
  return ScoringPlan(int(test.sum()), int(valid[:users].sum()), users, len(valid), rate)


def shuffled(lists: Candidates, *, seed: int) -> Candidates:
  """The lists in random order, so that their beginning is a sample."""
  return lists.take(np.random.default_rng(seed).permutation(len(lists.users)))


def require_sizes(*, users: int | None, minutes: float) -> None:
  """Raises InputError for sizes that no sample can have."""
  if users is not None and users < 1:
    raise InputError("must be at least 1", field="valid_users", value=users)
  if not minutes > 0:
    raise InputError("must be above 0", field="minutes", value=minutes)
