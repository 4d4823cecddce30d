"""Traits that items share with a user's liked items, checked by hand."""

from gatrec_jax.explain.traits import (
  Avoided,
  Named,
  Trait,
  avoided_genres,
  catalog_traits,
  shared_traits,
)

FIELDS = [
  {"genres": "Drama|Horror", "director": "Ann Bo", "actors": "Cy Day, Ann Bo", "tags": "sea"},
  {"genres": ["Drama"], "director": "Cy Day"},
  {"genres": ["Drama", "Comedy"], "cast": ["ann bo"], "keywords": ["Sea"]},
  {"genres": ["Horror"], "tags": ["sea", "night"]},
  {"title": "nothing is known"},
]
TITLES = ["A", "B", "C", "D", "E"]


def made():
  return catalog_traits(FIELDS, [(), (), (), ("SEA", "war"), ()])


def test_people_and_tags_are_listed_once_people_in_their_first_role():
  catalog = made()
  assert catalog.traits[0] == (
    Named("director", "Ann Bo"),
    Named("actor", "Cy Day"),
    Named("tag", "sea"),
    Named("genre", "Drama"),
    Named("genre", "Horror"),
  )
  assert [t.name for t in catalog.traits[3] if t.kind == "tag"] == ["sea", "night", "war"]
  assert catalog.traits[4] == ()


def test_people_count_in_any_role_and_tags_and_genres_if_two_liked_items_have_them():
  found = shared_traits(made(), 0, [2, 1, 3], titles=TITLES)
  assert found == (
    Trait("director", "Ann Bo", 1, 3, ("C",)),
    Trait("actor", "Cy Day", 1, 3, ("B",)),
    Trait("tag", "sea", 2, 3, ("C", "D")),
    Trait("genre", "Drama", 2, 3, ("C", "B")),
  )
  assert shared_traits(made(), 4, [0, 1], titles=TITLES) == ()
  assert shared_traits(made(), 0, [], titles=TITLES) == ()


def test_a_genre_needs_a_tenth_of_the_liked_items():
  fields = [{"genres": ["War"]}] * 3 + [{"genres": ["Noir"]}] * 30
  catalog = catalog_traits(fields, [()] * 33)
  titles = [str(i) for i in range(33)]
  assert shared_traits(catalog, 0, [1, 2, *range(3, 20)], titles=titles)
  assert not shared_traits(catalog, 0, [1, 2, *range(3, 33)], titles=titles)


def test_a_genre_is_avoided_if_it_is_disliked_more_than_others():
  fields = [{"genres": ["War"]}] * 5 + [{"genres": ["Noir"]}] * 6
  catalog = catalog_traits(fields, [()] * 11)
  avoided = avoided_genres(catalog, 10, liked=[5, 6, 7], disliked=[0, 1, 8])
  assert avoided == (Avoided("War", 2, 3),)
  assert avoided_genres(catalog, 3, liked=[5], disliked=[0, 1]) == ()  # it has the genre itself
  assert avoided_genres(catalog, 10, liked=[2, 3, 4], disliked=[0, 1]) == ()  # liked more often
  # A user who dislikes nearly everything also dislikes War, but no more than the rest.
  assert avoided_genres(catalog, 10, liked=[3], disliked=[0, 1, 2, 5, 6, 7, 8]) == ()


def test_a_brand_is_shared_like_a_person_and_said_like_a_brand():
  fields = [{"brand": ["Acme"], "genres": ["Pens"]}, {"brand": "ACME"}, {"brand": ["Other"]}]
  catalog = catalog_traits(fields, [()] * 3)
  traits = shared_traits(catalog, 0, [1, 2], titles=["A", "B", "C"])
  assert traits == (Trait("brand", "Acme", 1, 2, ("B",)),)
