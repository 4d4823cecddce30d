"""The audit of profiles: figures and AUC solved by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.profiles.audit import Grounding, liked_auc, own_texts, text_figures
from gatrec_jax.profiles.schema import Profile, render_profile

FIELDS = {
  "title": "Night Train (1959)",
  "genres": ["Crime"],
  "overview": "Two strangers share a sleeper compartment.",
  "director": "Jerzy Kawalerowicz",
}
GOOD = Profile(
  name="Night Train",
  overview=FIELDS["overview"],
  genres=("Crime",),
  tags=("strangers", "tense"),
  description="A tense crime film about strangers.",
  dislikes=("Comedy",),
)
BAD = Profile(
  name="Night Train",
  overview="By Leon Niemczyk and Jerzy Kawalerowicz.",
  genres=("Crime", "Comedy"),
  tags=("crime",),
  description="A dog and the cat and the cat.",
  dislikes=("train",),
)
PEOPLE = {"Jerzy Kawalerowicz", "Leon Niemczyk"}


def figures(*profiles):
  texts = [render_profile(one) for one in profiles]
  return text_figures(
    texts, [FIELDS] * len(texts), people=PEOPLE, judgment=("tense", "film", "films")
  )


def test_a_given_overview_is_not_the_profiles_own():
  assert own_texts(GOOD, FIELDS) == [GOOD.description, "strangers, tense"]
  assert own_texts(BAD, FIELDS)[0] == BAD.overview


def test_figures_solved_by_hand():
  good = figures(GOOD)
  assert (good.schema, good.loops, good.copied, good.restated) == (1, 0, 0, 0)
  # crime, strangers, strangers; "tense" is judgment both times, "film" says nothing.
  assert good.words == Grounding(3, 3) and (good.judgment, good.own_words) == (2, 5)
  assert good.genres == Grounding(1, 1) and good.people == Grounding()
  assert good.shares()["people"] is None and good.shares()["grounded"] == 1
  bad = figures(BAD)
  assert (bad.loops, bad.copied, bad.restated) == (1, 1, 1)
  assert bad.genres == Grounding(2, 1) and bad.people == Grounding(2, 1)
  # leon, niemczyk, dog, cat, cat are not in the metadata; jerzy, kawalerowicz and crime are.
  assert bad.words == Grounding(8, 3)
  both = figures(GOOD, BAD)
  assert both.profiles == 2 and both.words == Grounding(11, 6)
  assert both.grounded == Grounding(3 + 11 + 2, 2 + 6 + 1)
  assert both.shares()["loops"] == 0.5
  assert figures(Profile(name="Night Train", genres=("Crime",))).schema == 0


def test_tags_are_read_one_by_one():
  tags = ("brother", "brother's wife", "brother and sister")
  assert figures(dataclasses.replace(GOOD, tags=tags)).loops == 0
  assert figures(dataclasses.replace(GOOD, tags=("brother brother",))).loops == 1


def plain_auc(vectors, liked, rated):
  """By its definition, one triple after another."""
  shares = []
  unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
  for i in liked:
    for j in liked:
      for r in range(len(vectors)):
        if i != j and r not in rated:
          one, other = unit[i] @ unit[j], unit[i] @ unit[r]
          shares.append(1.0 if one > other else 0.5 if one == other else 0.0)
  return np.mean(shares) if shares else np.nan


def test_auc_solved_by_hand():
  vectors = np.array([[1, 0], [2, 0], [0, 1], [1, 1], [0, 0]], np.float32)
  liked = [np.array(one) for one in ([0, 1], [0, 2], [0], [0, 1, 2, 3, 4])]
  rated = [np.array(one) for one in ([0, 1], [0, 2, 3], [0], [0, 1, 2, 3, 4])]
  found = liked_auc(vectors, liked, rated)
  # 0 and 1 are parallel. 0 and 2 have a cosine of 0, as with 4, and 1 is nearer to 0 only.
  assert found[0] == 1 and found[1] == pytest.approx((0.25 + 0.5) / 2)
  assert np.isnan(found[2:]).all()  # one liked item; nothing unrated


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_auc_is_that_of_its_definition(seed):
  random = np.random.default_rng(seed)
  vectors = random.integers(-1, 2, (7, 3)).astype(np.float64)
  rated = random.permutation(7)[: random.integers(0, 8)]
  liked = rated[: random.integers(0, len(rated) + 1)]
  (found,) = liked_auc(vectors, [np.sort(liked)], [rated])
  assert found == pytest.approx(plain_auc(vectors, liked, rated), nan_ok=True)
