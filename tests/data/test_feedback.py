"""Grades of ratings by hand, on any scale."""

import numpy as np
import pytest

from gatrec_jax.data.feedback import read_feedback
from gatrec_jax.data.interactions import Interactions


def feedback(ratings, positive, negative):
  count = len(ratings)
  rows = Interactions(
    np.zeros(count, np.int32),
    np.arange(count, dtype=np.int32),
    np.array(ratings, np.float32),
    np.zeros(count, np.int64),
    ("0",),
    tuple(map(str, range(count))),
  )
  return read_feedback(rows, positive_threshold=positive, negative_threshold=negative)


@pytest.mark.parametrize(
  "ratings, positive, negative, relevance",
  [
    ([1, 2, 3, 4, 5], 4, 2, [0.05, 0.05, 0.25, 0.8, 1.0]),
    ([0.5, 3.5, 4.5], 4, 2, [0.05, 0.25, 1.0]),  # the highest rating there is counts 1
    ([4, 4.5, 5], 4, 2, [0.8, 0.9, 1.0]),
    ([3, 4, 5], 3, 2, [0.8, 0.9, 1.0]),  # RecBole's protocols
    ([10, 70, 100], 60, 40, [0.05, 0.85, 1.0]),
    ([1, 1, 1], 1, 0, [1, 1, 1]),  # implicit feedback
    ([4, 4, 1], 4, 2, [1, 1, 0.05]),
    ([1, 2], 4, 2, [0.05, 0.05]),
  ],
)
def test_grades_by_hand(ratings, positive, negative, relevance):
  got = feedback(ratings, positive, negative)
  np.testing.assert_allclose(got.relevance, relevance, rtol=1e-6)
  assert got.relevance.dtype == np.float32
  np.testing.assert_array_equal(got.liked, np.array(ratings) >= positive)


def test_no_ratings():
  assert feedback([], 4, 2).relevance.shape == (0,)
