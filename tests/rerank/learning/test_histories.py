"""Histories as training examples: every line is predicted from those before it."""

import numpy as np
import pytest
from helpers.rerank_rows import TITLES, rows
from helpers.tiny_reranker import tiny_reranker

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.rerank.learning.histories import history_examples

TRAIN = rows((0, 0, 5, 3), (0, 1, 2, 1), (0, 2, 4, 2), (0, 3, 3, 4), (2, 7, 5, 1))
USERS = np.array([0, 1, 2], np.int32)


@pytest.fixture(scope="module")
def model():
  return tiny_reranker(TITLES)


def examples(model, train=TRAIN, epoch=0, **settings):
  return history_examples(
    model, train, USERS, epoch, titles=TITLES, feedback=Feedback(), **settings
  )


def texts(model, found):
  return [
    (
      model.tokenizer.decode(one.prompt, skip_special_tokens=True),
      model.tokenizer.decode(one.completion),
    )
    for one in found
  ]


def test_the_lines_follow_in_temporal_order(model):
  # The neutral rating is left out, and so is the user without ratings.
  first, second = texts(model, examples(model))
  assert first == (
    "History, oldest first\n",
    f"disliked: {TITLES[1]}\nliked: {TITLES[2]}\nliked: {TITLES[0]}\n",
  )
  assert second == ("History, oldest first\nliked", f": {TITLES[7]}\n")


def test_each_epoch_draws_other_ratings(model):
  many = rows(*((0, item, 5, item) for item in range(8)))
  drawn = [texts(model, examples(model, many, epoch, liked=2))[0][1] for epoch in range(9)]
  assert all(text.count("\n") == 3 for text in drawn) and len(set(drawn)) > 3
  again = texts(model, examples(model, many, 4, liked=2))[0][1]
  assert again == drawn[4]


def test_without_times_the_order_is_random(model):
  still = rows(*((0, item, 5, 0) for item in range(8)))
  drawn = {texts(model, examples(model, still, epoch))[0][1] for epoch in range(5)}
  assert len(drawn) == 5 and all(sorted(text) == sorted(next(iter(drawn))) for text in drawn)


def test_a_history_longer_than_the_context_loses_its_oldest_lines():
  short = tiny_reranker(TITLES, context=48)
  many = rows(*((0, item, 5, item) for item in range(8)))
  ((prompt, completion),) = texts(short, examples(short, many))
  assert prompt.startswith("History") and completion.endswith(f"{TITLES[7]}\n")
  assert 0 < completion.count("\n") < 8
