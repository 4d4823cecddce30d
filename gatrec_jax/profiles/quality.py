"""What is wrong with a profile, measured on its words: loops, copies, restated or invented things.

Words are compared by stems (`stem`), so that "toys" stands where "toy" is given. The measures know
nothing of how a profile was written; the writer's checks and the audit both use them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gatrec_jax.profiles.builder import CREDIT_FIELDS, genres_of, one_line, terms_of
from gatrec_jax.profiles.keywords import STOP_WORDS
from gatrec_jax.profiles.schema import Profile

_WORD = re.compile(r"[^\W\d_][\w'’]*")
_SENTENCE = re.compile(r"[^.!?]+")
_ENDINGS = ("ingly", "edly", "ings", "ing", "ers", "ies", "ied", "est", "ed", "er", "es", "ly", "s")
_SHORTEST_STEM = 3
_LOOP_WORDS = 3  # so many words in a row twice are a loop
_MOST_TIMES = 2  # a content word occurs in a sentence at most so often
_NAMES = re.compile(r"[A-Z][\w'’-]+(?: (?:[A-Z][\w'’-]*\.?|de|van|von))* [A-Z][\w'’-]+")


def words_of(text: str) -> list[str]:
  """The words of a text in lower case, without possessive endings and numbers."""
  return [
    match.group().replace("’", "'").removesuffix("'s").strip("'").casefold()
    for match in _WORD.finditer(text)
  ]


def stem(word: str) -> str:
  """A word without its commonest English endings: toys, toy → toy; stories, story → stor.

  It decides only whether two words count as one, so it need not be a word itself.
  """
  word = word.casefold()
  for ending in _ENDINGS:
    if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
      if ending in ("s", "es") and word.endswith(("ss", "us", "is")):
        continue
      word = word.removesuffix(ending)
      break
  word = word.rstrip("ey") if len(word) > _SHORTEST_STEM else word
  return word[:-1] if len(word) > _SHORTEST_STEM and word[-1] == word[-2] else word


def stems_of(texts: Iterable[str]) -> set[str]:
  """The stems of all words of some texts."""
  return {stem(word) for text in texts for word in words_of(text)}


def content_words(text: str) -> list[str]:
  """The words of a text that say something: no stop words, no words below three letters."""
  return [word for word in words_of(text) if len(word) > 2 and word not in STOP_WORDS]


def loops(text: str) -> list[str]:
  """What a text repeats: three words in a row twice, a content word more than twice in a sentence,
  or a word right after itself."""
  words = words_of(text)
  runs = Counter(zip(*(words[place:] for place in range(_LOOP_WORDS)), strict=False))
  found = dict.fromkeys(" ".join(run) for run, count in runs.items() if count > 1)
  for sentence in _SENTENCE.findall(text):
    times = Counter(content_words(sentence))
    found |= dict.fromkeys(word for word, count in times.items() if count > _MOST_TIMES)
  found |= dict.fromkeys(one for one, other in zip(words, words[1:], strict=False) if one == other)
  return list(found)


def copied_keywords(profile: Profile) -> list[str]:
  """Keywords that stand in more than one of genres, tags and dislikes, or twice in one of them."""
  fields = (profile.genres, profile.tags, profile.dislikes)
  times = Counter(_key(term) for terms in fields for term in terms)
  return [key for key, count in times.items() if count > 1]


def restated_dislikes(profile: Profile) -> list[str]:
  """Dislikes that say what the item is: all their content words are in name, genres or tags."""
  own = stems_of(filter(None, (profile.name, *profile.genres, *profile.tags)))
  return [term for term in profile.dislikes if _stems(term) and _stems(term) <= own]


def given_texts(fields: Mapping[str, Any]) -> list[str]:
  """All that the metadata say of an item: texts, genres, tags, people."""
  texts = [one_line(value) for value in fields.values()]
  lists = [", ".join(terms_of(value)) for value in fields.values() if not isinstance(value, str)]
  return [text for text in (*texts, *lists) if text]


def ungrounded_genres(profile: Profile, fields: Mapping[str, Any]) -> list[str]:
  """Genres of which the metadata say nothing; where they name no genre, their words count."""
  given = {genre.casefold() for genre in genres_of(fields)}
  if given:
    return [genre for genre in profile.genres if genre.casefold() not in given]
  known = stems_of(given_texts(fields))
  return [genre for genre in profile.genres if not _stems(genre) <= known]


def named_people(text: str, people: Collection[str]) -> list[str]:
  """The people of a catalog that a text names in full, each once."""
  found = []
  for match in _NAMES.finditer(text):
    parts = match.group().split(" ")
    for start in range(len(parts)):
      for end in range(len(parts), start + 1, -1):
        if (name := " ".join(parts[start:end])) in people and name not in found:
          found.append(name)
  return found


def people_of(item_fields: Iterable[Mapping[str, Any]]) -> set[str]:
  """Names of more than one word in the credits of all items."""
  return {
    name
    for fields in item_fields
    for field in CREDIT_FIELDS
    for name in terms_of(fields.get(field))
    if " " in name
  }


def plot_words(texts: Sequence[str], *, judgment: Collection[str]) -> list[str]:
  """The content words of a profile's own texts, without words of judgment such as "tense"."""
  skipped = {stem(word) for word in judgment}
  return [word for text in texts for word in content_words(text) if stem(word) not in skipped]


def _key(term: str) -> str:
  return " ".join(stem(word) for word in words_of(term)) or term.casefold()


def _stems(term: str) -> set[str]:
  return {stem(word) for word in content_words(term)} or {stem(word) for word in words_of(term)}
