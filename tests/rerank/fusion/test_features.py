"""Features to fuse in addition to a language model's scores."""

import numpy as np
import pytest
from helpers.rerank_rows import prepared, rows

from gatrec_jax.errors import InputError
from gatrec_jax.rerank.candidates import judged
from gatrec_jax.rerank.fusion.features import extra_features

ROWS = rows(
  (0, 0, 5, 100), (1, 0, 4, 300), (2, 0, 1, 200), (2, 1, 5, 50), (0, 2, 5, 900), num_items=4
)
DATA = prepared(ROWS, train=range(4), test=[4])
PART = judged(
  np.array([0, 1], np.int32),
  np.array([[1, 3, 0], [2, 1, -1]], np.int32),
  np.array([[3, 2, 1], [2, 1, -np.inf]], np.float32),
  DATA.test,
  DATA.feedback,
  top=3,
)


def feature(name, vectors=None):
  return extra_features(PART, [name], prepared=DATA, text_vectors=vectors)[name]


def test_popularity_counts_training_positives_alone():
  expected = [[np.log(2), 0, np.log(3)], [0, np.log(2), np.nan]]
  np.testing.assert_allclose(feature("popularity"), expected, rtol=1e-6)


def test_recency_is_the_latest_training_rating():
  np.testing.assert_allclose(feature("recency"), [[-250, np.nan, 0], [np.nan, -250, np.nan]])


def test_text_is_a_cosine():
  vectors = np.zeros((7, 2), np.float32)
  vectors[0], vectors[1] = (2, 0), (0, 3)
  vectors[3:] = [(1, 1), (5, 0), (0, 1), (0, 0)]
  expected = [[1, 0, 2**-0.5], [1, 0, np.nan]]
  np.testing.assert_allclose(feature("text", vectors), expected, rtol=1e-6)
  with pytest.raises(InputError, match="features=text: this run has no text vectors"):
    feature("text")


def test_unknown_features_are_refused():
  with pytest.raises(InputError, match="features=taste: must be any of popularity, text, recency"):
    feature("taste")
