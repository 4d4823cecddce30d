"""How items of different kinds are described: words of judgment, genres, examples for the model.

The examples are made up. Their answers fit the form that their own fields give (a test checks it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gatrec_jax.data.nouns import kind_of, plural, tells_a_story

# Words that join others and say nothing by themselves; a sentence does not end with one of them.
LINKS = tuple(
  """
  a about after against all an and another are as at away back be because become becomes before
  behind between both but by can comes down during every find finds first follow follows for from
  has have help helps her him himself his how in into is it its keeps learn learns many meet meets
  most must new no not of off on one only or other out over set she some take takes than that the
  their them then they this three through to together tries turns two under until up want wants was
  were what when where which while who whose with without
  """.split()
)
_START_GENRES, _START_MOODS = 2, 6
TASTE_STARTS = ("Enjoys", "Likes", "Looks for", "Prefers", "Wants")


@dataclasses.dataclass(frozen=True)
class Example:
  """An item and what is to be answered. Attributes: fields: as in `Dataset.item_fields`.
  others: genres that it might not have. answer: by field."""

  fields: Mapping[str, Any]
  others: tuple[str, ...]
  answer: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Domain:
  """A kind of items.

  Attributes:
    moods: by genre in lower case, how its items usually feel. No metadata say this; a model chooses
      among those of an item's genres, for small ones call everything funny.
    genres: for catalogs that name none; () where the kind of an item stands in its title.
    joint: between what an item is and what its metadata tell of it; "" where a sentence about it
      begins with these at once.
    examples: the first is the most typical one; {noun} stands for what an item is called.
  """

  moods: Mapping[str, tuple[str, ...]]
  genres: tuple[str, ...]
  joint: str
  examples: tuple[Example, ...]

  def moods_of(self, genres: Iterable[str]) -> tuple[str, ...]:
    """The moods of some genres, each once, in order."""
    found = (mood for genre in genres for mood in self.moods.get(genre.casefold(), ()))
    return tuple(dict.fromkeys(found))

  def judgment(self, noun: str) -> tuple[str, ...]:
    """All words of an item's profile that its metadata need not contain: moods and its noun."""
    return (*self.moods_of(self.moods), noun, plural(noun))

  def starts(self, noun: str, genres: Sequence[str], moods: Sequence[str]) -> tuple[str, ...]:
    """How a sentence about an item may begin: "A tense crime film about".

    Args: noun: what it is called. genres, moods: of it; () if unknown.
    """
    if not self.joint:
      return ("A", "An", "The")
    kinds = [kind_of(genre.lower(), noun) for genre in genres[:_START_GENRES]] or [noun]
    heads = [f"{mood} {kind}" for kind in kinds for mood in moods[:_START_MOODS]] + kinds
    articles = ("An" if head[0] in "aeiou" else "A" for head in heads)
    pairs = zip(articles, heads, strict=True)
    return tuple(dict.fromkeys(f"{article} {head} {self.joint}" for article, head in pairs))


def _table(text: str) -> dict[str, tuple[str, ...]]:
  """Reads lines such as "comedy, humor: funny light witty"."""
  found = {}
  for line in text.strip().splitlines():
    names, _, words = line.partition(":")
    found |= dict.fromkeys(map(str.strip, names.split(",")), tuple(words.split()))
  return found


_STORY = Domain(
  moods=_table("""
    action: exciting fast fierce
    adventure: daring exciting wild
    animation: colorful playful
    children's, children, kids, family: gentle playful sweet
    comedy, humor, parody: funny light witty
    crime, police, mafia: dark gritty tense
    documentary, biography: informative thoughtful
    drama, josei, seinen: moving serious thoughtful
    fantasy, magic, supernatural: magical strange wondrous
    film-noir, noir: bleak dark
    history, historical: epic serious
    horror, vampire: dark eerie scary
    musical, music: cheerful lively
    mystery: mysterious tense
    psychological, thriller, suspense: dark tense
    romance, shoujo: romantic tender warm
    sci-fi, science fiction, mecha, space: futuristic strange
    school, slice of life: gentle light warm
    sports: exciting inspiring
    war, military: grim serious
    western, samurai: rugged tough
  """),
  joint="about",
  genres=(
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Drama",
    "Family",
    "Fantasy",
    "History",
    "Horror",
    "Mystery",
    "Romance",
    "Science Fiction",
    "Thriller",
    "War",
    "Western",
  ),
  examples=(
    Example(
      {
        "title": "The Glass Ferry (1988)",
        "genres": ["Drama", "Mystery"],
        "overview": "A lighthouse keeper finds an empty ferry drifting in the fog. With her "
        "estranged brother she follows its logbook from harbor to harbor, and learns what became "
        "of their father.",
      },
      ("Comedy", "Musical", "War", "Western"),
      {
        "tags": ["lighthouse keeper", "empty ferry", "brother", "harbor"],
        "moods": ["moving", "mysterious"],
        "description": "A moving drama {noun} about a lighthouse keeper who finds an empty ferry "
        "and follows its logbook.",
        "dislikes": ["Comedy", "Western"],
      },
    ),
    Example(
      {
        "title": "Two Left Boots (1996)",
        "genres": ["Comedy", "Romance"],
        "overview": "Two rival cobblers in a mountain town must share one workshop for a winter. "
        "Their quarrels end when a runaway bride asks both of them for wedding shoes.",
      },
      ("Horror", "Sci-Fi", "Thriller", "War"),
      {
        "tags": ["rival cobblers", "mountain town", "quarrels", "shoes"],
        "moods": ["funny", "warm"],
        "description": "A funny comedy {noun} about two rival cobblers who must share one workshop "
        "in a mountain town.",
        "dislikes": ["Horror", "War"],
      },
    ),
  ),
)
_MUSIC = Domain(
  moods=_table("""
    blues: raw sad slow
    classical: calm elegant
    country, folk: calm intimate warm
    electronic, dance, techno, house: energetic hypnotic
    hip-hop, rap: energetic raw
    jazz: mellow smooth
    latin, reggae: lively warm
    metal, punk: aggressive loud
    pop: bright catchy
    rock, alternative, indie: energetic loud raw
    soul, r&b: smooth tender
  """),
  joint="with",
  genres=(
    "Blues",
    "Classical",
    "Country",
    "Electronic",
    "Folk",
    "Hip-Hop",
    "Jazz",
    "Latin",
    "Metal",
    "Pop",
    "Punk",
    "Reggae",
    "Rock",
    "Soul",
  ),
  examples=(
    Example(
      {
        "title": "Harbor Lights at Four",
        "genres": ["Folk"],
        "tags": ["acoustic guitar", "slow", "night", "harmonies"],
        "overview": "Acoustic guitar and close harmonies, recorded in a boathouse at night.",
      },
      ("Electronic", "Metal", "Punk"),
      {
        "tags": ["acoustic guitar", "night", "harmonies"],
        "moods": ["calm", "intimate"],
        "description": "A calm folk {noun} with acoustic guitar and close harmonies.",
        "dislikes": ["Metal", "Punk"],
      },
    ),
  ),
)
_GAME = Domain(
  moods=_table("""
    action, shooter: fast intense
    adventure: exciting immersive
    casual, puzzle: clever relaxing
    horror: dark scary
    racing, sports: competitive fast
    role-playing, rpg: epic immersive
    simulation: detailed peaceful relaxing
    strategy: challenging tactical
  """),
  joint="about",
  genres=(
    "Action",
    "Adventure",
    "Casual",
    "Puzzle",
    "Racing",
    "Role-Playing",
    "Shooter",
    "Simulation",
    "Sports",
    "Strategy",
  ),
  examples=(
    Example(
      {
        "title": "Beekeeper's Year",
        "genres": ["Simulation"],
        "overview": "Raise bees through four seasons, trade honey with the village and protect "
        "your hives from wasps and frost.",
      },
      ("Racing", "Shooter", "Sports"),
      {
        "tags": ["bees", "trade honey", "village", "hives"],
        "moods": ["peaceful", "relaxing"],
        "description": "A peaceful simulation {noun} about bees, honey and frost.",
        "dislikes": ["Shooter", "Sports"],
      },
    ),
  ),
)
_RECIPE = Domain(
  moods={},
  joint="with",
  genres=("Breakfast", "Dessert", "Drink", "Main Dish", "Salad", "Side Dish", "Snack", "Soup"),
  examples=(
    Example(
      {
        "title": "Grandmother's Barley Soup",
        "genres": ["Soup"],
        "overview": "Made of pearl barley, carrots and bacon, simmered for two hours.",
      },
      ("Dessert", "Drink", "Salad"),
      {
        "tags": ["pearl barley", "carrots", "bacon"],
        "description": "A soup {noun} with pearl barley, carrots and bacon.",
        "dislikes": ["Dessert", "Drink"],
      },
    ),
  ),
)
_ARTICLE = Domain(
  moods={},
  joint="about",
  genres=(
    "Business",
    "Culture",
    "Economy",
    "Health",
    "Politics",
    "Science",
    "Sports",
    "Technology",
    "Travel",
    "Weather",
  ),
  examples=(
    Example(
      {
        "title": "Night trains return to the northern coast",
        "genres": ["Travel"],
        "overview": "After ten years, night trains connect the capital with the harbor towns "
        "again. Tickets cost less than a flight.",
      },
      ("Health", "Politics", "Sports"),
      {
        "tags": ["night trains connect", "capital", "harbor towns"],
        "description": "A travel {noun} about night trains from the capital to the harbor towns.",
        "dislikes": ["Politics", "Sports"],
      },
    ),
  ),
)
_PRODUCT = Domain(
  moods={},
  joint="",
  genres=(),
  examples=(
    Example(
      {
        "title": "Larkfield Gel Pens, Fine Point, Blue, 12 Pack",
        "overview": "These gel pens have a rubber grip and quick drying ink that does not smear. "
        "For notes and journals.",
      },
      ("Desk Lamps", "File Folders", "Staplers"),
      {
        "genres": ["Gel Pens"],
        "tags": ["rubber grip", "ink", "notes", "journals"],
        "description": "The gel pens have a rubber grip and quick drying ink for notes and "
        "journals.",
        "dislikes": ["Desk Lamps", "Staplers"],
      },
    ),
    Example(
      {
        "title": "Oakmere Steel Letter Tray, 3 Tiers, Black",
        "overview": "Keeps a desk tidy: a steel tray with three tiers for letters, forms and "
        "folders. Rubber feet protect the table.",
      },
      ("Ink Cartridges", "Notebooks", "Tape Dispensers"),
      {
        "genres": ["Letter Tray"],
        "tags": ["desk tidy", "steel tray", "folders"],
        "description": "A steel tray with three tiers for letters, forms and folders.",
        "dislikes": ["Ink Cartridges", "Notebooks"],
      },
    ),
  ),
)
_BY_NOUN = {
  "song": _MUSIC,
  "track": _MUSIC,
  "album": _MUSIC,
  "artist": _MUSIC,
  "game": _GAME,
  "recipe": _RECIPE,
  "article": _ARTICLE,
}


def domain_of(noun: str) -> Domain:
  """The domain of an item's noun; products where it is unknown."""
  return _STORY if tells_a_story(noun) else _BY_NOUN.get(noun, _PRODUCT)
