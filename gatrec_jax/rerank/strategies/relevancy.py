"""`relevancy`: the model rates candidates from 0 to 100, averaged over overlapping batches.

This is the relevancy-based re-ranking of Ebrat et al. 2025 (arXiv 2508.01514).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Queries
from gatrec_jax.rerank.strategies.rank_aggregation import overlapping


def relevancy(
  queries: Queries, candidates: Sequence[Sequence[str]], *, size: int = 5, stride: int = 3
) -> list[np.ndarray]:
  """Scores candidates by their mean ratings.

  Args:
    queries: about N users. candidates: at least one title for each.
    size, stride: as in `rank_aggregation.overlapping`.
  Returns: for each user [K] float32 from 0 to 100.
  """
  batches = [overlapping(len(titles), size, stride) for titles in candidates]
  lists = [
    [[titles[place] for place in batch] for batch in several]
    for titles, several in zip(candidates, batches, strict=True)
  ]
  scores = []
  for titles, several, ratings in zip(
    candidates, batches, queries.ratings(range(len(lists)), lists), strict=True
  ):
    total, times = np.zeros(len(titles)), np.zeros(len(titles))
    for batch, rated in zip(several, ratings, strict=True):
      total[batch] += rated
      times[batch] += 1
    scores.append((total / times).astype(np.float32))
  return scores
