"""Built profiles: deterministic, without leaks, titles or names, for all kinds of poor input."""

import dataclasses

import numpy as np
import pytest

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.profiles import users
from gatrec_jax.profiles.builder import build_item_profiles, item_texts, user_texts
from gatrec_jax.profiles.keywords import keywords_of
from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile
from gatrec_jax.profiles.users import build_user_profiles, taste_vocabulary, user_profile_from_items

PLOTS = {
  "Crime": "A detective hunts the killer after a heist. Later Vincent Hanna meets the detective.",
  "War": "A soldier and his regiment defend a village. There Vincent Hanna leads the regiment.",
  "Comedy": "A wedding goes wrong at the hotel. Then Vincent Hanna ruins the wedding.",
}


def catalog(num_items=30):
  """Items of three alternating genres, with plots from the vocabulary of the genre."""
  kinds = list(PLOTS)
  return [
    {
      "title": f"Movie Number {i}, The (19{50 + i})",
      "genres": [kinds[i % 3]],
      "overview": PLOTS[kinds[i % 3]],
      "tagline": "No way out",
      "director": "Vincent Hanna",
      "imdb_id": "tt1",
    }
    for i in range(num_items)
  ]


def ratings(num_users=6, num_items=30, seed=0):
  """User u likes the items of genre u % 3 and dislikes those of the next one."""
  rng = np.random.default_rng(seed)
  user, item = np.nonzero(rng.random((num_users, num_items)) < 0.7)
  genre = item % 3
  rating = np.where(genre == user % 3, 5, np.where(genre == (user + 1) % 3, 1, 3))
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    rating.astype(np.float32),
    rng.integers(0, 1000, len(user)),
    tuple(map(str, range(num_users))),
    tuple(map(str, range(num_items))),
  )


FEEDBACK = Feedback()


def test_item_profiles():
  profiles = build_item_profiles(catalog())
  assert profiles == build_item_profiles(catalog())
  first = profiles[0]
  assert first.name == "The Movie Number 0"
  assert first.genres == ("Crime",) and first.overview == PLOTS["Crime"]
  assert {"Detective", "Killer", "Heist"} <= set(first.tags)
  assert not {"Vincent", "Hanna"} & set(first.tags)  # a name, capitalized inside the sentence
  assert set(first.dislikes) == {"War", "Comedy"}
  assert "No way out." in first.description and "tt1" not in first.description
  for profile in profiles:
    assert parse_profile(render_profile(profile)) == profile


def test_dislikes_are_common_genres_that_rarely_go_together():
  """Lifts beside A: of B (1 + 1) / (2 · 2 / 4 + 1) = 1, of C 1 / (2 · 1 / 4 + 1) = 2/3."""
  fields = [{"genres": genres} for genres in (["A", "B"], ["A"], ["B"], ["C"])]
  assert [p.dislikes for p in build_item_profiles(fields)] == [
    ("C",),
    ("C", "B"),
    ("C", "A"),
    ("A", "B"),
  ]
  rare = [{"genres": [f"only {i}"]} for i in range(2000)]
  many = build_item_profiles([*fields * 600, *rare])
  assert [p.dislikes for p in many[:4]] == [("C",), ("C", "B"), ("C", "A"), ("A", "B")]
  assert {p.dislikes for p in many[2400:]} == {("A", "B", "C")}


def test_items_with_little_or_no_text():
  fields = [
    {},
    {"title": "  "},
    {"title": "Amélie, Le fabuleux (2001)"},
    {"genres": "Drama|Comedy"},
    {"overview": "A long plot"},
    {"genres": ["(no genres listed)"]},
    {"title": "Postino, Il (The Postman) (1994)", "tags": ["sea", "Jo Doe"], "actors": "Jo Doe"},
    {"title": "1984", "brand": "Acme", "tags": None, "genres": None},
  ]
  profiles = build_item_profiles(fields)
  assert [p is None for p in profiles] == [True, True, False, False, False, True, False, False]
  assert profiles[3].genres == ("Drama", "Comedy")
  assert profiles[6].name == "Il Postino (The Postman)"
  assert profiles[6].tags == ("sea",)
  assert profiles[7].name == "1984" and profiles[7].description == "An item by Acme."
  assert item_texts(profiles, style="unified")[0] is None
  assert build_item_profiles([]) == []
  assert build_item_profiles([{}, {}]) == [None, None]


def test_keywords_occur_in_several_texts_and_are_ordered():
  texts = ["shark sharks beach", "shark pirate", "pirate nobody", "", "of the and"]
  found = keywords_of(texts, most=2)
  assert found == [("shark",), ("pirate", "shark"), ("pirate",), (), ()]
  assert keywords_of([], most=2) == []


def test_user_profiles_follow_the_ratings():
  profiles = build_user_profiles(ratings(), build_item_profiles(catalog()), feedback=FEEDBACK)
  kinds = list(PLOTS)
  for user, profile in enumerate(profiles):
    assert profile.name is None
    assert profile.genres[0] == kinds[user % 3]
    assert kinds[(user + 1) % 3] in profile.dislikes
    assert not set(profile.dislikes) & {*profile.genres, *profile.tags}
    assert kinds[user % 3].lower() in profile.overview
    assert parse_profile(render_profile(profile)) == profile
  assert "Detective" in profiles[0].tags and "Regiment" in profiles[0].dislikes


def test_user_profiles_depend_on_training_rows_alone_in_any_order():
  everything = ratings(num_users=12)
  items = build_item_profiles(catalog())
  is_train = np.random.default_rng(1).random(len(everything)) < 0.7
  recent = dict(feedback=FEEDBACK, recent=10)
  expected = build_user_profiles(everything.take(is_train), items, **recent)
  changed = everything.rating.copy()
  changed[~is_train] = np.random.default_rng(2).permutation(6 - changed[~is_train])
  altered = dataclasses.replace(everything, rating=changed)
  assert build_user_profiles(altered.take(is_train), items, **recent) == expected
  shuffled = np.random.default_rng(3).permutation(np.flatnonzero(is_train))
  assert build_user_profiles(everything.take(shuffled), items, **recent) == expected


def test_no_title_or_person_in_user_profiles():
  fields = catalog()
  fields[0]["title"] = "Detective (1985)"  # a title that is also a keyword
  fields[1]["title"] = "Full Regiment, The (1999)"
  items = build_item_profiles(fields)
  profiles = build_user_profiles(ratings(), items, feedback=FEEDBACK)
  titles = [profile.name.casefold() for profile in items]
  for profile in profiles:
    terms = {term.casefold() for term in profile.tags + profile.dislikes}
    assert not terms & set(titles)
    for style in ("unified", "integrated"):
      text = user_texts([profile], style=style)[0].casefold()
      assert not any(title in text for title in titles)
      assert "vincent" not in text and "hanna" not in text


def test_chunks_of_users_do_not_matter(monkeypatch):
  train, items = ratings(num_users=7), build_item_profiles(catalog())
  whole = build_user_profiles(train, items, feedback=FEEDBACK)
  monkeypatch.setattr(users, "_USERS_PER_CHUNK", 3)
  assert build_user_profiles(train, items, feedback=FEEDBACK) == whole


def test_a_list_of_items_gives_the_same_profile_as_a_batch_of_users():
  train, items = ratings(), build_item_profiles(catalog())
  vocabulary = taste_vocabulary(train, items)
  batch = build_user_profiles(train, items, feedback=FEEDBACK)
  for user in range(train.num_users):
    mine = train.user == user
    alone = user_profile_from_items(
      train.item[mine & (train.rating >= 4)],
      train.item[mine & (train.rating <= 2)],
      vocabulary=vocabulary,
    )
    assert alone == batch[user]
  assert user_profile_from_items(np.array([]), np.array([3]), vocabulary=vocabulary) is None


def test_recent_keeps_the_latest():
  items = build_item_profiles(catalog())
  train = ratings(num_users=1)
  # The latest three are War, whatever else was liked before.
  train = dataclasses.replace(
    train,
    rating=np.full(len(train), 5, np.float32),
    timestamp=np.where(train.item % 3 == 1, 100 + train.item, train.item).astype(np.int64),
  )
  recent = build_user_profiles(train, items, feedback=FEEDBACK, recent=3)[0]
  assert recent.genres == ("War",)
  assert len(build_user_profiles(train, items, feedback=FEEDBACK)[0].genres) > 1


def test_users_without_positives_and_implicit_feedback():
  items = build_item_profiles(catalog())
  train = ratings()
  only_bad = train.take((train.user != 0) | (train.rating < 4))
  assert build_user_profiles(only_bad, items, feedback=FEEDBACK)[0] is None
  implicit = dataclasses.replace(
    train.take(train.rating >= 4), rating=np.ones((train.rating >= 4).sum(), np.float32)
  )
  profiles = build_user_profiles(implicit, items, feedback=Feedback(1.0, 0.0))
  assert profiles[0].genres == ("Crime",) and profiles[0].dislikes == ()
  nothing = train.take(np.zeros(len(train), bool))
  assert build_user_profiles(nothing, items, feedback=FEEDBACK) == [None] * 6
  assert build_user_profiles(train, [None] * 30, feedback=FEEDBACK) == [None] * 6


def test_styles():
  profile = Profile(
    name="Heat", overview="Two men.", genres=("Crime",), description="Long.", dislikes=("War",)
  )
  for noun, label in (("film", "Movie"), ("book", "Book"), ("item", "Item")):
    assert item_texts([profile, None], style="integrated", noun=noun) == [
      f"{label} title: Heat. Genre: Crime. Overview: Two men.",
      None,
    ]
  assert user_texts([profile], style="integrated") == ["Two men. Long."]
  assert user_texts([profile], style="unified")[0].startswith("# Heat\n\n## Overview\nTwo men.")
  with pytest.raises(KeyError):
    item_texts([profile], style="other")


@pytest.mark.parametrize(
  ("noun", "fields", "about"),
  [
    ("film", {"genres": ["Crime"], "tags": ["heist"], "brand": ["X"]}, "A crime film about heist."),
    ("film", {"tags": ["heist"], "author": "Ann Bo"}, "A film about heist."),
    (
      "book",
      {"genres": ["Epic"], "author": "Ann Bo, Cy Day, E"},
      "An epic book by Ann Bo and Cy Day.",
    ),
    (
      "song",
      {"artist": "The Bo", "tags": ["calm"]},
      "A song by The Bo, with keywords such as calm.",
    ),
    (
      "product",
      {"genres": ["Office Products"], "brand": ["Ink, Inc."]},
      "An office products by Ink Inc..",
    ),
    ("anime", {"tags": ["war"]}, "An anime about war."),
    ("product", {"brand": ["Unknown"], "price": "3"}, "Price: 3."),
  ],
)
def test_descriptions_say_what_the_items_are(noun, fields, about):
  (profile,) = build_item_profiles([fields], noun=noun)
  assert profile.description == about


@pytest.mark.parametrize(
  ("noun", "overview", "description"),
  [
    (
      "film",
      "This user enjoys crime films, above all stories about heist.",
      "They are drawn to crime stories with themes such as heist.",
    ),
    (
      "anime",
      "This user enjoys crime anime, above all stories about heist.",
      "They are drawn to crime stories with themes such as heist.",
    ),
    (
      "toy",
      "This user enjoys crime toys, above all those with keywords such as heist.",
      "They are drawn to crime toys with keywords such as heist.",
    ),
  ],
)
def test_users_like_what_the_items_are(noun, overview, description):
  items = [Profile(genres=("Crime",), tags=("heist",))] * 30
  profile = build_user_profiles(ratings(), items, feedback=FEEDBACK, noun=noun)[0]
  assert (profile.overview, profile.description) == (overview, description)
  vocabulary = taste_vocabulary(ratings(), items, noun=noun)
  alone = user_profile_from_items(np.array([0, 3]), np.array([1]), vocabulary=vocabulary)
  assert alone.overview == overview
