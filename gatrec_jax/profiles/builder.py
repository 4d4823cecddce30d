"""Item profiles built without a language model, and profiles as texts to embed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.data.nouns import FILM, ITEM, kind_of, tells_a_story
from gatrec_jax.profiles.keywords import keywords_of
from gatrec_jax.profiles.schema import Profile, render_profile

YEAR = re.compile(r"\s*\(\d{4}(?:\s*[-–]\s*\d{0,4})?\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An|Le|La|Les|L'|Un|Une|Il|Lo|Gli|El|Los|Las|Der|Die|Das)$")
OVERVIEW_FIELDS = ("overview", "plot", "summary", "synopsis", "description", "abstract", "text")
TAG_FIELDS = ("tags", "keywords")
PEOPLE_FIELDS = (
  "director",
  "directors",
  "actors",
  "cast",
  "writer",
  "writers",
  "author",
  "authors",
  "artist",
  "artists",
  "composer",
  "composers",
  "crew",
)
MAKER_FIELDS = (
  "brand",
  "manufacturer",
  "developer",
  "developers",
  "publisher",
  "publishers",
  "studio",
  "studios",
)
CREDIT_FIELDS = PEOPLE_FIELDS + MAKER_FIELDS
# Whose names say what an item is like; of an item, the first that it has.
_BY = ("author", "authors", "artist", "artists", "brand", "manufacturer", "developer", "developers")
_NOBODY = frozenset(("unknown", "various", "various artists", "unbranded", "generic"))
_MOST_MAKERS = 2
_NO_GENRE = frozenset(("", "unknown", "(no genres listed)"))
_ITEM_TAGS, _ITEM_DISLIKES = 10, 5
_TAGS_IN_PROSE = 5
_COMMON_SHARE = 0.03  # of the items; few genres are as common, however many there are


def build_item_profiles(
  item_fields: Sequence[Mapping[str, Any]], *, noun: str = ITEM
) -> list[Profile | None]:
  """Builds a profile per item from its own fields, deterministically.

  The name is the title without its year. Tags are the given ones ("tags", "keywords") or salient
  words of overview and tagline. The description combines tagline, genres, tags and other text
  fields, except for people; of items that are no films it names author, artist, brand or developer.
  Dislikes are common genres that co-occur least with the item's genres.

  Args: item_fields: [I] mappings as in `Dataset.item_fields`. noun: what an item is called.
  Returns: [I] profiles, None for items without any text.
  """
  if not any(item_fields):  # soon, also for a million items
    return [None] * len(item_fields)
  genres = [genres_of(fields) for fields in item_fields]
  overviews = [first_text(fields, OVERVIEW_FIELDS) for fields in item_fields]
  taglines = [one_line(fields.get("tagline")) for fields in item_fields]
  found = keywords_of(
    [f"{overview}\n{tagline}" for overview, tagline in zip(overviews, taglines, strict=True)],
    most=_ITEM_TAGS,
  )
  people = {
    name.casefold()
    for fields in item_fields
    for field in CREDIT_FIELDS
    for name in terms_of(fields.get(field))
  }
  unlike = unlike_genres(genres, most=_ITEM_DISLIKES)
  profiles: list[Profile | None] = []
  for i, fields in enumerate(item_fields):
    given = [tag for field in TAG_FIELDS for tag in terms_of(fields.get(field))]
    tags = tuple(dict.fromkeys(tag for tag in given if tag.casefold() not in people))
    tags = tags[:_ITEM_TAGS] or tuple(word.capitalize() for word in found[i])
    profile = Profile(
      name=plain_title(one_line(fields.get("title"))) or None,
      overview=overviews[i],
      genres=genres[i],
      tags=tags,
      description=" ".join(
        filter(None, [_sentence(taglines[i]), _about(fields, tags, noun), *_further_texts(fields)])
      ),
      dislikes=unlike(genres[i]),
    )
    empty = profile == Profile(dislikes=profile.dislikes)
    profiles.append(None if empty else profile)
  return profiles


def plain_title(title: str) -> str:
  """A title without its year and with its article first: "Matrix, The (1999)" → "The Matrix"."""
  title = YEAR.sub("", title).strip()
  front, bracket, rest = title.partition(" (")
  article = _ARTICLE.match(front)
  if article:
    space = "" if article.group(2).endswith("'") else " "
    front = f"{article.group(2)}{space}{article.group(1)}"
  return front + bracket + rest


def one_line(value: Any) -> str:
  """A text without line breaks and repeated spaces; "" for values that are not text."""
  return " ".join(value.split()) if isinstance(value, str) else ""


def terms_of(value: Any) -> list[str]:
  """Terms from a list of strings, or from one string separated by commas, bars or semicolons."""
  parts = re.split(r"[|,;]", value) if isinstance(value, str) else value
  if not isinstance(parts, (list, tuple)):
    return []
  return [text for part in parts if (text := one_line(part).replace(",", ""))]


def genres_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
  """An item's distinct genres, without placeholders such as "unknown"."""
  names = terms_of(fields.get("genres", fields.get("genre")))
  return tuple(dict.fromkeys(name for name in names if name.casefold() not in _NO_GENRE))


def first_text(fields: Mapping[str, Any], names: Sequence[str]) -> str:
  """The first non-empty text of these fields, in one line; "" if there is none."""
  return next((text for name in names if (text := one_line(fields.get(name)))), "")


def _further_texts(fields: Mapping[str, Any]) -> list[str]:
  known = {"title", "name", "tagline", "genre", "genres"} | {
    *OVERVIEW_FIELDS,
    *TAG_FIELDS,
    *CREDIT_FIELDS,
  }
  return [
    f"{field.replace('_', ' ').capitalize()}: {_sentence(one_line(fields[field]))}"
    for field in sorted(fields)
    if field not in known
    and not field.endswith(("id", "_source", "url"))
    and one_line(fields[field])
  ]


def _sentence(text: str) -> str:
  return text if not text or text[-1] in ".!?…\"'" else text + "."


def _about(fields: Mapping[str, Any], tags: Sequence[str], noun: str) -> str:
  genres, makers = genres_of(fields), () if noun == FILM else _makers(fields)
  if not genres and not tags and not makers:
    return ""
  kind = kind_of(listing(genres), noun) if genres else noun
  article = "An" if kind[0] in "aeiou" else "A"
  by = f" by {' and '.join(makers)}" if makers else ""
  about = " about " if tells_a_story(noun) else ", with keywords such as "
  return f"{article} {kind}{by}{about + listing(tags[:_TAGS_IN_PROSE]) if tags else ''}."


def _makers(fields: Mapping[str, Any]) -> list[str]:
  """Who an item is by, as far as that says what it is like."""
  for field in _BY:
    names = [name for name in terms_of(fields.get(field)) if name.casefold() not in _NOBODY]
    if names:
      return names[:_MOST_MAKERS]
  return []


def listing(terms: Sequence[str]) -> str:
  """Terms as a list in a sentence: "crime, drama and thriller"; abbreviations stay in capitals."""
  words = [term if term.isupper() else term.lower() for term in terms]
  return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def unlike_genres(
  genres: Sequence[tuple[str, ...]], *, most: int
) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
  """A function from an item's genres to the common genres that co-occur with them least.

  Args: genres: [I] of all items. most: genres that it returns, the most unlike first.
  """
  from scipy import sparse

  names = sorted({name for item in genres for name in item})
  index = {name: g for g, name in enumerate(names)}
  columns = [index[name] for item in genres for name in item]
  starts = np.cumsum([0, *map(len, genres)])
  table = sparse.csr_array((np.ones(len(columns)), columns, starts), (len(genres), len(names)))
  share = table.sum(axis=0) / max(1, len(genres))
  common = np.flatnonzero(share >= _COMMON_SHARE)
  together = (table.T @ table[:, common]).tocsr()

  @functools.cache
  def unlike(own: tuple[str, ...]) -> tuple[str, ...]:
    if not own:
      return ()
    mine = [index[name] for name in own]
    # Lift: how often the genre co-occurs with the item's, relative to chance; lowest first.
    chance = share[mine].sum() * share[common] * len(genres)
    lift = (together[mine].sum(axis=0) + 1) / (chance + 1)
    order = sorted(
      (value, names[g]) for value, g in zip(lift, common, strict=True) if g not in mine
    )
    return tuple(name for _, name in order[:most])

  return unlike


def item_texts(
  profiles: Sequence[Profile | None], *, style: str, noun: str = ITEM
) -> list[str | None]:
  """The texts to embed for items: [I], None for items without a profile.

  Args:
    profiles: [I].
    style: "unified" (the schema in Markdown) or "integrated" (`Movie title: … Genre: …`).
    noun: what an item is called.
  """
  label = "Movie" if noun == FILM else noun.capitalize()  # the paper's word for a film
  render = {"unified": render_profile, "integrated": functools.partial(_integrated_item, label)}[
    style
  ]
  return [None if profile is None else render(profile) for profile in profiles]


def user_texts(profiles: Sequence[Profile | None], *, style: str) -> list[str | None]:
  """The texts to embed for users: [U], as `item_texts`; "integrated" is one paragraph."""
  render = {"unified": render_profile, "integrated": _integrated_user}[style]
  return [None if profile is None else render(profile) for profile in profiles]


def _integrated_item(label: str, profile: Profile) -> str:
  parts = [
    profile.name and f"{label} title: {_sentence(profile.name)}",
    profile.genres and f"Genre: {', '.join(profile.genres)}.",
    (profile.overview or profile.description)
    and f"Overview: {profile.overview or profile.description}",
  ]
  return " ".join(filter(None, parts))


def _integrated_user(profile: Profile) -> str:
  return " ".join(f"{profile.overview} {profile.description}".split())
