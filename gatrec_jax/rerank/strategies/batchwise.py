"""`batchwise`: the model ranks overlapping batches of candidates, and the rankings are merged.

As in Ebrat et al. 2025 (arXiv 2508.01514, batchwise re-ranking): batches of 5, merged by Borda
counts or TrueSkill. The paper does not state the overlap of batches; here each batch starts
`stride` candidates after the previous one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Queries
from gatrec_jax.rerank.strategies.rank_aggregation import overlapping


def batchwise(
  queries: Queries,
  candidates: Sequence[Sequence[str]],
  *,
  merge: Callable[[Sequence[Sequence[int]], int], np.ndarray],
  size: int = 5,
  stride: int = 3,
) -> list[np.ndarray]:
  """Scores candidates by merging rankings of batches.

  Args:
    queries: about N users. candidates: at least one title for each.
    merge: one of `rank_aggregation.MERGES`.
    size, stride: as in `rank_aggregation.overlapping`.
  Returns: for each user [K] float32.
  """
  batches = [overlapping(len(titles), size, stride) for titles in candidates]
  lists = [
    [[titles[place] for place in batch] for batch in several]
    for titles, several in zip(candidates, batches, strict=True)
  ]
  scores = []
  for titles, several, orders in zip(
    candidates, batches, queries.orders_of_letters(range(len(lists)), lists), strict=True
  ):
    rankings = [
      [batch[place] for place in order] for batch, order in zip(several, orders, strict=True)
    ]
    scores.append(merge(rankings, len(titles)))
  return scores
