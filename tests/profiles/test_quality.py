"""Measures of profiles, solved by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.profiles.quality import (
  content_words,
  copied_keywords,
  given_texts,
  loops,
  named_people,
  people_of,
  plot_words,
  restated_dislikes,
  stem,
  ungrounded_genres,
  words_of,
)
from gatrec_jax.profiles.schema import Profile

FIELDS = {
  "title": "Night Train (1959)",
  "genres": ["Crime", "Drama"],
  "overview": "Two strangers share a sleeper’s compartment; one of them is hunted.",
  "director": "Jerzy Kawalerowicz",
  "year": 1959,
}


@pytest.mark.parametrize(
  ("one", "other"),
  [("toys", "toy"), ("stories", "story"), ("learned", "learns"), ("running", "run")],
)
def test_forms_of_a_word_have_one_stem(one, other):
  assert stem(one) == stem(other) and stem(one.upper()) == stem(one)


@pytest.mark.parametrize(("one", "other"), [("train", "rain"), ("bus", "but"), ("news", "ne")])
def test_other_words_have_other_stems(one, other):
  assert stem(one) != stem(other)


@given(st.text(max_size=40))
def test_any_text_can_be_measured(text):
  assert isinstance(loops(text), list) and all(stem(word) for word in words_of(text))


def test_words_are_read_without_numbers_and_possessives():
  assert words_of("The sleeper’s 2 cars, Kawalerowicz's") == [
    "the",
    "sleeper",
    "cars",
    "kawalerowicz",
  ]
  assert content_words("One of them is a hunted man in Łódź") == ["hunted", "łódź"]


def test_loops_are_words_in_a_row_twice_or_one_word_often():
  assert loops("A train and a man and a train.") == []
  assert loops("The man and the dog and the man.") == []
  assert loops("The man and the dog, the man and the cat.") == ["the man and", "man and the"]
  assert loops("A dog, a big dog and the dog.") == ["dog"]
  assert loops("A dog and a dog. The dog barks.") == []
  assert loops("An odd, odd tale.") == ["odd"]
  assert loops("") == []


def test_copied_keywords_are_in_two_fields_or_twice_in_one():
  profile = Profile(genres=("Crime",), tags=("crimes", "rain"), dislikes=("Rains", "sun"))
  assert copied_keywords(profile) == ["crim", "rain"]
  assert copied_keywords(Profile(genres=("Crime",), tags=("true crime",))) == []


def test_restated_dislikes_are_in_name_genres_or_tags():
  profile = Profile(
    name="Night Train",
    genres=("Crime",),
    tags=("sleeper car",),
    dislikes=("Trains", "night sleeper", "Crime comedy", "Comedy", "…"),
  )
  assert restated_dislikes(profile) == ["Trains", "night sleeper"]


def test_genres_are_given_or_in_the_words_of_an_item_without_any():
  profile = Profile(genres=("crime", "Comedy", "Train"))
  assert ungrounded_genres(profile, FIELDS) == ["Comedy", "Train"]
  assert ungrounded_genres(Profile(genres=("Trains", "Comedy")), {"title": "A train"}) == ["Comedy"]


def test_given_texts_are_all_texts_of_an_item():
  assert given_texts(FIELDS) == [
    "Night Train (1959)",
    "Two strangers share a sleeper’s compartment; one of them is hunted.",
    "Jerzy Kawalerowicz",
    "Crime, Drama",
  ]


def test_people_are_found_by_their_full_names():
  people = people_of([FIELDS, {"actors": "Leon Niemczyk, Cher, Ana de Armas"}])
  assert people == {"Jerzy Kawalerowicz", "Leon Niemczyk", "Ana de Armas"}
  text = "With Leon Niemczyk Cher. Not leon niemczyk, nor Leon; Ana de Armas and Leon Niemczyk."
  assert named_people(text, people) == ["Leon Niemczyk", "Ana de Armas"]


def test_plot_words_leave_judgment_out():
  assert plot_words(["A tense night.", "strangers"], judgment=("tense",)) == ["night", "strangers"]
