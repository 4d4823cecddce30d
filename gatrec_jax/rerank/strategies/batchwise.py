"""`batchwise`: overlapping batches of a few candidates are ranked, the rankings merged.

As in the paper (PAPER.md §1.5): batches of 5, merged by Borda counts or TrueSkill. How far batches
overlap is not told there; here each begins `stride` candidates behind the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Questions
from gatrec_jax.rerank.strategies.rank_aggregation import overlapping


def batchwise(
  questions: Questions,
  candidates: Sequence[Sequence[str]],
  *,
  merge: Callable[[Sequence[Sequence[int]], int], np.ndarray],
  size: int = 5,
  stride: int = 3,
) -> list[np.ndarray]:
  """Merged scores of the candidates.

  Args:
    questions: about N users. candidates: for each at least one title.
    merge: one of `merge.MERGES`. size, stride: as in `merge.overlapping`.
  Returns: for each user [K] float32.
  """
  batches = [overlapping(len(titles), size, stride) for titles in candidates]
  lists = [
    [[titles[place] for place in batch] for batch in several]
    for titles, several in zip(candidates, batches, strict=True)
  ]
  scores = []
  for titles, several, orders in zip(
    candidates, batches, questions.orders_of_letters(range(len(lists)), lists), strict=True
  ):
    rankings = [
      [batch[place] for place in order] for batch, order in zip(several, orders, strict=True)
    ]
    scores.append(merge(rankings, len(titles)))
  return scores
