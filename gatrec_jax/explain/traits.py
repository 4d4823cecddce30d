"""What an item has in common with what a user likes, and what of her dislikes it is free of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.profiles.builder import PEOPLE_FIELDS, TAG_FIELDS, genres_of, terms_of

_TITLES = 3  # named for a trait
_MOST_OF_A_KIND = 2  # traits of a kind
_FEWEST, _SMALLEST_SHARE = 2, 0.1  # of the liked items, for a genre or tag to count
# Of a genre's items, for her to avoid it: disliked ones, their share of the liked and disliked, and
# that share against her share of all genres.
_FEWEST_DISLIKED, _DISLIKED_SHARE, _MORE_THAN_USUAL = 2, 0.5, 1.2


@dataclasses.dataclass(frozen=True)
class Named:
  """Something that items may share: kind is `genre`, `tag` or a role such as `director`."""

  kind: str
  name: str


@dataclasses.dataclass(frozen=True)
class Trait:
  """What an item shares with items that its user likes.

  Attributes:
    kind, name: of what is shared; of people the role that it is in the recommended item.
    liked: how many of the user's liked items share it. num_liked: how many liked items there are.
    titles: at most three of them.
  """

  kind: str
  name: str
  liked: int
  num_liked: int
  titles: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Avoided:
  """A genre that an item is free of.

  Attributes:
    genre: its name.
    disliked: how many of the user's disliked items have it. num_disliked: how many there are.
  """

  genre: str
  disliked: int
  num_disliked: int


@dataclasses.dataclass(frozen=True)
class Catalog:
  """Attributes: traits: [I] what each item has; its people once, in the first role given."""

  traits: Sequence[tuple[Named, ...]]


def catalog_traits(
  item_fields: Sequence[Mapping[str, Any]], tags: Sequence[Sequence[str]]
) -> Catalog:
  """Args: item_fields: [I] as in `Dataset.item_fields`. tags: [I], of profiles that somebody wrote
  (salient words of an overview are no traits)."""
  return Catalog([_traits_of(fields, own) for fields, own in zip(item_fields, tags, strict=True)])


def _traits_of(fields: Mapping[str, Any], tags: Sequence[str]) -> tuple[Named, ...]:
  people: dict[str, Named] = {}
  for field in PEOPLE_FIELDS:
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
  """What `item` shares with the liked items: people first, then tags, then genres.

  A person counts whatever she did in the liked items. A genre or tag counts where at least two of
  the liked items have it, a genre where a tenth of them have.

  Args:
    liked: indices, those to be named first at the front. titles: [I].
  """
  found = []
  for own in catalog.traits[item]:
    key = _key(own)
    having = [other for other in liked if any(_key(t) == key for t in catalog.traits[other])]
    fewest = {"genre": max(_FEWEST, _SMALLEST_SHARE * len(liked)), "tag": _FEWEST}
    if len(having) >= fewest.get(own.kind, 1):
      named = tuple(titles[other] for other in having[:_TITLES])
      found.append(Trait(own.kind, own.name, len(having), len(liked), named))
  of_kind: Counter[str] = Counter()
  kept = []
  for trait in sorted(found, key=lambda trait: -trait.liked):
    kind = _kind(trait.kind)
    of_kind[kind] += 1
    if of_kind[kind] <= _MOST_OF_A_KIND:
      kept.append(trait)
  order = ("person", "tag", "genre")
  return tuple(sorted(kept, key=lambda trait: order.index(_kind(trait.kind))))


def avoided_genres(
  catalog: Catalog, item: int, *, liked: Sequence[int], disliked: Sequence[int]
) -> tuple[Avoided, ...]:
  """Genres that `item` does not have and that the user avoids; at most one, with the most disliked
  items. She avoids a genre where she dislikes at least two items, at least half of those that she
  liked or disliked, and a fifth more of them than of all genres together."""
  own = _genres(catalog, item)
  bad = Counter(genre for other in disliked for genre in _genres(catalog, other))
  good = Counter(genre for other in liked for genre in _genres(catalog, other))
  usual = len(disliked) / max(len(liked) + len(disliked), 1)
  share = max(_DISLIKED_SHARE, _MORE_THAN_USUAL * usual)
  found = [
    Avoided(genre, count, len(disliked))
    for genre, count in bad.items()
    if genre not in own and count >= _FEWEST_DISLIKED and count >= share * (count + good[genre])
  ]
  return tuple(sorted(found, key=lambda one: (-one.disliked, one.genre))[:1])


def _genres(catalog: Catalog, item: int) -> set[str]:
  return {trait.name for trait in catalog.traits[item] if trait.kind == "genre"}


def _kind(kind: str) -> str:
  return kind if kind in ("genre", "tag") else "person"


def _key(trait: Named) -> tuple[str, str]:
  return _kind(trait.kind), trait.name.casefold()
