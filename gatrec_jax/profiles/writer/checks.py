"""Checks of written profiles: no empty sections, loops, copied keywords or restated dislikes, no
titles of the catalog, and no names of people."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gatrec_jax.profiles import builder
from gatrec_jax.profiles.quality import copied_keywords, loops, restated_dislikes
from gatrec_jax.profiles.schema import Profile

_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_OPENING, _CLOSING = "\"'“‘„«*_", "\"'”’“»*_"
_MIN_ITEMS = 2  # with a keyword, for it not to be taken for a title


class Names:
  """Finds titles of the catalog and people of its metadata in texts.

  Matches are case-sensitive and on whole words. A single word ("Heat", "Cher") may be just a word,
  so a one-word title counts only in quotes or with its year, and a one-word name never.
  """

  def __init__(
    self, item_fields: Iterable[Mapping[str, Any]], *, terms: Collection[str] = ()
  ) -> None:
    """Args:
    item_fields: of all items, as in `Dataset.item_fields`.
    terms: that are not to be taken for titles.
    """
    self._long: dict[str, dict[str, str]] = {}
    self._short: dict[str, set[str]] = {}
    for fields in item_fields:
      for form, year in title_forms(builder.one_line(fields.get("title"))):
        if form in terms:
          continue
        if " " in form:
          self._add(form, "title")
        else:
          self._short.setdefault(form, set()).add(year)
      for field in builder.PEOPLE_FIELDS:
        for name in builder.terms_of(fields.get(field)):
          if " " in name:
            self._add(name, "person")

  def found(self, text: str) -> list[str]:
    """The distinct names in `text`, such as `title "The Matrix"`, in order of occurrence."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text):
      start, word = match.start(), match.group()
      here = [
        form
        for form in self._long.get(word, ())
        if text.startswith(form, start) and not _goes_on(text, start + len(form))
      ]
      if here:
        form = max(here, key=len)
        found[f'{self._long[word][form]} "{form}"'] = None
      elif word in self._short and self._is_marked(text, start, match.end(), self._short[word]):
        found[f'title "{word}"'] = None
    return list(found)

  def _add(self, name: str, kind: str) -> None:
    first = _WORD.match(name)
    if first is not None:
      self._long.setdefault(first.group(), {}).setdefault(name, kind)

  def _is_marked(self, text: str, start: int, end: int, years: set[str]) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    quoted = before != "" and before in _OPENING and after != "" and after in _CLOSING
    return quoted or any(year and text.startswith(f" ({year})", end) for year in years)


def title_forms(title: str) -> list[tuple[str, str]]:
  """The forms in which a text may write a title, each with its year or "".

  "Matrix, The (1999)" has two forms. Punctuation at the ends and text in parentheses after the
  title are left out.
  """
  year = builder.YEAR.search(title)
  forms = {builder.YEAR.sub("", title).strip(), builder.plain_title(title)}
  forms |= {form.partition(" (")[0] for form in forms}
  stripped = dict.fromkeys(re.sub(r"^\W+|\W+$", "", form) for form in sorted(forms))
  return [(form, year.group().strip(" ()") if year else "") for form in stripped if form]


def without_title(text: str, title: str, *, noun: str) -> str:
  """`text` with "the film" (or another noun) in place of its own title.

  A one-word title is replaced only if it is in quotes.
  """
  forms = sorted((form for form, _ in title_forms(title)), key=len, reverse=True)
  quote, end = f"[{re.escape(_OPENING)}]", f"[{re.escape(_CLOSING)}]"
  for form in forms:
    if form not in text:
      continue
    word = re.escape(form)
    pattern = rf"{quote}?(?<!\w){word}(?!\w){end}?" if " " in form else f"{quote}{word}{end}"
    text = re.sub(pattern, f"the {noun}", text)
  return text


def common_terms(profiles: Sequence[Profile | None]) -> frozenset[str]:
  """Keywords of several items, which are not taken for titles even if one has that title."""
  items: dict[str, set[str]] = {}
  for profile in profiles:
    for term in () if profile is None else (*profile.genres, *profile.tags):
      if term != profile.name:
        items.setdefault(term, set()).add(profile.name or "")
  return frozenset(term for term, names in items.items() if len(names) >= _MIN_ITEMS)


def user_problems(profile: Profile, sections: Sequence[str], names: Names) -> list[str]:
  """The problems of a user's profile; [] if there are none.

  Args: profile: to check. sections: fields that must not be empty. names: that must not occur.
  """
  texts = [profile.overview, *profile.genres, *profile.tags, profile.description, *profile.dislikes]
  return [*_empty(profile, sections), *_form_problems(profile), *_named(texts, names)]


def item_problems(profile: Profile, sections: Sequence[str], names: Names) -> list[str]:
  """The problems of an item's profile, as in `user_problems`.

  Its prose may contain names, because user profiles are made from keywords.
  """
  keywords = [*profile.tags, *profile.dislikes]
  return [*_empty(profile, sections), *_form_problems(profile), *_named(keywords, names)]


def _form_problems(profile: Profile) -> list[str]:
  """What shows that the model lost its thread, whatever the profile is about."""
  return [
    *(f'repeats "{text}"' for text in loops(profile.description)),
    *(f'copies keyword "{term}"' for term in copied_keywords(profile)),
    *(f'restates as dislike "{term}"' for term in restated_dislikes(profile)),
  ]


def _empty(profile: Profile, sections: Sequence[str]) -> list[str]:
  return [
    f"{section} is empty"
    for section in sections
    if not _LETTER.search("".join(getattr(profile, section)))
  ]


def _named(texts: Sequence[str], names: Names) -> list[str]:
  return list(dict.fromkeys(f"has {name}" for text in texts for name in names.found(text)))


def _goes_on(text: str, end: int) -> bool:
  return end < len(text) and (text[end].isalnum() or text[end] == "_")
