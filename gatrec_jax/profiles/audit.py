"""What item profiles are worth, measured: form, repetition, grounding, agreement with co-ratings.

Everything here reads profiles and metadata alone. It does not know how a profile was written, so
that those of a model, built ones and published ones are measured alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.profiles import builder
from gatrec_jax.profiles.quality import (
  content_words,
  copied_keywords,
  given_texts,
  loops,
  named_people,
  plot_words,
  restated_dislikes,
  stem,
  stems_of,
  ungrounded_genres,
)
from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile

MEANINGS = {
  "schema": "profiles that parse and have every section",
  "loops": "profiles with three words in a row twice, a word more than twice in a sentence, or "
  "right after itself, each tag by itself",
  "copied keywords": "profiles with a keyword in two of genres, tags and dislikes",
  "restated dislikes": "profiles with a dislike that is in their own name, genres or tags",
  "grounded": "of the genres, people and plot words, those that the item's metadata contain",
  "words of judgment": "of the content words, those such as 'tense', which metadata need not "
  "contain; they are not plot words",
  "own words": "content words of a profile beyond what was given, on average",
}


@dataclasses.dataclass(frozen=True)
class Grounding:
  """Things that profiles say, and how many of them the metadata contain."""

  said: int = 0
  given: int = 0

  def __add__(self, other: Grounding) -> Grounding:
    return Grounding(self.said + other.said, self.given + other.given)

  @property
  def share(self) -> float | None:
    """None where nothing is said."""
    return self.given / self.said if self.said else None


@dataclasses.dataclass(frozen=True)
class TextFigures:
  """Figures of n profiles.

  Attributes:
    profiles: n. schema, loops, copied, restated: how many profiles, as in `MEANINGS`.
    genres, people, words: what they say.
    judgment, own_words: content words of judgment, and all beyond the given text.
  """

  profiles: int
  schema: int
  loops: int
  copied: int
  restated: int
  genres: Grounding
  people: Grounding
  words: Grounding
  judgment: int
  own_words: int

  @property
  def grounded(self) -> Grounding:
    """Genres, people and plot words together."""
    return self.genres + self.people + self.words

  def shares(self) -> dict[str, float | None]:
    """The figures as shares of profiles or of words; None where there is nothing to count."""
    n = self.profiles
    return {
      "schema": self.schema / n,
      "loops": self.loops / n,
      "copied keywords": self.copied / n,
      "restated dislikes": self.restated / n,
      "grounded": self.grounded.share,
      "genres": self.genres.share,
      "people": self.people.share,
      "plot words": self.words.share,
      "words of judgment": self.judgment / self.own_words if self.own_words else None,
      "own words": self.own_words / n,
    }


def text_figures(
  texts: Sequence[str],
  item_fields: Sequence[Mapping[str, Any]],
  *,
  people: Collection[str],
  judgment: Collection[str],
) -> TextFigures:
  """Measures profiles against the metadata of their items.

  An overview that is the given text is not the profile's own and counts for nothing.

  Args:
    texts: [n], n ≥ 1, as Markdown. item_fields: [n] of the same items.
    people: names in the credits of the whole catalog, see `quality.people_of`.
    judgment: words of judgment, see `domains.Domain.judgment`.
  """
  kinds = [_of_one(*pair, people, judgment) for pair in zip(texts, item_fields, strict=True)]
  first, *rest = kinds
  for other in rest:
    values = ((getattr(first, f.name), getattr(other, f.name)) for f in dataclasses.fields(first))
    first = TextFigures(*(a + b for a, b in values))
  return first


def liked_auc(
  vectors: np.ndarray, liked: Sequence[np.ndarray], rated: Sequence[np.ndarray]
) -> np.ndarray:
  """How often two items that a user liked are more similar than a liked and an unrated one.

  For each user, over all ordered pairs (i, j) of liked items and all items r that they have not
  rated: the share with cos(i, j) > cos(i, r), ties counting half (the area under the ROC curve,
  Hanley and McNeil 1982). .5 is chance.

  Args:
    vectors: [n, D] of items; zero vectors have a cosine of 0 with everything.
    liked, rated: [U] arrays of places in `vectors`; rated includes liked.
  Returns: [U] float64; NaN for users with fewer than two liked or no unrated items.
  """
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  unit = vectors / np.where(norms > 0, norms, 1)
  cosines = unit @ unit.T
  found = np.full(len(liked), np.nan)
  everything = np.arange(len(vectors))
  for user, (own, seen) in enumerate(zip(liked, rated, strict=True)):
    others = np.setdiff1d(everything, seen)
    if len(own) < 2 or not len(others):
      continue
    shares = []
    for i in own:
      pairs = cosines[i, own[own != i]][:, None]
      against = cosines[i, others]
      shares.append(((pairs > against) + 0.5 * (pairs == against)).mean())
    found[user] = np.mean(shares)
  return found


def _of_one(
  text: str, fields: Mapping[str, Any], people: Collection[str], judgment: Collection[str]
) -> TextFigures:
  profile = parse_profile(text)
  own = own_texts(profile, fields)
  given = given_texts(fields)
  known = stems_of(given)
  words = plot_words(own, judgment=judgment)
  named = named_people(" ".join(own), people)
  genres = len(profile.genres)
  content = sum(len(content_words(part)) for part in own)
  return TextFigures(
    profiles=1,
    schema=int(_is_whole(profile)),
    loops=int(any(loops(part) for part in (*_own_prose(profile, fields), *profile.tags))),
    copied=int(bool(copied_keywords(profile))),
    restated=int(bool(restated_dislikes(profile))),
    genres=Grounding(genres, genres - len(ungrounded_genres(profile, fields))),
    people=Grounding(len(named), sum(any(name in part for part in given) for name in named)),
    words=Grounding(len(words), sum(stem(word) in known for word in words)),
    judgment=content - len(words),
    own_words=content,
  )


def own_texts(profile: Profile, fields: Mapping[str, Any]) -> list[str]:
  """What a profile says beyond what was given: description, tags, and an overview of its own."""
  return list(filter(None, (*_own_prose(profile, fields), ", ".join(profile.tags))))


def _own_prose(profile: Profile, fields: Mapping[str, Any]) -> list[str]:
  given = builder.first_text(fields, builder.OVERVIEW_FIELDS)
  overview = "" if profile.overview == given else profile.overview
  return list(filter(None, (overview, profile.description)))


def _is_whole(profile: Profile) -> bool:
  sections = (profile.name, profile.overview, profile.genres, profile.tags, profile.description)
  return all((*sections, profile.dislikes)) and parse_profile(render_profile(profile)) == profile
