"""`listwise`: the model generates the whole list, best first.

This is the prompt-level re-ranking of Ebrat et al. 2025 (arXiv 2508.01514), except that decoding is
constrained, so that the answer contains each candidate exactly once and needs no matching.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Queries


def listwise(queries: Queries, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """Scores each candidate by 1 / its rank in the model's list.

  Args: queries: about N users. candidates: at least one title for each.
  Returns: for each user [K] float32.
  """
  orders = queries.orders_of_titles(range(len(candidates)), candidates)
  return [reciprocal_ranks(order) for order in orders]


def reciprocal_ranks(order: Sequence[int]) -> np.ndarray:
  """1 / rank of each candidate, [K] float32. Args: order: [K] int, candidates from the best on."""
  scores = np.zeros(len(order), np.float32)
  scores[np.asarray(order, int)] = 1 / np.arange(1, len(order) + 1)
  return scores
