"""Strategies that read a model's mind: labels of candidates, and yes or no, by their logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Questions


def label(
  questions: Questions, candidates: Sequence[Sequence[str]], *, permutations: int = 2
) -> list[np.ndarray]:
  """How probable each candidate's label is as the answer, from the logits of one forward pass.

  Letters: "which fits best?", behind which the candidates stand in several orders. Letters have
  probabilities of their own, whatever stands behind them: those that a prompt without content has
  are taken off (Zhao et al. 2021, "Calibrate Before Use", §4, in log space), and the mean over
  shifts, in which a candidate has other letters and other places, evens out the rest.

  Titles, where the model has a token for each: "what is liked next?". The candidates need not be
  listed, so there is no order to average over and no letter's bias to take off.

  Args:
    questions: about N users. candidates: for each at least one title.
    permutations: P, cyclic shifts of the lettered candidates, spread evenly over the K of them; at
      most K.
  Returns: for each user [K] float32, higher is better.
  """
  if questions.own_labels(title for titles in candidates for title in titles) is not None:
    return questions.next_titles(range(len(candidates)), candidates)
  lists, shifts = [], []
  for titles in candidates:
    several = cyclic_shifts(len(titles), permutations)
    shifts.append(several)
    lists.append([[titles[place] for place in order] for order in several])
  empty = {count: questions.empty_choice(count) for count in {len(one) for one in candidates}}
  scores = []
  for orders, found in zip(shifts, questions.choices(range(len(lists)), lists), strict=True):
    by_candidate = np.empty_like(found)
    np.put_along_axis(by_candidate, orders, found - empty[found.shape[1]], axis=1)
    scores.append(by_candidate.mean(axis=0))
  return scores


def pointwise(questions: Questions, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """Asks of each candidate alone whether it fits: logit of yes less that of no, [K] a user."""
  return questions.fits(range(len(candidates)), candidates)


def cyclic_shifts(count: int, permutations: int) -> np.ndarray:
  """[P, K] int: row p is 0 … K-1, begun at place ⌊p·K / P⌋. P is at most K."""
  permutations = min(permutations, count)
  starts = np.arange(permutations) * count // permutations
  return (np.arange(count) + starts[:, None]) % count
