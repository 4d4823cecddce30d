"""Checks of written profiles find names and empty sections, and nothing else."""

import json

import pytest
from helpers.paths import SHARED

from gatrec_jax.profiles.schema import Profile, parse_profile
from gatrec_jax.profiles.writer.checks import (
  Names,
  common_terms,
  item_problems,
  title_forms,
  user_problems,
  without_title,
)

PUBLISHED = SHARED / "data" / "published"
SECTIONS = ("overview", "genres", "tags", "description", "dislikes")
FIELDS = [
  {"title": "Matrix, The (1999)", "actors": "Keanu Reeves, Cher"},
  {"title": "Heat (1995)", "director": "Michael Mann"},
  {"title": "Dead Man (1995)"},
  {"title": "Dead Man Walking (1995)"},
  {"title": "Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)"},
  {"title": "'Til There Was You (1997)"},
  {"title": "True Crime (1999)"},
  {},
]
GOOD = Profile(
  overview="Slow crime.",
  genres=("Crime",),
  tags=("Heist",),
  description="Long nights.",
  dislikes=("Comedy",),
)


def test_titles_have_several_forms():
  assert title_forms("Matrix, The (1999)") == [("Matrix, The", "1999"), ("The Matrix", "1999")]
  assert dict(title_forms("Il Postino (1994)")) == {"Il Postino": "1994"}
  assert ("Shanghai Triad", "1995") in title_forms(FIELDS[4]["title"])
  assert title_forms("") == []


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("films like The Matrix.", ['title "The Matrix"']),
    ("films like Matrix, The", ['title "Matrix, The"']),
    ("in the matrix of The Matrixes", []),
    ("A prison drama, Dead Man Walking, again", ['title "Dead Man Walking"']),
    ("a Dead Man's chest", ['title "Dead Man"']),
    ("the heat of Heat and heat", []),
    ('likes "Heat" best', ['title "Heat"']),
    ("likes “Heat” and Heat (1995)", ['title "Heat"']),
    ("a year, Heat (1994)", []),
    ("Til There Was You", ['title "Til There Was You"']),
    (
      "Keanu Reeves and Michael Mann, Keanu Reeves",
      ['person "Keanu Reeves"', 'person "Michael Mann"'],
    ),
    ("Cher, Keanu, Mann", []),
  ],
)
def test_names_are_found_by_whole_words_and_case(text, found):
  assert Names(FIELDS).found(text) == found


def test_common_keywords_are_not_taken_for_titles():
  profiles = [
    Profile(name="Chinatown", tags=("True Crime",)),
    Profile(name="Zodiac", tags=("True Crime",)),
    Profile(name="True Crime", tags=("True Crime",)),
    None,
    Profile(name="Mystic", tags=("Heat",)),
  ]
  assert common_terms(profiles) == {"True Crime"}
  names = Names(FIELDS, terms=common_terms(profiles))
  assert names.found("True Crime, The Matrix") == ['title "The Matrix"']


def test_a_film_becomes_the_film_in_its_own_text():
  text = 'In "The Matrix" a hacker… The Matrix is fast; the matrix stays.'
  assert without_title(text, "Matrix, The (1999)", noun="film") == (
    "In the film a hacker… the film is fast; the matrix stays."
  )
  assert without_title('"Heat" has heat!', "Heat (1995)", noun="film") == "the film has heat!"
  assert without_title("any text", "", noun="film") == "any text"


def test_empty_sections_and_names_are_problems():
  names = Names(FIELDS)
  assert user_problems(GOOD, SECTIONS, names) == []
  bad = Profile(
    overview="…",
    genres=("Crime",),
    tags=("Dead Man", "Michael Mann"),
    description="As in The Matrix.",
  )
  assert user_problems(bad, SECTIONS, names) == [
    "overview is empty",
    "dislikes is empty",
    'has title "Dead Man"',
    'has person "Michael Mann"',
    'has title "The Matrix"',
  ]
  assert user_problems(Profile(overview="A paragraph."), ("overview",), names) == []
  # The prose of an item may name it; its keywords become those of users.
  item = Profile(overview="The Matrix is…", tags=("Heist",), description="Dead Man")
  assert item_problems(item, ("overview", "tags"), names) == []
  assert item_problems(
    Profile(overview="o", tags=("The Matrix",), dislikes=("Keanu Reeves",)), ("tags",), names
  ) == ['has title "The Matrix"', 'has person "Keanu Reeves"']


def test_loops_copies_and_restated_dislikes_are_problems():
  names = Names(FIELDS)
  bad = Profile(
    name="Night Train",
    overview="o",
    genres=("Crime",),
    tags=("train robbery", "crimes"),
    description="A man and the dog and the dog who barks.",
    dislikes=("Comedy", "trains"),
  )
  wanted = ['repeats "and the dog"', 'copies keyword "crim"', 'restates as dislike "trains"']
  assert item_problems(bad, SECTIONS, names) == wanted
  assert user_problems(bad, SECTIONS, names) == wanted
  assert item_problems(GOOD, SECTIONS, names) == []
  once = Profile(overview="o", description="The dog barks. The dog sleeps.")
  assert user_problems(once, (), names) == []
  again = Profile(overview="o", description="The dog dog.")
  assert user_problems(again, (), names) == ['repeats "dog"']


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/data")
def test_names_in_published_profiles_are_few_false_alarms():
  metadata = SHARED / "data" / "metadata_ml100k.jsonl"
  fields = [json.loads(line) for line in metadata.read_text().splitlines()]
  items, users, summaries = (
    [json.loads(line) for line in (PUBLISHED / name).read_text().splitlines()]
    for name in (
      "profiles_ml100k_items.jsonl",
      "profiles_ml100k_users.jsonl",
      "summaries_ml100k_users.jsonl",
    )
  )
  films = [parse_profile(line["profile"]) for line in items]
  names = Names(fields, terms=common_terms(films))
  problems = [user_problems(parse_profile(line["profile"]), (), names) for line in users]
  found = [[one for one in own if one.startswith("has ")] for own in problems]
  # Published profiles do contain titles and people; by hand, nearly all of these findings are true.
  assert 0.10 < sum(map(bool, found)) / len(found) < 0.16
  wrong = {'has title "True Crime"', 'has title "Love Affair"', 'has title "Dead Man"'}
  assert sum(bool(wrong & set(one)) for one in found) / len(found) < 0.002
  assert not any(names.found(line["summary"]) for line in summaries)
