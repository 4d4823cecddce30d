"""What an item has in common with items that a user likes, and which disliked genres it lacks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.profiles.builder import CREDIT_FIELDS, MAKER_FIELDS, TAG_FIELDS, genres_of, terms_of

MAKERS = frozenset(field.removesuffix("s") for field in MAKER_FIELDS)
"""Roles of firms, as kinds of traits."""
_MAX_TITLES = 3  # named for a trait
_MAX_OF_A_KIND = 2  # traits of a kind
_MIN_LIKED, _MIN_SHARE = 2, 0.1  # of the liked items, for a genre or tag to count
# A user avoids a genre with at least this many disliked items, this share of disliked among rated
# items, and this ratio to the user's share over all genres.
_MIN_DISLIKED, _MIN_DISLIKED_SHARE, _MIN_RATIO = 2, 0.5, 1.2


@dataclasses.dataclass(frozen=True)
class Named:
  """Something that items may share.

  Attributes: kind: `genre`, `tag` or a role such as `director`. name: as in the metadata.
  """

  kind: str
  name: str


@dataclasses.dataclass(frozen=True)
class Trait:
  """Something that an item shares with items that the user likes.

  Attributes:
    kind: `genre`, `tag`, or the role that a person has in the recommended item.
    name: as in the recommended item's metadata.
    liked: how many of the user's liked items share it. num_liked: number of liked items.
    titles: of at most three liked items that share it.
  """

  kind: str
  name: str
  liked: int
  num_liked: int
  titles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Avoided:
  """A genre that the user avoids and an item does not have.

  Attributes:
    genre: its name.
    disliked: how many of the user's disliked items have it. num_disliked: number of disliked items.
  """

  genre: str
  disliked: int
  num_disliked: int


@dataclasses.dataclass(frozen=True)
class Catalog:
  """Traits of all items.

  Attributes: traits: [I]; a person is listed once per item, in the first role given.
  """

  traits: Sequence[tuple[Named, ...]]


def catalog_traits(
  item_fields: Sequence[Mapping[str, Any]], tags: Sequence[Sequence[str]]
) -> Catalog:
  """Collects people, makers, tags and genres of all items.

  Args:
    item_fields: [I] as in `Dataset.item_fields`.
    tags: [I], tags of given item profiles. Keywords found in an overview are not traits.
  """
  return Catalog([_traits_of(fields, own) for fields, own in zip(item_fields, tags, strict=True)])


def _traits_of(fields: Mapping[str, Any], tags: Sequence[str]) -> tuple[Named, ...]:
  people: dict[str, Named] = {}
  for field in CREDIT_FIELDS:
    role = {"cast": "actor", "crew": "crew member"}.get(field, field.removesuffix("s"))
    for name in terms_of(fields.get(field)):
      people.setdefault(name.casefold(), Named(role, name))
  genres = [Named("genre", name) for name in genres_of(fields)]
  of_tags: dict[str, Named] = {}
  for tag in (*(tag for field in TAG_FIELDS for tag in terms_of(fields.get(field))), *tags):
    of_tags.setdefault(tag.casefold(), Named("tag", tag))
  return (*people.values(), *of_tags.values(), *genres)


def shared_traits(
  catalog: Catalog, item: int, liked: Sequence[int], *, titles: Sequence[str]
) -> tuple[Trait, ...]:
  """The traits that `item` shares with the liked items: people first, then tags, then genres.

  A person counts in whatever role they have in the liked items. A tag or genre counts if at least
  two of the liked items have it, and a genre only if a tenth of them do.

  Args:
    catalog: traits of all items. item: an index.
    liked: indices; titles are named in this order.
    titles: [I].
  """
  found = []
  for own in catalog.traits[item]:
    key = _key(own)
    having = [other for other in liked if any(_key(t) == key for t in catalog.traits[other])]
    least = {"genre": max(_MIN_LIKED, _MIN_SHARE * len(liked)), "tag": _MIN_LIKED}
    if len(having) >= least.get(own.kind, 1):
      named = tuple(titles[other] for other in having[:_MAX_TITLES])
      found.append(Trait(own.kind, own.name, len(having), len(liked), named))
  of_kind: Counter[str] = Counter()
  kept = []
  for trait in sorted(found, key=lambda trait: -trait.liked):
    kind = _kind(trait.kind)
    of_kind[kind] += 1
    if of_kind[kind] <= _MAX_OF_A_KIND:
      kept.append(trait)
  order = ("person", "tag", "genre")
  return tuple(sorted(kept, key=lambda trait: order.index(_kind(trait.kind))))


def avoided_genres(
  catalog: Catalog, item: int, *, liked: Sequence[int], disliked: Sequence[int]
) -> tuple[Avoided, ...]:
  """The genre that `item` lacks and the user avoids most, as a tuple of at most one.

  A user avoids a genre if they dislike at least two of its items, at least half of those that they
  liked or disliked, and a share of them that is at least 1.2 times that over all genres.
  """
  own = _genres(catalog, item)
  bad = Counter(genre for other in disliked for genre in _genres(catalog, other))
  good = Counter(genre for other in liked for genre in _genres(catalog, other))
  usual = len(disliked) / max(len(liked) + len(disliked), 1)
  share = max(_MIN_DISLIKED_SHARE, _MIN_RATIO * usual)
  found = [
    Avoided(genre, count, len(disliked))
    for genre, count in bad.items()
    if genre not in own and count >= _MIN_DISLIKED and count >= share * (count + good[genre])
  ]
  return tuple(sorted(found, key=lambda one: (-one.disliked, one.genre))[:1])


def _genres(catalog: Catalog, item: int) -> set[str]:
  return {trait.name for trait in catalog.traits[item] if trait.kind == "genre"}


def _kind(kind: str) -> str:
  return kind if kind in ("genre", "tag") else "person"


def _key(trait: Named) -> tuple[str, str]:
  return _kind(trait.kind), trait.name.casefold()
