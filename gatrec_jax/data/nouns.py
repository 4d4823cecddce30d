"""What the items of a catalog are called: films, books, products, …"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gatrec_jax.data.tables.item_columns import plain_name
from gatrec_jax.data.tables.metadata import ItemMetadata

FILM, ITEM = "film", "item"
# Words in names of columns and files, the most telling nouns first.
_WORDS = {
  "anime": ("anime", "animes"),
  "manga": ("manga",),
  "book": ("book", "books", "isbn", "isbn13", "goodreads"),
  FILM: ("film", "films", "movie", "movies", "imdb", "tmdb", "movielens"),
  "song": ("song", "songs", "track", "tracks"),
  "game": ("game", "games", "steam"),
  "recipe": ("recipe", "recipes"),
  "article": ("article", "articles", "news"),
  "artist": ("artist", "artists"),
  "product": ("product", "products", "asin", "sku", "amazon"),
}
# Fields that nearly always belong to one noun, where no name has such a word.
_FIELDS = {
  FILM: ("director", "directors", "actors", "cast", "tagline"),
  "book": ("author", "authors", "book_author"),
  "song": ("album",),
  "game": ("developer", "developers"),
  "product": ("brand", "price", "manufacturer"),
}
_STORIES = frozenset(
  (
    FILM,
    "movie",
    "book",
    "novel",
    "comic",
    "story",
    "manga",
    "anime",
    "show",
    "series",
    "TV series",
  )
)
_SAME_IN_PLURAL = ("anime", "manga", "series", "news", "software", "music")


def noun_of_table(dataset: str, item_column: str, metadata: ItemMetadata) -> str:
  """What names of columns and files say that an item is; "item" if they do not.

  The item columns come first, then the columns of the metadata, then the names of the files and
  their folders.

  Args:
    dataset: path of the interactions. item_column: of it.
    metadata: of the items, maybe of none.
  """
  files = [Path(dataset), *([metadata.source.path] if metadata.source else [])]
  for names in (
    (item_column, metadata.id_column),
    metadata.columns,
    [path.stem for path in files],
    [path.parent.name for path in files],
  ):
    if found := _noun_in(names):
      return found
  fields = {plain_name(name) for name in metadata.columns}
  return next((noun for noun, known in _FIELDS.items() if fields & set(known)), ITEM)


def _noun_in(names: Iterable[str]) -> str:
  words = {word for name in names for word in plain_name(name).split("_")}
  return next((noun for noun, known in _WORDS.items() if words & set(known)), "")


def tells_a_story(noun: str) -> bool:
  """Whether such an item is about something, as films and books are."""
  return noun in _STORIES


def kind_of(terms: str, noun: str) -> str:
  """What a noun with these terms before it is called: "crime films", but "office products" once.

  >>> kind_of("crime", "films"), kind_of("office products", "products"), kind_of("", "films")
  ('crime films', 'office products', 'films')
  """
  if terms.casefold().endswith((noun.casefold(), plural(noun).casefold())):
    return terms
  return f"{terms} {noun}".strip()


def plural(noun: str) -> str:
  """The plural of an English noun.

  >>> [plural(noun) for noun in ("film", "anime", "dress", "story", "toy", "TV series")]
  ['films', 'anime', 'dresses', 'stories', 'toys', 'TV series']
  """
  if noun.rpartition(" ")[2].casefold() in _SAME_IN_PLURAL:
    return noun
  if re.search(r"(?:s|x|z|ch|sh)$", noun):
    return f"{noun}es"
  return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"
