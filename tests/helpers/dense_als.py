"""iALS by dense normal equations."""

import numpy as np


def dense_half_step(confidence, others, settings):
  """One side by the weighted normal equations over all pairs, row by row, in float64.

  Args: confidence: [R, N] ≥ 0, 0 where nothing is observed. others: [N, D], the other side.
  """
  alpha, solved = settings.unobserved_weight, np.zeros((len(confidence), settings.width))
  for row, weights in enumerate(confidence):
    if weights.any():
      scale = settings.l2 * (weights.sum() + alpha * len(others)) ** settings.l2_power
      normal = (others * (weights + alpha)[:, None]).T @ others + scale * np.eye(settings.width)
      solved[row] = np.linalg.solve(normal, others.T @ weights)
  return solved
