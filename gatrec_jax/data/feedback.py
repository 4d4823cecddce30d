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
_SCALE = 5.0


@dataclasses.dataclass(frozen=True)
class JudgedRatings:
  """What R ratings mean, as arrays.

  Attributes:
    liked: [R] bool, the positives.
    relevance: [R] float32 in (0, 1].
    scaled: [R] float32, the ratings on a scale that ends at 5, as features of edges.
  """

  liked: np.ndarray
  relevance: np.ndarray
  scaled: np.ndarray


@dataclasses.dataclass(frozen=True)
class Feedback:
  """Which ratings count as liked and as disliked. Implicit feedback is `Feedback(1.0, 0.0)`.

  Counts and weights of events are likes where they are above 0, and dislikes below.

  >>> Feedback(positive_threshold=3.5).liked(np.array([2.0, 3.5, 5.0])).tolist()
  [False, True, True]
  >>> Feedback(kind="counts").liked(np.array([1.0, 250.0])).tolist()
  [True, True]

  Attributes:
    positive_threshold: ratings at or above it are likes, the positives.
    negative_threshold: ratings at or below it are dislikes, the explicit negatives.
    kind: what a rating is: `stars` (on a scale), `implicit` (always 1), `counts` (how often) or
      `events` (the weight of what happened). The thresholds are those of stars and implicit.
  """

  positive_threshold: float = 4.0
  negative_threshold: float = 2.0
  kind: str = "stars"

  def __post_init__(self) -> None:
    if not self.negative_threshold < self.positive_threshold:
      raise InputError(
        f"must lie below `positive_threshold={self.positive_threshold:g}`",
        field="negative_threshold",
        value=f"{self.negative_threshold:g}",
      )

  def liked(self, rating: Any) -> Any:
    """Whether each rating counts as liked. Args: rating: a number, or [R] of them."""
    return rating > 0 if self._is_signed else rating >= self.positive_threshold

  def disliked(self, rating: Any) -> Any:
    """Whether each rating counts as disliked. Args: rating: a number, or [R] of them."""
    return rating < 0 if self._is_signed else rating <= self.negative_threshold

  @property
  def _is_signed(self) -> bool:
    return self.kind in ("counts", "events")

  def relevance(self, rating: np.ndarray) -> np.ndarray:
    """How much each of a data set's ratings says that its user wants more of the kind.

    Args: rating: [R], the training ratings of all users.
    Returns: [R] float32 in (0, 1]: 1 for the highest rating, `LOWEST_LIKE` at the positive
      threshold and linear between the two; `NEUTRAL`; `DISLIKE`. 1 throughout where all ratings are
      equal likes. Of counts: `NEUTRAL` for next to nothing, 1 from the 99th percentile on, and
      between the two linear in log(1 + count), as the confidence of Hu et al. 2008, eq. 6. Of
      events: the share of the largest weight.
    """
    exact = rating.astype(np.float64)
    if self.kind == "counts":
      return _of_counts(exact)
    if self.kind == "events":
      share = exact / max(exact.max(initial=0.0), 1e-12)
      return np.where(exact > 0, np.maximum(share, DISLIKE), DISLIKE).astype(np.float32)
    span = exact.max(initial=self.positive_threshold) - self.positive_threshold
    share = (exact - self.positive_threshold) / span if span > 0 else np.ones_like(exact)
    of_liked = LOWEST_LIKE + (1 - LOWEST_LIKE) * share
    of_others = np.where(self.disliked(rating), DISLIKE, NEUTRAL)
    return np.where(self.liked(rating), of_liked, of_others).astype(np.float32)

  def judge(self, rating: np.ndarray) -> JudgedRatings:
    """Everything that ratings mean. Args: rating: [R], the training ratings of all users."""
    return JudgedRatings(self.liked(rating), self.relevance(rating), self._scaled(rating))

  def _scaled(self, rating: np.ndarray) -> np.ndarray:
    """[R] float32 ratings as they are up to 5, on other scales divided, counts by logarithm."""
    if self.kind == "counts":
      return (_SCALE * _share_of_usual(rating.astype(np.float64))).astype(np.float32)
    highest = float(np.abs(rating).max(initial=0))
    if highest <= _SCALE:
      return rating.astype(np.float32)
    return (rating * (_SCALE / highest)).astype(np.float32)


def _of_counts(count: np.ndarray) -> np.ndarray:
  """[R] float32 relevance of counts."""
  return (NEUTRAL + (1 - NEUTRAL) * _share_of_usual(count)).astype(np.float32)


def _share_of_usual(count: np.ndarray) -> np.ndarray:
  """[R] float64 in [0, 1]: log(1 + count), divided by that of the 99th percentile."""
  if not len(count):
    return count
  # A few users who play one song all day would make everything else look alike.
  usual = max(np.quantile(count, 0.99, method="lower"), 1e-12)
  return np.minimum(np.log1p(np.maximum(count, 0.0)) / np.log1p(usual), 1.0)
