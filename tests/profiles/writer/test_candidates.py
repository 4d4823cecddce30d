"""What answers may consist of comes from the metadata, and examples keep to their own forms."""

import json

import pytest
from helpers.constraints import byte_level

from gatrec_jax.data import nouns
from gatrec_jax.lm.constraints.choices import accepts
from gatrec_jax.lm.constraints.json_schema import shape_automaton
from gatrec_jax.lm.constraints.schema import Items, Sentence, read_schema
from gatrec_jax.lm.tokens.token_bytes import make_spelling
from gatrec_jax.profiles import builder
from gatrec_jax.profiles.keywords import STOP_WORDS
from gatrec_jax.profiles.quality import stems_of
from gatrec_jax.profiles.schema import Profile
from gatrec_jax.profiles.writer.candidates import Catalog, taste_candidates
from gatrec_jax.profiles.writer.domains import LINKS, domain_of
from gatrec_jax.profiles.writer.write import item_form

NOUNS = ("film", "song", "game", "recipe", "article", "product")
FILMS = [
  {
    "title": "Iron Harbor (1999)",
    "genres": ["Crime", "Drama"],
    "overview": "Boris, a retired safe cracker, hides stolen diamonds in a Lisbon harbor. "
    "The safe cracker quickly regrets it.",
    "director": "Ana Lima",
  },
  {"title": "Snow (1980)", "genres": ["Comedy"], "overview": "A dog finds stolen diamonds."},
  {"title": "Plain (1981)", "genres": ["Drama"]},
  {"title": "Bare (1982)", "overview": "A safe harbor."},
  {},
]
PRODUCTS = [
  {
    "title": f"Acme {n} Steel Paper Clips, Silver (A{n})",
    "overview": "Clips for PAPER of a Kind 4U.",
  }
  for n in range(3)
] + [{"title": f"Blue {n} Gel Pens, 12 Pack", "overview": "Pens, smooth."} for n in range(3)]


def catalog(fields, noun):
  return Catalog(fields, builder.build_item_profiles(fields, noun=noun), domain_of(noun))


def test_films_are_described_in_small_words_of_their_texts():
  found = catalog(FILMS, "film").of(0)
  assert found.genres == ()  # known
  assert {"safe cracker", "hides stolen diamonds"} <= set(found.tags)
  assert {"safe", "cracker", "hides", "stolen"} <= set(found.words)
  assert not {"boris", "Boris", "lisbon", "Lisbon", "iron", "a", "crime", "drama"} & set(
    found.words
  )
  assert found.others == ("Comedy",)
  assert found.moods == ("dark", "gritty", "tense", "moving", "serious", "thoughtful")
  assert all(stems_of([tag]) <= stems_of([FILMS[0]["overview"]]) for tag in found.tags)


def test_items_without_genres_or_texts_have_what_there_is():
  found = catalog(FILMS, "film")
  assert found.of(2).tags == () and found.of(2).words == ()
  assert found.of(3).genres == ("Drama", "Crime", "Comedy") and found.of(3).moods == ()
  form = item_form(found.of(2), noun="film", genres=("Drama",))["properties"]
  assert list(form) == ["moods", "dislikes"]
  form = item_form(found.of(0), noun="film", genres=("Drama",))["properties"]
  assert form["description"]["starts"][2:] == [
    "A tense drama film about",
    "A moving drama film about",
    "A serious drama film about",
    "A thoughtful drama film about",
    "A drama film about",
  ]


def test_sentences_begin_with_what_an_item_is():
  film = domain_of("film")
  assert film.starts("film", (), ()) == ("A film about",)
  assert film.starts("anime", ("Action", "Drama", "War"), ("exciting",)) == (
    "An exciting action anime about",
    "An exciting drama anime about",
    "An action anime about",
    "A drama anime about",
  )
  assert domain_of("recipe").starts("recipe", ("Soup",), ()) == ("A soup recipe with",)
  assert domain_of("product").starts("product", ("Gel Pens",), ()) == ("A", "An", "The")


def test_products_are_what_their_titles_say_that_they_are():
  found = catalog(PRODUCTS, "product").of(0)
  assert found.genres == ("Paper Clips", "Steel Paper Clips", "Clips")
  assert found.others == ("Gel Pens",) and found.moods == ()
  assert "steel" in [word.lower() for word in found.words]
  assert not any(character.isdigit() for word in found.words for character in word)


@pytest.mark.parametrize("noun", NOUNS)
def test_examples_fit_the_forms_of_their_own_items(noun):
  domain, tokenizer = domain_of(noun), byte_level()
  spelling = make_spelling(tokenizer, vocabulary=len(tokenizer), eos=[1])
  for example in domain.examples:
    # In a catalog in which its words recur.
    others = [e.fields for e in domain.examples if e is not example]
    plain = [{"title": f"Word{n}", "overview": f"Something{n} else."} for n in range(8)]
    one = catalog([example.fields, *others, *plain, example.fields], noun).of(0)
    answer = example.answer
    form = item_form(one, noun=noun, genres=builder.genres_of(example.fields))["properties"]
    assert set(answer) <= set(form) | {"dislikes"}
    for field, value in answer.items():
      if field == "description":
        shape = read_schema(form[field])
        assert isinstance(shape, Sentence)
        text = value.replace("{noun}", noun).removesuffix(".").replace(",", "")
        start = max((one for one in shape.starts if text.startswith(f"{one} ")), key=len)
        rest = text.removeprefix(start).split()
        assert set(rest) <= {*shape.words, *shape.links}, noun
        assert shape.minimum <= len(rest) <= shape.maximum and rest[-1] in shape.words
      elif field != "dislikes":
        assert set(value) <= set(form[field]["items"]["enum"]), (noun, field)
        shape = read_schema(form[field])
        assert isinstance(shape, Items)
        texts = [json.dumps(text) for text in value]
        places = [shape.item.texts.index(text) for text in texts]
        assert places == sorted(places) and shape.minimum <= len(texts) <= shape.maximum
    assert list(answer) == [
      field for field in dict.fromkeys((*form, "dislikes")) if field in answer
    ]
    assert set(answer["dislikes"]) <= set(example.others)
    automaton = shape_automaton(
      spelling, read_schema({"type": "object", "properties": form}), eos=[1]
    )
    assert not accepts(automaton, [])


def test_domains_cover_every_noun_and_links_are_no_content():
  known = [domain_of(noun) for noun in NOUNS]
  assert all(domain_of(noun) in known for noun in (*nouns._WORDS, "item", "anything"))
  assert domain_of("anime") == domain_of("film")
  assert all(link in STOP_WORDS or len(link) <= 2 for link in LINKS)
  assert not set(domain_of("film").judgment("film")) & (STOP_WORDS - {"film", "films"})


def test_tastes_consist_of_the_terms_of_items():
  items = [
    Profile(name="A", genres=("Drama",), tags=("rain", "harbor"), description="A sad Lisbon dog."),
    Profile(name="B", genres=("Drama", "War"), tags=("rain",)),
  ]
  found = taste_candidates(items, Profile(), liked=True)
  assert found.genres == ("Drama", "War") and found.tags == ("rain", "harbor")
  assert found.others == () and found.words == ("drama", "war", "rain", "harbor", "sad", "dog")
  present = Profile(genres=("War",), tags=("rain",), overview="Likes storms.")
  found = taste_candidates(items, present, liked=False)
  # What was liked so far stays; what is avoided is nothing of it.
  assert found.genres == ("War",) and found.tags == ("rain",)
  assert found.others == ("Drama", "harbor")
  found = taste_candidates(items, Profile(), liked=False)
  assert found.others == ("Drama", "rain", "harbor", "War") and found.genres == ("Drama", "War")
