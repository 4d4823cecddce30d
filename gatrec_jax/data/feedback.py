"""What ratings mean: which count as liked or disliked, and how relevant each is, as one value."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError

# Chosen on the validation parts of MovieLens 100k, fold u1 (launch/benchmarks/RESULTS.md). A low
# rating still shows what its user comes across, hence not 0.
LOWEST_LIKE = 0.8
NEUTRAL = 0.25
DISLIKE = 0.05


@dataclasses.dataclass(frozen=True)
class JudgedRatings:
  """What R ratings mean, as arrays.

  Attributes:
    liked: [R] bool, the positives.
    relevance: [R] float32 in (0, 1].
  """

  liked: np.ndarray
  relevance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Feedback:
  """Which ratings count as liked and as disliked. Implicit feedback is `Feedback(1.0, 0.0)`.

  >>> Feedback(positive_threshold=3.5).liked(np.array([2.0, 3.5, 5.0])).tolist()
  [False, True, True]

  Attributes:
    positive_threshold: ratings at or above it are likes, the positives.
    negative_threshold: ratings at or below it are dislikes, the explicit negatives.
  """

  positive_threshold: float = 4.0
  negative_threshold: float = 2.0

  def __post_init__(self) -> None:
    if not self.negative_threshold < self.positive_threshold:
      raise InputError(
        f"must lie below `positive_threshold={self.positive_threshold:g}`",
        field="negative_threshold",
        value=f"{self.negative_threshold:g}",
      )

  def liked(self, rating: Any) -> Any:
    """Whether each rating counts as liked. Args: rating: a number, or [R] of them."""
    return rating >= self.positive_threshold

  def disliked(self, rating: Any) -> Any:
    """Whether each rating counts as disliked. Args: rating: a number, or [R] of them."""
    return rating <= self.negative_threshold

  def relevance(self, rating: np.ndarray) -> np.ndarray:
    """How much each of a data set's ratings says that its user wants more of the kind.

    Args: rating: [R], the training ratings of all users.
    Returns: [R] float32 in (0, 1]: 1 for the highest rating, `LOWEST_LIKE` at the positive
      threshold and linear between the two; `NEUTRAL`; `DISLIKE`. 1 throughout where all ratings are
      equal likes.
    """
    exact = rating.astype(np.float64)
    span = exact.max(initial=self.positive_threshold) - self.positive_threshold
    share = (exact - self.positive_threshold) / span if span > 0 else np.ones_like(exact)
    of_liked = LOWEST_LIKE + (1 - LOWEST_LIKE) * share
    of_others = np.where(self.disliked(rating), DISLIKE, NEUTRAL)
    return np.where(self.liked(rating), of_liked, of_others).astype(np.float32)

  def judge(self, rating: np.ndarray) -> JudgedRatings:
    """Likes and relevance together. Args: rating: [R], the training ratings of all users."""
    return JudgedRatings(self.liked(rating), self.relevance(rating))
