"""The schema of profiles: rendering, parsing texts of models, and the published files."""

import collections
import json
import re

import hypothesis
import pytest
from helpers.paths import PUBLISHED
from hypothesis import strategies as st

from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile

letters = st.characters(categories=["L", "N"], include_characters="' -.")
clean = st.text(letters, min_size=1, max_size=12).map(lambda t: t.strip(" -.")).filter(bool)
keywords = st.lists(clean, max_size=4).map(tuple)
sentences = st.lists(clean, max_size=3).map(". ".join)
profiles = st.builds(
  Profile,
  name=st.none() | clean,
  overview=sentences,
  genres=keywords,
  tags=keywords,
  description=sentences,
  dislikes=keywords,
)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(profiles)
def test_a_rendered_profile_is_parsed_back(profile):
  assert parse_profile(render_profile(profile)) == profile


def test_dislikes_with_commas_survive():
  profile = Profile(dislikes=("Comedy (broad, slapstick)", "Sad, slow endings", "War"))
  assert parse_profile(render_profile(profile)) == profile


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.text(st.sampled_from("#-*: \nGenreTagsDislikesOverview,()"), max_size=80))
def test_any_text_parses(text):
  parse_profile(text)


FULL = """# Heat

## Overview
Two men.

## Attributes
- **Genre**: Crime, Drama
- **Tags**: Heist, Police (LA, 1990s)

## Description
First line.
Second line.

## Dislikes:
- Comedy
- Family, children
"""


def test_known_variants_are_parsed():
  expected = Profile(
    name="Heat",
    overview="Two men.",
    genres=("Crime", "Drama"),
    tags=("Heist", "Police (LA, 1990s)"),
    description="First line.\nSecond line.",
    dislikes=("Comedy", "Family, children"),
  )
  assert parse_profile(FULL) == expected
  assert parse_profile(FULL.replace("\n", "  \r\n")) == expected
  assert parse_profile(FULL.replace("- **Genre**:", "* **Genres:**")) == expected
  assert parse_profile(FULL.replace("# Heat\n", "", 1)).name is None
  one_line = FULL.replace("- Comedy\n- Family, children", "Comedy, Family")
  assert parse_profile(one_line).dislikes == ("Comedy", "Family")
  same_line = FULL.replace("## Dislikes:\n- Comedy\n- Family, children", "## Dislikes: Comedy, War")
  assert parse_profile(same_line).dislikes == ("Comedy", "War")


def test_truncated_and_empty_texts_are_parsed():
  for end in ("## Dis", "## Dislikes", "## Dislikes:\n"):
    cut = FULL[: FULL.index("## Dislikes")] + end
    assert parse_profile(cut).dislikes == ()
    assert parse_profile(cut).description == "First line.\nSecond line."
  assert parse_profile(FULL[: FULL.index("Second")]).description == "First line."
  for empty in ("", "  \n ", "no headings at all"):
    assert parse_profile(empty) == Profile()


def read(name):
  if not PUBLISHED.is_dir():
    pytest.skip("../shared/data is not here")
  lines = (PUBLISHED / name).read_text(encoding="utf-8").splitlines()
  return [json.loads(line)["profile"] for line in lines]


def test_published_item_profiles():
  texts = read("profiles_ml100k_items.jsonl")
  parsed = [parse_profile(text) for text in texts]
  assert len(parsed) == 1591
  for profile in parsed:
    assert profile.name and profile.overview and profile.genres and profile.tags
    assert profile.description and profile.dislikes
    assert parse_profile(render_profile(profile)) == profile
  bulleted = [bool(re.search(r"## Dislikes:\s*\n- ", text)) for text in texts]
  assert collections.Counter(bulleted) == {True: 867, False: 724}


def test_published_user_profiles():
  texts = read("profiles_ml100k_users.jsonl")
  parsed = [parse_profile(text) for text in texts]
  assert len(parsed) == 942
  assert all(p.name is None and p.overview and p.genres and p.tags for p in parsed)
  cut_off = ["## Dislikes" not in text for text in texts]
  assert sum(cut_off) == 33
  without = [not profile.dislikes for profile in parsed]
  assert sum(without) == 33 + 3
  assert all(p.description for p, cut in zip(parsed, cut_off) if not cut)
