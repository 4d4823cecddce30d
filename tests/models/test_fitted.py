"""Baselines as functions: one call from interactions to scores."""

import numpy as np
import pytest

from gatrec_jax.config.models import EaseConfig, ItemKnnConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models import fit
from gatrec_jax.models.linear.dense import ridge_weights

TABLE = np.array([[5, 4, 0, 1], [4, 5, 4, 0], [5, 0, 2, 0], [0, 0, 0, 0]])


def interactions():
  user, item = np.nonzero(TABLE)
  return Interactions.from_indices(user, item, TABLE[user, item], num_users=4, num_items=4)


@pytest.mark.parametrize("model", ["popularity", "item_knn", "ease_rated", "slim", "admm_slim"])
def test_a_name_is_enough(model):
  fitted = fit(model, interactions())
  scores = np.asarray(fitted.score([0, 2]))
  assert scores.shape == (2, 4) and scores.dtype == np.float32 and np.isfinite(scores).all()
  items, best = fitted.top_items([0, 2], k=4)
  assert items.tolist()[0][1:] == [-1, -1, -1]  # the other three are rated
  assert items[1, 0] in (1, 3) and best[1, 0] == scores[1, items[1, 0]]
  everything, _ = fitted.top_items([0], k=4, exclude_seen=False)
  assert sorted(everything[0].tolist()) == [0, 1, 2, 3]


def test_settings_by_name_or_as_an_object_give_the_same():
  rows = interactions()
  liked = (TABLE >= 4).astype(np.float32)
  by_name, by_object = fit("ease", rows, l2=2.0), fit(EaseConfig(2.0), rows)
  np.testing.assert_array_equal(by_name.score([0, 1]), by_object.score([0, 1]))
  expected = liked @ np.asarray(ridge_weights(liked.T @ liked, np.float32([2.0]))[0])
  np.testing.assert_allclose(by_name.score([0, 1, 2, 3]), expected, atol=1e-6)
  assert fit(EaseConfig(2.0), rows, l2=3.0).recommender.settings.l2 == 3.0


def test_feedback_says_what_is_liked():
  fitted = fit("popularity", interactions(), feedback=Feedback(5.0, 1.0))
  assert fitted.score([3]).tolist() == [[2.0, 1.0, 0.0, 0.0]]


def test_text_is_read_by_the_models_that_need_it():
  text = np.zeros((8, 2), np.float32)
  text[4:] = [[1, 0], [1, 0], [0, 1], [1, 1]]
  fitted = fit("content_knn", interactions(), text=text)
  assert fitted.top_items([2], k=1)[0].tolist() == [[1]]  # its text is that of item 0
  with pytest.raises(InputError, match="content_knn reads text vectors"):
    fit("content_knn", interactions())


@pytest.mark.parametrize(
  ("model", "settings", "message"),
  [
    ("eas", {}, "model=eas: unknown; there are popularity, item_knn, ease"),
    ("ease", {"alpha": 1.0}, "alpha: ease has no such setting; it has l2, relevance"),
    ("popularity", {"l2": 1.0}, "l2: popularity has no such setting; it has no settings"),
    (ItemKnnConfig(), {"l2": 1.0}, "l2: item_knn has no such setting; it has neighbors"),
    ("ease", {"l2": -1.0}, "l2=-1.0: must lie in"),
    ("ease", {"relevance": "some"}, "relevance=some: must be one of binary, graded"),
    ("bpr_mf", {}, "model: bpr_mf learns by gradient steps"),
    ("ease", {"feedback": Feedback(6.0)}, "positive_threshold=6: no training rating reaches"),
  ],
)
def test_wrong_calls_are_refused(model, settings, message):
  with pytest.raises(InputError, match=message):
    fit(model, interactions(), **settings)
