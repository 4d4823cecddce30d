"""`demo`: a synthetic catalog with planted tastes, determined by its seed.

A user's utility of an item is the sum of two planted components. One shows in the texts: genres and
themes, which the overviews mention. The other is a hidden style that shows only in who rates what.
Text and graph thus each carry signal that the other lacks. Some users and items have almost no
ratings, and popularity is skewed, as in real catalogs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax.data.interactions import Dataset, Interactions

NUM_USERS, NUM_ITEMS = 600, 800
_STYLES = 8
_RATINGS_PER_USER = 68
_COLD_USER_SHARE, _COLD_ITEM_SHARE = 0.1, 0.1

# The themes of each genre, and the words that overviews use for each theme.
_THEMES: dict[str, dict[str, tuple[str, ...]]] = {
  "Adventure": {
    "voyage": ("ship", "island", "map", "storm", "captain", "harbor"),
    "expedition": ("mountain", "glacier", "guide", "summit", "ravine", "camp"),
    "treasure": ("vault", "relic", "riddle", "temple", "desert", "caravan"),
  },
  "Comedy": {
    "wedding": ("bride", "rehearsal", "cake", "in-laws", "vows", "best man"),
    "office": ("manager", "memo", "cubicle", "intern", "promotion", "copier"),
    "disguise": ("wig", "masquerade", "impostor", "alias", "double", "farce"),
  },
  "Drama": {
    "family": ("inheritance", "farmhouse", "sisters", "reunion", "letters", "orchard"),
    "courtroom": ("verdict", "witness", "jury", "attorney", "appeal", "testimony"),
    "illness": ("ward", "surgeon", "recovery", "diagnosis", "hospice", "nurse"),
  },
  "Thriller": {
    "conspiracy": ("dossier", "agency", "informant", "cipher", "cover-up", "whistleblower"),
    "heist": ("safecracker", "blueprint", "getaway", "diamond", "alarm", "crew"),
    "stalker": ("phone call", "shadow", "locksmith", "basement", "stairwell", "hostage"),
  },
  "Science Fiction": {
    "space": ("orbit", "airlock", "colony", "starship", "crewmate", "asteroid"),
    "machines": ("android", "circuit", "upload", "laboratory", "algorithm", "prototype"),
    "time travel": ("paradox", "timeline", "wormhole", "yesterday", "loop", "chronometer"),
  },
  "Romance": {
    "summer": ("beach", "lifeguard", "postcard", "sunset", "villa", "regatta"),
    "city lovers": ("cafe", "taxi", "rooftop", "violinist", "apartment", "bookshop"),
    "second chance": ("divorce", "hometown", "ballroom", "old flame", "promise", "lighthouse"),
  },
  "Horror": {
    "haunting": ("mansion", "seance", "attic", "apparition", "candle", "nursery"),
    "creature": ("swamp", "claws", "hunters", "lair", "bite", "fog"),
    "cult": ("ritual", "elder", "cellar", "sacrifice", "hymn", "woods"),
  },
  "Documentary": {
    "nature": ("rainforest", "migration", "reef", "wolves", "drought", "canopy"),
    "music": ("rehearsal room", "album", "tour", "drummer", "archive footage", "encore"),
    "sports": ("coach", "marathon", "stadium", "underdogs", "trainer", "final"),
  },
}
_GENRES = tuple(_THEMES)
_THEME_NAMES = tuple((genre, theme) for genre in _GENRES for theme in _THEMES[genre])
_OPENINGS = (
  "A story of the {0} and the {1}",
  "It begins with the {0} and ends with the {1}",
  "Between the {0} and the {1}, nothing stays as it was",
  "Nobody expected the {0}, least of all the {1}",
)
_MIDDLES = (
  "soon the {0} and the {1} change everything",
  "what follows is a matter of the {0} and the {1}",
  "the {0} hides more than the {1} reveals",
  "all that remains is the {0} and the {1}",
)
_ADJECTIVES = (
  "Silent",
  "Golden",
  "Last",
  "Broken",
  "Distant",
  "Crimson",
  "Hidden",
  "Restless",
  "Paper",
  "Northern",
  "Gentle",
  "Hollow",
  "Electric",
  "Forgotten",
  "Bitter",
  "Midnight",
)
_NOUNS = (
  "River",
  "Garden",
  "Signal",
  "Winter",
  "Mirror",
  "Station",
  "Kingdom",
  "Letter",
  "Engine",
  "Harvest",
  "Compass",
  "Theatre",
  "Circle",
  "Window",
  "Frontier",
  "Lantern",
  "Bridge",
  "Parade",
)


@dataclasses.dataclass(frozen=True)
class Planted:
  """The demo catalog with its true utilities.

  Attributes:
    dataset: the catalog and its ratings.
    utility: [U, I] float32, how much each user would like each item; higher is better.
  """

  dataset: Dataset
  utility: np.ndarray


def make_demo(seed: int = 0) -> Dataset:
  """The demo catalog: 600 users, 800 items, about 40,000 ratings from 1 to 5."""
  return plant(seed).dataset


def plant(seed: int = 0) -> Planted:
  """The demo catalog and its true utilities; the same seed gives the same bytes."""
  rng = np.random.Generator(np.random.PCG64(seed))
  themes = _item_themes(rng)
  item_text = _unit(themes @ _theme_similarity())
  item_style = _unit(rng.normal(size=(NUM_ITEMS, _STYLES)))
  taste = np.zeros((NUM_USERS, len(_THEME_NAMES)))
  for user in range(NUM_USERS):
    liked = rng.choice(len(_THEME_NAMES), size=4, replace=False)
    taste[user, liked] = rng.uniform(0.6, 1.0, size=4)
    avoided = rng.choice(len(_THEME_NAMES), size=3, replace=False)
    taste[user, avoided] -= 0.7
  user_text = _unit(taste @ _theme_similarity())
  user_style = _unit(rng.normal(size=(NUM_USERS, _STYLES)))
  quality = rng.normal(size=NUM_ITEMS)
  utility = 2.6 * user_text @ item_text.T + 2.0 * user_style @ item_style.T + 0.25 * quality

  fame = 0.9 * rng.normal(size=NUM_ITEMS) + 0.2 * quality
  fame[rng.permutation(NUM_ITEMS)[: int(_COLD_ITEM_SHARE * NUM_ITEMS)]] -= 3.0
  count = np.clip(rng.lognormal(np.log(_RATINGS_PER_USER) - 0.18, 0.6, NUM_USERS), 10, 400)
  count[rng.permutation(NUM_USERS)[: int(_COLD_USER_SHARE * NUM_USERS)]] = 6
  user, item = [], []
  for u in range(NUM_USERS):
    # Gumbel top-k: without replacement, in proportion to exp(fame + interest).
    appeal = fame + 0.9 * utility[u] + rng.gumbel(size=NUM_ITEMS)
    chosen = np.argsort(-appeal)[: int(count[u])]
    user.append(np.full(len(chosen), u))
    item.append(rng.permutation(chosen))
  user, item = np.concatenate(user), np.concatenate(item)
  noisy = utility[user, item] + 0.5 * rng.normal(size=len(user))
  rating = 1.0 + np.searchsorted(np.quantile(noisy, (0.08, 0.22, 0.45, 0.75)), noisy)
  start = rng.integers(946_684_800, 1_009_843_200, NUM_USERS)  # years 2000 and 2001
  interactions = Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=rating.astype(np.float32),
    timestamp=start[user] + np.arange(len(user), dtype=np.int64) * 60,
    user_ids=tuple(str(u + 1) for u in range(NUM_USERS)),
    item_ids=tuple(str(i + 1) for i in range(NUM_ITEMS)),
  )
  fields = [_describe(rng, themes[i], i) for i in range(NUM_ITEMS)]
  dataset = Dataset(name="demo", interactions=interactions, item_fields=fields)
  return Planted(dataset, utility.astype(np.float32))


def _item_themes(rng: np.random.Generator) -> np.ndarray:
  """[I, themes] weights: a main theme for each item, for half of them a second one."""
  themes = np.zeros((NUM_ITEMS, len(_THEME_NAMES)))
  for i in range(NUM_ITEMS):
    main, other = rng.choice(len(_THEME_NAMES), size=2, replace=False)
    themes[i, main] = 1.0
    if rng.random() < 0.5:
      themes[i, other] = 0.6
  return themes


def _theme_similarity() -> np.ndarray:
  """[themes, themes]: 1 with itself, 0.35 with the other themes of the same genre."""
  genres = np.array([_GENRES.index(genre) for genre, _ in _THEME_NAMES])
  same_genre = (genres[:, None] == genres).astype(float)
  return 0.35 * same_genre + 0.65 * np.eye(len(genres))


def _unit(rows: np.ndarray) -> np.ndarray:
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _describe(rng: np.random.Generator, weights: np.ndarray, index: int) -> dict[str, object]:
  """Title, genres and overview of an item with those theme weights."""
  order = [t for t in np.argsort(-weights, kind="stable") if weights[t] > 0]
  words: list[str] = []
  for t, size in zip(order, (4, 2), strict=False):
    genre, theme = _THEME_NAMES[t]
    words += list(rng.choice(_THEMES[genre][theme], size=size, replace=False))
  if len(order) == 1:
    words += words[:2]
  opening, middle = rng.choice(_OPENINGS), rng.choice(_MIDDLES)
  overview = f"{opening.format(*words[:2])}; {middle.format(*words[2:4])}."
  overview += f" Then come the {words[4]} and the {words[5]}."
  title = f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)} {index + 1}"
  genres = list(dict.fromkeys(_THEME_NAMES[t][0] for t in order))
  return {
    "title": f"The {title} ({1960 + int(rng.integers(0, 60))})",
    "genres": genres,
    "overview": overview,
  }
