"""Answers: profiles of every kind fit the schema, and what fits it becomes a valid profile."""

import json

import hypothesis
import pytest
from helpers.paths import SHARED
from hypothesis import strategies as st

from gatrec_jax.lm.constraints.json_schema import Items, Record, read_schema
from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile
from gatrec_jax.profiles.writer.answers import (
  answer_form,
  answer_tokens,
  item_limits,
  read_answer,
  user_limits,
)

PUBLISHED = SHARED / "data" / "published"
FIELDS = ("overview", "genres", "tags", "description", "dislikes")
prose = st.text(max_size=60)
keywords = st.lists(st.text(max_size=20), max_size=5)
answers = st.fixed_dictionaries(
  {
    "overview": prose,
    "genres": keywords,
    "tags": keywords,
    "description": prose,
    "dislikes": keywords,
  }
)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(answers)
@hypothesis.example(
  {
    "overview": "## Dislikes",
    "genres": ["a, b", "(open"],
    "tags": ["- **Genre**: x", "- y"],
    "description": "# T\n- z",
    "dislikes": ["*", "## Overview"],
  }
)
def test_any_answer_is_recovered_from_its_rendering(answer):
  profile = read_answer(answer)
  assert parse_profile(render_profile(profile)) == profile


def test_answers_are_cleaned():
  profile = read_answer(
    {
      "overview": " ## Two\n lines. ",
      "tags": ["Heist, (bank)", "heist bank", " ", "Rain."],
      "description": "One sentence. Another one. A third that is cu",
      "genres": ["made up"],
      "dislikes": ["- War"],
    },
    name="Heat",
    genres=("Crime",),
  )
  assert profile == Profile(
    "Heat", "Two lines.", ("Crime",), ("Heist bank", "Rain"), "One sentence. Another one.", ("War",)
  )
  assert read_answer({"summary": "Likes rain"}) == Profile(overview="Likes rain")
  # A half sentence that is most of the text stays.
  assert read_answer({"overview": "Mr. and a long text without end"}).overview.endswith("end")


def test_limits_grow_with_the_context_and_the_tokens():
  assert [answer_tokens(context) for context in (512, 2048, 32_768)] == [153, 614, 1024]
  small, large = (user_limits(answer_tokens(c), 4.5) for c in (512, 8192))
  assert small.prose["overview"] < large.prose["overview"] == 860
  assert large.keywords == {"genres": (18, 60), "tags": (64, 60), "dislikes": (30, 120)}
  # A tokenizer of single letters writes less in as many tokens.
  assert user_limits(1024, 1.0).prose["overview"] == round(0.24 * 0.8 * (1024 - 130))
  for limits in (user_limits(10, 1.0), item_limits(10, 1.0)):
    assert min(limits.prose.values()) >= 24
    assert all(count >= 2 and length >= 16 for count, length in limits.keywords.values())


def test_the_schema_enumerates_genres_if_they_are_few():
  limits = item_limits(1024, 4.5)
  form = answer_form(("overview", "genres"), limits, genres=("War", "Crime", "War"))
  assert form["properties"]["genres"]["items"] == {"enum": ["Crime", "War"]}
  for genres in ((), [f"g{n}" for n in range(65)]):
    items = answer_form(("genres",), limits, genres=genres)["properties"]["genres"]["items"]
    assert items == {"type": "string", "minLength": 3, "maxLength": limits.keywords["genres"][1]}
  shape = read_schema(answer_form(FIELDS, limits))
  assert isinstance(shape, Record) and [name for name, _ in shape.fields] == list(FIELDS)
  tags = dict(shape.fields)["tags"]
  assert isinstance(tags, Items) and (tags.minimum, tags.maximum) == (1, limits.keywords["tags"][0])


def fits(profile, limits):
  counts = all(
    1 <= len(getattr(profile, field)) <= count
    and all(len(entry) <= length for entry in getattr(profile, field))
    for field, (count, length) in limits.keywords.items()
  )
  return counts and all(
    0 < len(getattr(profile, field)) <= limits.prose[field] for field in ("overview", "description")
  )


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/data")
def test_published_profiles_fit_the_limits_of_a_current_model():
  def texts(name, field="profile"):
    lines = (PUBLISHED / name).read_text("utf-8").splitlines()
    return [json.loads(line)[field] for line in lines]

  items = [parse_profile(text) for text in texts("profiles_ml100k_items.jsonl")]
  assert all(fits(one, item_limits(1024, 4.5)) for one in items)
  users = [parse_profile(text) for text in texts("profiles_ml100k_users.jsonl")]
  whole = [one for one in users if one.dislikes]
  limits = user_limits(1024, 4.5)
  assert len(whole) > 890 and sum(fits(one, limits) for one in whole) / len(whole) > 0.92
  for name in ("summaries_ml100k_users.jsonl", "summaries_ml1m_users.jsonl"):
    assert all(0 < len(text) <= limits.prose["summary"] for text in texts(name, "summary"))
