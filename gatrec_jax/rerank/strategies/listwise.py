"""`listwise`: the model writes the whole list, best first (PAPER.md §1.5, prompt-level).

Faithful to the paper but for one thing: the reply is written under a constraint, so that each
candidate stands in it exactly once and nothing needs to be matched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.rerank.prompting.queries import Questions

# Weight of the LLM's rank by that rank itself: (the last rank it holds for, weight).
PUBLISHED_WEIGHTS = ((5, 0.9), (10, 0.7))
PUBLISHED_REST = 0.5


def listwise(questions: Questions, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """1 / the rank of each candidate in the model's list.

  Args: questions: about N users. candidates: for each at least one title.
  Returns: for each user [K] float32.
  """
  orders = questions.orders_of_titles(range(len(candidates)), candidates)
  return [reciprocal_ranks(order) for order in orders]


def reciprocal_ranks(order: Sequence[int]) -> np.ndarray:
  """order: [K] int, places of the candidates, the best first. Returns: [K] float32, 1 / rank."""
  scores = np.zeros(len(order), np.float32)
  scores[np.asarray(order, int)] = 1 / np.arange(1, len(order) + 1)
  return scores


def published_fusion(llm_rank: np.ndarray, old_rank: np.ndarray) -> np.ndarray:
  """The paper's fusion of the list with the order it came from (PAPER.md §1.5).

  The LLM's rank has the weight 0.9 up to rank 5, 0.7 up to rank 10 and 0.5 beyond, the old rank the
  rest. How ranks become scores is not told; here they are averaged as they are.

  Args: llm_rank, old_rank: [K] int from 1.
  Returns: [K] float, the averaged rank, negative, so that higher is better.
  """
  llm_rank, old_rank = np.asarray(llm_rank, float), np.asarray(old_rank, float)
  weight = np.full(llm_rank.shape, PUBLISHED_REST)
  for last, value in reversed(PUBLISHED_WEIGHTS):
    weight[llm_rank <= last] = value
  return -(weight * llm_rank + (1 - weight) * old_rank)
