"""What the answer about an item may consist of: words and phrases of its own metadata.

A model that chooses among them, and writes its sentence in the words of the metadata, invents
neither plot nor people. What it adds are choices: what matters, how the item feels, what it is not.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gatrec_jax.profiles import builder
from gatrec_jax.profiles.keywords import STOP_WORDS, keywords_of
from gatrec_jax.profiles.quality import stem, stems_of
from gatrec_jax.profiles.schema import Profile
from gatrec_jax.profiles.writer.domains import Domain

_TOKEN = re.compile(r"[^\W\d_][\w'’-]*|[^\w\s]|\S+")
_VERBAL = re.compile(r"(?:ly|ed|ing)$")
_MOST_TAGS, _MOST_SINGLE, _MOST_OTHERS = 14, 10, 6
_SEGMENT = re.compile(r"[,(;:|\[]| [-–—] ")
_PHRASE_WORDS = (2, 3)
# Titles with a phrase, for it to name a kind of products.
_KIND_ITEMS = 3
_MOST_TASTES = 24
_MOST_WORDS = 160  # of its metadata in an item's sentence


@dataclasses.dataclass(frozen=True)
class Candidates:
  """What an answer may consist of, each in the order of the metadata.

  Attributes:
    genres: to choose from; () where they are known.
    tags: phrases. moods: that suit its genres.
    others: genres (or kinds of items) that it does not have.
    words: of its sentence, beside links and words of judgment.
  """

  genres: tuple[str, ...] = ()
  tags: tuple[str, ...] = ()
  moods: tuple[str, ...] = ()
  others: tuple[str, ...] = ()
  words: tuple[str, ...] = ()


class Catalog:
  """Finds the candidates of every item of a catalog."""

  def __init__(
    self, item_fields: Sequence[Mapping[str, Any]], built: Sequence[Profile | None], domain: Domain
  ) -> None:
    """Args: item_fields: [I]. built: [I] profiles without a model. domain: of the items."""
    self._fields, self._built, self._domain = item_fields, built, domain
    self._titles = [builder.plain_title(builder.one_line(f.get("title"))) for f in item_fields]
    self._texts = [
      "\n".join(
        filter(
          None,
          [
            builder.first_text(fields, builder.OVERVIEW_FIELDS),
            builder.one_line(fields.get("tagline")),
          ],
        )
      )
      for fields in item_fields
    ]
    # Words that are written in lower case somewhere are no names.
    self._small = {
      word for text in self._texts for word in _TOKEN.findall(text) if word[0].islower()
    }
    self._keywords = keywords_of(self._texts, most=_MOST_SINGLE)
    genres = collections.Counter(
      genre for profile in built if profile is not None for genre in profile.genres
    )
    self._genres = [genre for genre, _ in genres.most_common()] or list(domain.genres)
    self._kinds = [] if self._genres else self._common_kinds()
    self._unlike = builder.unlike_genres(
      [() if profile is None else profile.genres for profile in built], most=_MOST_OTHERS
    )

  def of(self, item: int) -> Candidates:
    """The candidates of an item with a built profile."""
    built = self._built[item]
    own = stems_of(built.genres)
    tags = tuple(tag for tag in self._tags(item) if not stems_of([tag]) <= own)
    known = stems_of((self._titles[item], self._texts[item], *tags, *built.genres))
    if built.genres:
      genres: tuple[str, ...] = ()
      others: Iterable[str] = self._unlike(built.genres) or self._genres
    elif self._genres:
      genres = others = tuple(self._genres)
    else:
      genres, others = _kinds_of(self._titles[item]), self._kinds
    return Candidates(
      genres=genres,
      tags=tags,
      moods=tuple(
        mood
        for mood in self._domain.moods_of(built.genres)
        if mood not in {tag.lower() for tag in tags}
      ),
      others=tuple(
        other for other in others if other not in built.genres and not stems_of([other]) & known
      )[:_MOST_OTHERS],
      words=self._words(item),
    )

  def _tags(self, item: int) -> tuple[str, ...]:
    """Given tags; without any, phrases and salient words of the text, else of the title."""
    given = _given_tags(self._fields[item])
    if given:
      return tuple(given)[:_MOST_TAGS]
    text = self._texts[item] or self._titles[item]
    salient = {stem(word) for word in self._keywords[item]}
    phrases = sorted(
      self._phrases(text), key=lambda phrase: -sum(stem(word) in salient for word in phrase.split())
    )[: _MOST_TAGS // 2]
    within = {word for phrase in phrases for word in phrase.split()}
    singles = [
      word
      for word in self._cased_words(text)
      if stem(word) in salient and word not in within and not _VERBAL.search(word)
    ]
    chosen = dict.fromkeys([*phrases, *list(dict.fromkeys(singles))[: _MOST_TAGS - len(phrases)]])
    lower = text.lower()
    return tuple(sorted(chosen, key=lambda tag: lower.find(tag.lower())))

  def _phrases(self, text: str) -> list[str]:
    """Two or three words of content in a row, such as "lighthouse keeper"."""
    found: dict[str, None] = {}
    run: list[str] = []
    for token in [*_TOKEN.findall(text), "."]:
      word = self._cased(token)
      if len(word) > 2 and word.lower() not in STOP_WORDS and not _VERBAL.search(word):
        run.append(word)
        continue
      if len(run) in _PHRASE_WORDS:
        found.setdefault(" ".join(run))
      run = []
    return list(found)

  def _cased(self, token: str) -> str:
    """A word, in lower case unless it is a name; "" for names in stories and for no words."""
    if not token[0].isalpha() or not _is_plain(token) or any(c.isdigit() for c in token):
      return ""
    if token.lower() in self._small:
      return token.lower()
    return "" if self._domain.genres else token

  def _cased_words(self, text: str) -> list[str]:
    return [word for token in _TOKEN.findall(text) if (word := self._cased(token))]

  def _words(self, item: int) -> tuple[str, ...]:
    """The words of the metadata; those of a title only where it is no name. () without a text."""
    fields = self._fields[item]
    texts = [self._texts[item]] if self._domain.genres else [self._titles[item], self._texts[item]]
    told = [word for text in texts for word in self._cased_words(text)]
    told += [word.lower() for tag in _given_tags(fields) for word in _TOKEN.findall(tag)]
    if not told:
      return ()
    # The sentence begins with the genres.
    genres = stems_of(builder.genres_of(fields))
    kept = (
      word
      for word in told
      if (len(word) > 2 or word.isupper())
      and _is_plain(word)
      and stem(word) not in genres
      and word.replace("’", "'").lower() not in STOP_WORDS
    )
    return tuple(dict.fromkeys(kept))[:_MOST_WORDS]

  def _common_kinds(self) -> list[str]:
    """Kinds that several titles name, the most common first, each in one form."""
    counts = collections.Counter(kind for title in self._titles for kind in _kinds_of(title)[:1])
    found: dict[str, str] = {}
    for kind, count in counts.most_common():
      if count >= _KIND_ITEMS:
        found.setdefault(" ".join(map(stem, kind.split())), kind)
    return list(found.values())


def taste_candidates(items: Sequence[Profile], present: Profile, *, liked: bool) -> Candidates:
  """What an answer about a user may consist of: terms of some items, and of the profile so far.

  Args: items: profiles of the items. present: the profile so far. liked: whether the user liked
    the items, or disliked them.
  Returns: genres and tags that the user may like, the commonest first; others: that they may avoid.
  """
  genres = _commonest([present.genres, *(item.genres for item in items if liked)])
  tags = _commonest([present.tags, *(item.tags for item in items if liked)])
  if not liked and present == Profile():  # all that is known is disliked
    genres, tags = (_commonest(getattr(item, f) for item in items) for f in ("genres", "tags"))
  kept = stems_of([*genres, *tags]) if present != Profile() else set()
  avoided = _commonest([present.dislikes, *((*item.genres, *item.tags) for item in items)])
  texts = [text for item in items for text in (item.overview, item.description)]
  small = [word for text in texts for word in _TOKEN.findall(text) if word.islower()]
  words = [word.lower() for term in (*genres, *tags) for word in _TOKEN.findall(term)]
  words += [word for word in [*present.overview.split(), *small] if word.islower()]
  return Candidates(
    genres=genres[:_MOST_TASTES],
    tags=tags[:_MOST_TASTES],
    others=()
    if liked
    else tuple(term for term in avoided if not stems_of([term]) <= kept)[:_MOST_TASTES],
    words=tuple(
      dict.fromkeys(
        word
        for word in words
        if len(word) > 2 and word[0].isalpha() and _is_plain(word) and word not in STOP_WORDS
      )
    )[:_MOST_WORDS],
  )


def _commonest(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
  counts = collections.Counter(term for terms in lists for term in terms if _is_plain(term))
  return tuple(term for term, _ in counts.most_common())


def _given_tags(fields: Mapping[str, Any]) -> list[str]:
  tags = (tag for name in builder.TAG_FIELDS for tag in builder.terms_of(fields.get(name)))
  return list(dict.fromkeys(filter(_is_plain, tags)))


def _kinds_of(title: str) -> tuple[str, ...]:
  """What a title may say that an item is: the last words before its first comma or bracket.

  >>> _kinds_of("HP 74 Black Ink Cartridges, 2 Cartridges")
  ('Ink Cartridges', 'Black Ink Cartridges', 'Cartridges')
  """
  run: list[str] = []
  ended = False
  for token in _TOKEN.findall(_SEGMENT.split(title)[0]):
    if not token[0].isalpha() or not _is_plain(token) or token.lower() in STOP_WORDS:
      ended = True
      continue
    run = [] if ended else run
    run.append(token if token.isupper() else token.capitalize())
    ended = False
  sizes = [size for size in (*_PHRASE_WORDS, 1) if size <= len(run)]
  return tuple(" ".join(run[-size:]) for size in sizes)


def _is_plain(text: str) -> bool:
  """Whether a text can stand in an answer without escapes, and in a list of keywords."""
  return bool(text) and text.isprintable() and not set(text) & set('"\\,.;()[]{}*#•|')
