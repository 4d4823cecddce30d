"""What ratings mean: likes, dislikes and relevance, by hand and on any scale."""

import numpy as np
import pytest

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError


@pytest.mark.parametrize(
  "ratings, feedback, relevance",
  [
    ([1, 2, 3, 4, 5], Feedback(), [0.05, 0.05, 0.25, 0.8, 1.0]),
    ([0.5, 3.5, 4.5], Feedback(), [0.05, 0.25, 1.0]),  # the highest rating present counts 1
    ([4, 4.5, 5], Feedback(), [0.8, 0.9, 1.0]),
    ([3, 4, 5], Feedback(3, 2), [0.8, 0.9, 1.0]),  # RecBole's protocols
    ([10, 70, 100], Feedback(60, 40), [0.05, 0.85, 1.0]),
    ([1, 1, 1], Feedback(1, 0), [1, 1, 1]),  # implicit feedback
    ([4, 4, 1], Feedback(), [1, 1, 0.05]),
    ([1, 2], Feedback(), [0.05, 0.05]),
    ([], Feedback(), []),
  ],
)
def test_relevance_by_hand(ratings, feedback, relevance):
  ratings = np.array(ratings, np.float32)
  judged = feedback.judge(ratings)
  np.testing.assert_allclose(judged.relevance, relevance, rtol=1e-6)
  assert judged.relevance.dtype == np.float32
  np.testing.assert_array_equal(judged.liked, ratings >= feedback.positive_threshold)
  np.testing.assert_array_equal(judged.liked, feedback.liked(ratings))
  np.testing.assert_array_equal(judged.relevance, feedback.relevance(ratings))


def test_likes_and_dislikes_of_arrays_and_of_single_ratings():
  feedback = Feedback(3.3, 1.5)
  ratings = np.array([1.5, 1.6, 3.2, 3.3], np.float32)  # 3.3 is not exact in float32
  assert feedback.liked(ratings).tolist() == [False, False, False, True]
  assert feedback.disliked(ratings).tolist() == [True, False, False, False]
  assert feedback.judge(ratings).relevance[3] == np.float32(1.0)
  assert feedback.liked(4.0) and not feedback.liked(3.0) and feedback.disliked(1.0)


def test_it_is_a_value():
  assert Feedback() == Feedback(4.0, 2.0) and hash(Feedback()) == hash(Feedback(4, 2))


@pytest.mark.parametrize("negative", [4.0, 5.0, float("nan")])
def test_a_dislike_must_lie_below_a_like(negative):
  with pytest.raises(
    InputError, match=r"negative_threshold=.*must lie below `positive_threshold=4`"
  ):
    Feedback(4.0, negative)


def test_ratings_as_features_end_at_five_on_every_scale():
  stars, percent = np.array([1, 3.5, 5], np.float32), np.array([0, 50, 100], np.float32)
  np.testing.assert_array_equal(Feedback().judge(stars).scaled, stars)
  np.testing.assert_allclose(Feedback(80, 40).judge(percent).scaled, [0, 2.5, 5])
  np.testing.assert_allclose(Feedback(6, -2).judge(np.float32([-10, 10])).scaled, [-5, 5])
  counts = Feedback(kind="counts").judge(np.float32([1, 99, 99, 99])).scaled
  np.testing.assert_allclose(counts, [5 * np.log(2) / np.log(100), 5, 5, 5], rtol=1e-6)
  assert Feedback().judge(np.zeros(0, np.float32)).scaled.dtype == np.float32
