"""The same list for everyone: items by their number of positives. The floor of any comparison."""

from __future__ import annotations

import numpy as np

from gatrec_jax.data.interactions import Interactions


def popularity_vectors(
  train: Interactions, *, positive_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
  """Popularity as a dot product.

  Args:
    train: training rows.
    positive_threshold: ratings at or above it count.
  Returns:
    [U, 1] float32 ones and [I, 1] float32 counts of positives.
  """
  liked = train.rating >= positive_threshold
  count = np.bincount(train.item[liked], minlength=train.num_items).astype(np.float32)
  return np.ones((train.num_users, 1), np.float32), count[:, None]
