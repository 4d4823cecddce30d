"""How much a rating says that its user will like more of the kind: grades in (0, 1]."""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax.data.interactions import Interactions

# Chosen on validation parts of MovieLens 100k, fold u1 (BUILD_NOTES.md, "The recipe"). A low rating
# still says what its user comes across, hence not 0.
LOWEST_LIKE = 0.8
NEUTRAL = 0.25
DISLIKE = 0.05


@dataclasses.dataclass(frozen=True)
class Feedback:
  """What R training ratings mean.

  Attributes:
    liked: [R] bool, the positives.
    grade: [R] float32: 1 for the highest rating there is, `LOWEST_LIKE` at the positive threshold,
      straight between them; `NEUTRAL`; `DISLIKE`. 1 throughout where all ratings are alike.
  """

  liked: np.ndarray
  relevance: np.ndarray


def read_feedback(
  train: Interactions, *, positive_threshold: float, negative_threshold: float
) -> Feedback:
  """Args: train: training rows only. Thresholds: as in `DataConfig`."""
  rating = train.rating.astype(np.float64)
  liked = rating >= positive_threshold
  top = rating.max(initial=positive_threshold)
  span = top - positive_threshold
  share = (rating - positive_threshold) / span if span > 0 else np.ones_like(rating)
  of_liked = LOWEST_LIKE + (1 - LOWEST_LIKE) * share
  of_others = np.where(rating <= negative_threshold, DISLIKE, NEUTRAL)
  return Feedback(liked, np.where(liked, of_liked, of_others).astype(np.float32))
