"""Contexts: what prompts say about users."""

import numpy as np
import pytest
from helpers.rerank_rows import TITLES, prepared, rows
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.rerank.prompting.contexts import make_contexts
from gatrec_jax.rerank.prompting.prompts import choice_prompt

TRAIN = rows(
  (0, 3, 5, 40),
  (0, 1, 4, 10),
  (0, 2, 1, 30),
  (0, 4, 3, 35),
  (0, 5, 5, 10),
  (0, 0, 2, 5),
  (2, 6, 4.5, 7),
)
PROFILES = [
  "## Overview\nx\n\n## Attributes\n- **Genre**: Drama, War\n",
  None,
  "Likes  calm\nfilms.",
]


def contexts(train=TRAIN, users=(0, 1, 2), **settings):
  return make_contexts(
    train, np.array(users), titles=TITLES, profiles=PROFILES, feedback=Feedback(), **settings
  )


def test_histories_are_in_temporal_order_without_neutral_ratings():
  first, second, third = contexts()
  assert first.history == (
    (TITLES[0], False),
    (TITLES[1], True),
    (TITLES[5], True),
    (TITLES[2], False),
    (TITLES[3], True),
  )
  assert first.profile == "Genres: Drama, War."
  assert second.history == () and second.profile == ""
  assert third.history == ((TITLES[6], True),) and third.profile == "Likes calm films."


def test_only_the_latest_of_each_kind_are_kept():
  first, _, _ = contexts(liked=2, disliked=1)
  assert first.history == ((TITLES[5], True), (TITLES[2], False), (TITLES[3], True))
  assert contexts(liked=0, disliked=0)[0].history == ()


@pytest.mark.parametrize("most", [3, 4, 5, 99])
def test_a_history_shorter_than_the_limit_is_whole(most):
  # Three likes and two dislikes, with limits just above and far above these numbers.
  assert contexts(liked=most, disliked=most)[0].history == contexts()[0].history


def test_drawn_histories_are_subsequences_of_the_history():
  whole = contexts()[0].history
  seen = set()
  for seed in range(30):
    drawn = contexts(liked=2, disliked=1, draws=np.random.default_rng(seed))[0].history
    places = [whole.index(entry) for entry in drawn]
    assert places == sorted(places) and sum(liked for _, liked in drawn) == 2
    seen.add(drawn)
  assert len(seen) == 6  # 3 choose 2 liked, either of two disliked


@given(st.permutations(range(len(TRAIN))))
def test_the_order_of_rows_does_not_matter(order):
  assert contexts(TRAIN.take(np.array(order))) == contexts()


@pytest.mark.parametrize("change", ["deleted", "permuted", "raised"])
def test_prompts_do_not_depend_on_held_out_ratings(change):
  everything = rows(
    *zip(TRAIN.user, TRAIN.item, TRAIN.rating, TRAIN.timestamp, strict=True),
    (0, 6, 5, 99),
    (0, 7, 1, 98),
    (2, 1, 5, 97),
    (1, 0, 5, 96),
    (1, 2, 1, 95),
  )
  parts = {"train": range(7), "valid": [7, 8], "test": [9, 10, 11]}
  before = prepared(everything, **parts)
  if change == "deleted":
    after = prepared(everything, train=range(7), valid=[7])
  else:
    rating, item = everything.rating.copy(), everything.item.copy()
    rating[7:] = 5 if change == "raised" else rating[7:][::-1]
    item[7:] = item[7:] if change == "raised" else item[7:][::-1]
    changed = type(everything)(
      everything.user, item, rating, everything.timestamp, everything.user_ids, everything.item_ids
    )
    after = prepared(changed, **parts)
  texts = [
    [choice_prompt(context, TITLES[:4]).encode() for context in contexts(one.train)]
    for one in (before, after)
  ]
  assert texts[0] == texts[1]
