"""`relevancy`: scores from 0 to 100, averaged over overlapping batches (PAPER.md §1.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import MOST_RATING, Questions
from gatrec_jax.rerank.strategies.rank_aggregation import overlapping

PUBLISHED_WEIGHT = 0.8


def relevancy(
  questions: Questions, candidates: Sequence[Sequence[str]], *, size: int = 5, stride: int = 3
) -> list[np.ndarray]:
  """Mean ratings of the candidates.

  Args: questions: about N users. candidates: for each at least one title. size, stride: as in
    `merge.overlapping`.
  Returns: for each user [K] float32 from 0 to 100.
  """
  batches = [overlapping(len(titles), size, stride) for titles in candidates]
  lists = [
    [[titles[place] for place in batch] for batch in several]
    for titles, several in zip(candidates, batches, strict=True)
  ]
  scores = []
  for titles, several, ratings in zip(
    candidates, batches, questions.ratings(range(len(lists)), lists), strict=True
  ):
    total, times = np.zeros(len(titles)), np.zeros(len(titles))
    for batch, rated in zip(several, ratings, strict=True):
      total[batch] += rated
      times[batch] += 1
    scores.append((total / times).astype(np.float32))
  return scores


def published_fusion(ratings: np.ndarray, old_rank: np.ndarray) -> np.ndarray:
  """The paper's fusion, 80:20 with the linear score of the old rank (PAPER.md §1.5).

  Args: ratings: [K] float from 0 to 100. old_rank: [K] int from 1.
  Returns: [K] float from 0 to 1, higher is better; rank r of K has the linear score
    1 - (r - 1) / K.
  """
  ratings, old_rank = np.asarray(ratings, float), np.asarray(old_rank, float)
  linear = 1 - (old_rank - 1) / max(1, len(old_rank))
  return PUBLISHED_WEIGHT * ratings / MOST_RATING + (1 - PUBLISHED_WEIGHT) * linear
