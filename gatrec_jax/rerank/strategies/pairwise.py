"""`pairwise`: the model compares pairs of candidates, in a search tree or over all pairs.

Ebrat et al. 2025 (arXiv 2508.01514) insert each candidate into a binary search tree by comparisons
and read the ranking off in order. A candidate is compared only with the roots of the subtrees that
it passes through, independently of other candidates. So all candidates of a subtree are compared
with its root at once, and the trees of all users grow one level per round. Tree and comparisons,
about 2 K ln K of them, are the same as for sequential insertion, and no pair is compared twice.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Queries
from gatrec_jax.rerank.strategies.listwise import reciprocal_ranks

Pair = tuple[int, int]
"""Two places in a user's list of candidates."""


@dataclasses.dataclass
class _Subtree:
  """Candidates of a subtree, in the order of their insertion; the first is the root."""

  places: list[int]


def insertion_tree(
  queries: Queries, candidates: Sequence[Sequence[str]], *, both_orders: bool = True
) -> list[np.ndarray]:
  """Scores candidates by 1 / rank in a search tree, into which they are inserted as given.

  Args:
    queries: about N users. candidates: at least one title for each.
    both_orders: whether each pair is compared as A, B and as B, A and the answers are averaged,
      which cancels any bias toward a letter or a position.
  Returns: for each user [K] float32.
  """
  # Each user's ranking as ordered subtrees; it is complete when all of them have one candidate.
  rankings = [[_Subtree(list(range(len(titles))))] for titles in candidates]
  while True:
    compared: dict[int, list[Pair]] = {}
    for user, trees in enumerate(rankings):
      pairs = [(place, tree.places[0]) for tree in trees for place in tree.places[1:]]
      if pairs:
        compared[user] = pairs
    if not compared:
      break
    users = list(compared)
    titles = [candidates[user] for user in users]
    found = log_odds(queries, users, titles, list(compared.values()), both_orders=both_orders)
    for user, odds in zip(users, found, strict=True):
      # At equal odds the earlier candidate wins.
      better = {pair for pair, odd in zip(compared[user], odds, strict=True) if odd > 0}
      rankings[user] = [piece for tree in rankings[user] for piece in _split(tree, better)]
  return [reciprocal_ranks([tree.places[0] for tree in trees]) for trees in rankings]


def all_pairs(
  queries: Queries, candidates: Sequence[Sequence[str]], *, both_orders: bool = True
) -> list[np.ndarray]:
  """Scores candidates by the sum of the log-odds that they are preferred to each other candidate.

  Takes K·(K − 1) / 2 comparisons, all after one evaluation of the user's context.

  Args: as in `insertion_tree`.
  Returns: for each user [K] float32; they sum to 0.
  """
  pairs = [list(itertools.combinations(range(len(titles)), 2)) for titles in candidates]
  users = range(len(candidates))
  found = log_odds(queries, users, candidates, pairs, both_orders=both_orders)
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
  queries: Queries,
  users: Sequence[int],
  candidates: Sequence[Sequence[str]],
  pairs: Sequence[Sequence[Pair]],
  *,
  both_orders: bool,
) -> list[np.ndarray]:
  """Log-odds that the first candidate of each pair is preferred to the second.

  Args:
    queries: the users' queries. users: indices of N users. candidates: their titles.
    pairs: C for each user. both_orders: as in `insertion_tree`.
  Returns: for each user [C] float32.
  """
  lists = []
  for titles, several in zip(candidates, pairs, strict=True):
    forward = [[titles[one], titles[other]] for one, other in several]
    lists.append(forward + [two[::-1] for two in forward] if both_orders else forward)
  odds = []
  for found, several in zip(queries.choices(users, lists), pairs, strict=True):
    of_first = found[:, 0] - found[:, 1]
    count = len(several)
    odds.append((of_first[:count] - of_first[count:]) / 2 if both_orders else of_first)
  return odds


def _split(tree: _Subtree, better: set[Pair]) -> list[_Subtree]:
  """The subtrees before the root, of the root alone, and after the root, without empty ones."""
  root, *others = tree.places
  before = [place for place in others if (place, root) in better]
  behind = [place for place in others if (place, root) not in better]
  return [_Subtree(places) for places in (before, [root], behind) if places]
