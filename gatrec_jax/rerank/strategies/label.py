"""`label`, `pointwise` and `title`: strategies that read scores from logits, without an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Queries


def label(
  queries: Queries, candidates: Sequence[Sequence[str]], *, permutations: int = 2
) -> list[np.ndarray]:
  """Scores candidates by the probability of their labels as the answer, in one forward pass.

  With letters as labels, the prompt lists the candidates and asks which fits best. Models prefer
  some letters regardless of the candidates. This bias is removed in two ways: the log-probabilities
  of a content-free prompt are subtracted (Zhao et al. 2021, "Calibrate Before Use", §4, in log
  space), and scores are averaged over cyclic shifts, which give a candidate other letters and
  positions.

  With titles as labels, for models that have a token for each, the prompt asks for the next liked
  title. The candidates are not listed, so there is no order and no bias of letters to remove.

  Args:
    queries: about N users. candidates: at least one title for each.
    permutations: P ≤ K, the number of cyclic shifts of the lettered candidates, spread evenly.
  Returns: for each user [K] float32, higher is better.
  """
  if queries.own_labels(title for titles in candidates for title in titles) is not None:
    return queries.next_titles(range(len(candidates)), candidates)
  lists, shifts = [], []
  for titles in candidates:
    several = cyclic_shifts(len(titles), permutations)
    shifts.append(several)
    lists.append([[titles[place] for place in order] for order in several])
  empty = {count: queries.empty_choice(count) for count in {len(one) for one in candidates}}
  scores = []
  for orders, found in zip(shifts, queries.choices(range(len(lists)), lists), strict=True):
    by_candidate = np.empty_like(found)
    np.put_along_axis(by_candidate, orders, found - empty[found.shape[1]], axis=1)
    scores.append(by_candidate.mean(axis=0))
  return scores


def pointwise(queries: Queries, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """Scores each candidate on its own, by the logit of yes minus that of no.

  Returns: for each user [K] float32.
  """
  return queries.fits(range(len(candidates)), candidates)


def next_title(queries: Queries, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """Scores each candidate by how much the user's description raises the likelihood of its title.

  The prompt asks nothing: it is the user's history, and the title would be its next line. So a
  model needs no instructions and no letters to have an opinion, which small ones lack.

  Returns: for each user [K] float32, in nats.
  """
  return queries.likelihoods(range(len(candidates)), candidates)


def cyclic_shifts(count: int, permutations: int) -> np.ndarray:
  """[P, K] int, row p being 0 … K−1 rotated to start at ⌊p·K / P⌋; P is at most K."""
  permutations = min(permutations, count)
  starts = np.arange(permutations) * count // permutations
  return (np.arange(count) + starts[:, None]) % count
