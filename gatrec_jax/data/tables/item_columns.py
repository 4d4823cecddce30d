"""What the columns of a table of items are: its ids, titles, genres, people, years, texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_THINGS = (
  *("item", "product", "movie", "film", "book", "track", "song", "album", "game", "anime", "app"),
  *("show", "series", "recipe", "article", "news", "video", "course", "business"),
)
_IDS = (
  *("item_id", "itemid", "movie_id", "movieid", "film_id", "book_id", "bookid", "product_id"),
  *("productid", "track_id", "trackid", "song_id", "artist_id", "artistid", "game_id", "anime_id"),
  *("app_id", "appid", "business_id", "recipe_id", "article_id", "news_id", "video_id", "asin"),
  *("parent_asin", "isbn", "isbn13", "isbn10", "sku", "id", "item"),
)
# A column that only counts rows, as other tools write it.
_COUNTERS = ("", "index", "unnamed_0", "level_0")


@dataclasses.dataclass(frozen=True)
class Kind:
  """A field and the columns that hold it.

  Attributes:
    field: its name in the result.
    form: `title` or `line` (one text), `terms` (a list of keywords), `names` (of people and makers,
      as text), `name` (one name, as a list), `year`, or `prose` (paragraphs).
    spellings: names of columns as `plain_name` gives them, the likeliest first.
  """

  field: str
  form: str
  spellings: tuple[str, ...]


def _named(field: str, form: str, *more: str) -> Kind:
  """A kind whose columns may be singular or plural, and may end in "name"."""
  one = field.removesuffix("s")
  return Kind(field, form, (field, one, f"{one}s", f"{one}_name", f"{one}_names", *more))


_KINDS = (
  Kind(
    "title",
    "title",
    (
      *("title", "name", *(f"{thing}_title" for thing in _THINGS)),
      *(*(f"{thing}_name" for thing in _THINGS), "track", "song", "headline", "original_title"),
    ),
  ),
  Kind(
    "genres",
    "terms",
    (
      *("genres", "genre", "main_category", "main_categories", "main_cat", "categories"),
      *("category", "category_name", "sub_category", "sub_categories", "subcategory"),
      *(*(f"{thing}_genre" for thing in _THINGS), *(f"{thing}_genres" for thing in _THINGS)),
      *(*(f"{thing}_category" for thing in _THINGS), "genre_list", "genre_names"),
      "class",  # of RecBole's MovieLens
    ),
  ),
  Kind("tags", "terms", ("tags", "tag", "tag_list", "labels", "themes", "topics", "subjects")),
  Kind("keywords", "terms", ("keywords", "keyword", "plot_keywords")),
  _named("director", "names", "directors"),
  _named("actors", "names", "starring", "stars"),
  _named("cast", "names"),
  _named("writer", "names", "screenwriter", "screenwriters"),
  _named("author", "names", "book_author", "book_authors"),
  _named("artist", "names", "track_artist", "song_artist", "album_artist", "singer", "band"),
  _named("composer", "names"),
  _named("crew", "names"),
  Kind("brand", "name", ("brand", "brand_name", "product_brand")),
  Kind("manufacturer", "name", ("manufacturer", "manufacturer_name")),
  _named("developer", "names"),
  _named("publisher", "name", "book_publisher"),
  _named("studio", "names", "production_companies"),
  Kind(
    "year",
    "year",
    (
      *("year", "release_year", "year_of_release", "year_of_publication", "publication_year"),
      *("original_publication_year", "published_year", "pub_year", "start_year", "startyear"),
    ),
  ),
  Kind(
    "release_date",
    "year",
    (
      *("release_date", "released", "publication_date", "publish_date", "published_date"),
      *("pub_date", "published", "date", "date_published", "first_air_date"),
    ),
  ),
  Kind("overview", "prose", ("overview", "movie_overview", "storyline")),
  Kind("plot", "prose", ("plot", "plot_summary", "movie_plot")),
  Kind("summary", "prose", ("summary", "book_summary", "short_summary")),
  Kind("synopsis", "prose", ("synopsis", "sypnopsis")),  # so spelled in a well-known anime table
  Kind(
    "description",
    "prose",
    (
      *("description", *(f"{thing}_description" for thing in _THINGS), "desc"),
      *("short_description", "long_description", "about", "blurb", "details_text"),
    ),
  ),
  Kind("abstract", "prose", ("abstract",)),
  Kind("text", "prose", ("text", "content", "body")),
  Kind("features", "prose", ("features", "feature", "bullet_points", "highlights")),
  Kind("tagline", "line", ("tagline", "subtitle")),
)
# Their values are ids of other items.
_RELATED = frozenset(
  (
    *("also_buy", "also_bought", "also_view", "also_viewed", "bought_together", "related"),
    *("buy_after_viewing", "similar_item", "similar_items"),
  )
)


@dataclasses.dataclass(frozen=True)
class ItemColumn:
  """A column of a table of items.

  Attributes:
    name: as in the file. field: its name in the result. form: as in `Kind`, or `other`.
    known: whether its name says what it is.
    commas: whether commas separate its terms even where nothing else shows that they do; names of
      categories may contain some.
  """

  name: str
  field: str
  form: str
  known: bool
  commas: bool = False


def plain_name(name: str) -> str:
  """A column's name in lower case, with underscores.

  >>> [plain_name(name) for name in ("Book-Title", "movieId", "ISBN")]
  ['book_title', 'movie_id', 'isbn']
  """
  words = _HUMP.sub("_", name).casefold()
  return re.sub(r"[\W_]+", "_", words).strip("_")


def canonical_field(name: str) -> str | None:
  """The field as which a column of this name is read; None for names of no known kind.

  >>> canonical_field("Category"), canonical_field("price")
  ('genres', None)
  """
  plain = plain_name(name)
  return next((kind.field for kind in _KINDS if plain in kind.spellings), None)


def columns_of(names: Iterable[str], *, id_column: str) -> list[ItemColumn]:
  """What each column but the ids is, in the order of the file.

  Where several hold the same, genres and keywords are joined; of other fields, the likeliest
  spelling counts and the others keep their own names.

  Args: names: of all columns. id_column: the one that holds the ids.
  """
  others = [name for name in names if name != id_column]
  found: dict[str, ItemColumn] = {}
  stem = re.sub(r"_?id$", "", plain_name(id_column))
  for kind in _KINDS:
    spellings = kind.spellings
    if kind.field == "title" and stem:
      spellings += (stem, f"{stem}_name", f"{stem}_title")
    left = [name for name in others if name not in found and plain_name(name) in spellings]
    left.sort(key=lambda name, order=spellings: order.index(plain_name(name)))
    for name in left if kind.form == "terms" else left[:1]:
      found[name] = ItemColumn(
        name, kind.field, kind.form, known=True, commas="cat" not in plain_name(name)
      )
  fields = {column.field for column in found.values()}
  for name in others:
    if name not in found:
      own = plain_name(name)
      field = own if own and own not in fields else name
      fields.add(field)
      found[name] = ItemColumn(name, field, "other", known=False)
  return [found[name] for name in others]


def is_related(column: ItemColumn) -> bool:
  """Whether the column holds ids of other items."""
  return plain_name(column.name) in _RELATED


def named_id_column(names: Sequence[str], *, item_column: str) -> str | None:
  """The column whose name says that it holds the ids; None if none or several do.

  Args: item_column: its name in the table of interactions, which comes first.
  """
  if item_column in names:
    return item_column
  plain: Mapping[str, str] = {plain_name(name): name for name in reversed(names)}
  for spelling in (plain_name(item_column), *_IDS):
    if spelling and spelling in plain:
      return plain[spelling]
  ending = [name for name in names if re.search(r"(?:_id|_code|_key)$", plain_name(name))]
  return ending[0] if len(ending) == 1 else None


def may_be_ids(name: str) -> bool:
  """Whether a column of this name could hold ids, if its values are like ids."""
  if plain_name(name) in _COUNTERS:
    return False
  return not any(plain_name(name) in kind.spellings for kind in _KINDS)
