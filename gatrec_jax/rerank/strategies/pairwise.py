"""`pairwise`: which of two candidates fits better, by a search tree or over all pairs.

The paper inserts each candidate into a binary search tree by comparisons, and reads the ranking off
in order (PAPER.md §1.5). A candidate is compared with the roots of the subtrees that it comes down
through, whatever others do; so all that stand before the same root are compared with it at once,
and the trees of all users grow a level a round. Tree and comparisons are those of one insertion
after the other, about 2 K ln K of them, and no pair can come twice: what has been compared with a
root stands apart from it from then on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Questions
from gatrec_jax.rerank.strategies.listwise import reciprocal_ranks

# Two places of a user's candidates.
Pair = tuple[int, int]


@dataclasses.dataclass
class _Part:
  """A part of a user's ranking: places in the order of their insertion, the first is the root."""

  places: list[int]


def insertion_tree(
  questions: Questions, candidates: Sequence[Sequence[str]], *, both_orders: bool = True
) -> list[np.ndarray]:
  """1 / rank in the tree's in-order traversal; candidates are inserted as they are given.

  Args:
    questions: about N users. candidates: for each at least one title.
    both_orders: each pair is asked as A and B and as B and A, and the answers are averaged, which
      cancels what the letters or the places are worth by themselves.
  Returns: for each user [K] float32.
  """
  # Ranking of each user as parts that are in order among each other; done when all have one place.
  rankings = [[_Part(list(range(len(titles))))] for titles in candidates]
  while True:
    asked: dict[int, list[Pair]] = {}
    for user, parts in enumerate(rankings):
      pairs = [(place, part.places[0]) for part in parts for place in part.places[1:]]
      if pairs:
        asked[user] = pairs
    if not asked:
      break
    users = list(asked)
    titles = [candidates[user] for user in users]
    found = log_odds(questions, users, titles, list(asked.values()), both_orders=both_orders)
    for user, odds in zip(users, found, strict=True):
      # Of equal ones the earlier is the better.
      better = {pair for pair, odd in zip(asked[user], odds, strict=True) if odd > 0}
      rankings[user] = [piece for part in rankings[user] for piece in _split(part, better)]
  return [reciprocal_ranks([part.places[0] for part in parts]) for parts in rankings]


def all_pairs(
  questions: Questions, candidates: Sequence[Sequence[str]], *, both_orders: bool = True
) -> list[np.ndarray]:
  """The sum over all others of the log-odds that a candidate is chosen before them.

  K·(K - 1) / 2 comparisons, all behind one evaluation of the user's context. Arguments as in
  `insertion_tree`.
  Returns: for each user [K] float32; they sum to 0.
  """
  pairs = [list(itertools.combinations(range(len(titles)), 2)) for titles in candidates]
  users = range(len(candidates))
  found = log_odds(questions, users, candidates, pairs, both_orders=both_orders)
  scores = []
  for titles, several, odds in zip(candidates, pairs, found, strict=True):
    score = np.zeros(len(titles), np.float32)
    if several:
      first, second = np.array(several).T
      np.add.at(score, first, odds)
      np.subtract.at(score, second, odds)
    scores.append(score)
  return scores


def log_odds(
  questions: Questions,
  users: Sequence[int],
  candidates: Sequence[Sequence[str]],
  pairs: Sequence[Sequence[Pair]],
  *,
  both_orders: bool,
) -> list[np.ndarray]:
  """Log-odds that the first of each pair is chosen before the second.

  Args: users: numbers of N users. candidates: their titles. pairs: C for each.
  Returns: for each user [C] float32.
  """
  lists = []
  for titles, several in zip(candidates, pairs, strict=True):
    forward = [[titles[one], titles[other]] for one, other in several]
    lists.append(forward + [two[::-1] for two in forward] if both_orders else forward)
  odds = []
  for found, several in zip(questions.choices(users, lists), pairs, strict=True):
    of_first = found[:, 0] - found[:, 1]
    count = len(several)
    odds.append((of_first[:count] - of_first[count:]) / 2 if both_orders else of_first)
  return odds


def _split(part: _Part, better: set[Pair]) -> list[_Part]:
  """What stands before the root, the root, and what stands behind it; parts keep their order."""
  root, *others = part.places
  before = [place for place in others if (place, root) in better]
  behind = [place for place in others if (place, root) not in better]
  return [_Part(places) for places in (before, [root], behind) if places]
