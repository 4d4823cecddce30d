"""Answers: profiles of every kind fit the schema, and what fits it becomes a valid profile."""

import hypothesis
from hypothesis import strategies as st

from gatrec_jax.lm.constraints.schema import Items, Record, Sentence, read_schema
from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile
from gatrec_jax.profiles.writer.answers import (
  answer_form,
  answer_tokens,
  chosen,
  read_answer,
  sentence,
)

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
  # Moods are tags, and what is known without the model stays.
  assert read_answer({"tags": ["Rain"], "moods": ["sad", "rain"]}).tags == ("Rain", "sad")
  assert read_answer({"summary": "Likes rain"}) == Profile(overview="Likes rain")
  # A half sentence that is most of the text stays.
  assert read_answer({"overview": "Mr. and a long text without end"}).overview.endswith("end")


def test_the_answer_takes_a_share_of_the_context():
  assert [answer_tokens(context) for context in (512, 2048, 32_768)] == [204, 320, 320]


def test_forms_are_schemas_of_what_may_be_answered():
  form = answer_form(
    {
      "tags": chosen(["rain", "harbor"], (3, 5)),
      "dislikes": chosen([f"g{n}" for n in range(6)], (2, 3)),
      "description": sentence(["rain"], ["of"], ["A"], (2, 9)),
    }
  )
  shape = read_schema(form)
  assert isinstance(shape, Record)
  fields = dict(shape.fields)
  assert list(fields) == ["tags", "dislikes", "description"]
  tags, dislikes = fields["tags"], fields["dislikes"]
  assert isinstance(tags, Items) and tags.item.texts == ('"rain"', '"harbor"')
  # Two terms are no more than two, however many are wanted.
  assert (tags.minimum, tags.maximum, tags.ordered) == (2, 2, True)
  assert (dislikes.minimum, dislikes.maximum) == (2, 3)
  assert fields["description"] == Sentence(("rain",), ("of",), ("A",), 2, 9)
