"""What a catalogue says of items beside texts, as columns: genres, tags, people, years."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.profiles.builder import PEOPLE_FIELDS, TAG_FIELDS, genres_of, terms_of

_FEWEST_ITEMS = 3  # that share a name, for it to have a column
_MOST_NAMES = 1000  # the most common ones: columns are dense
_STEPS = 8  # between the oldest and the newest item
_YEAR_FIELDS = ("year", "release_year", "release_date", "date")
_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)")
_YEAR_OF_TITLE = re.compile(r"\((\d{4})[^()]*\)\s*$")


def item_attributes(
  item_fields: Sequence[Mapping[str, Any]], like: Sequence[Mapping[str, Any]] | None = None
) -> np.ndarray:
  """Attributes of items.

  A column for each genre, tag and person that at least three items share (the thousand most common
  ones): 1 where an item has it.
  Of the years, ranked over the items (half of the items of a year are before it), nine columns:
  exp(−½ ((rank − c) ÷ ⅛)²) for c = 0, ⅛, … 1, so that items of like age are alike.

  Args:
    item_fields: [I] as in `Dataset.item_fields`.
    like: the items whose columns and ranks these are to have; None for themselves.
  Returns: [I, A] float32; a row of 0 where nothing is known.
  """
  like = item_fields if like is None else like
  return np.concatenate([_of_names(item_fields, like), _of_years(item_fields, like)], axis=1)


def _of_names(
  item_fields: Sequence[Mapping[str, Any]], like: Sequence[Mapping[str, Any]]
) -> np.ndarray:
  counts = Counter(name for fields in like for name in _names(fields))
  common = sorted((-count, name) for name, count in counts.items() if count >= _FEWEST_ITEMS)
  place = {name: column for column, (_, name) in enumerate(common[:_MOST_NAMES])}
  out = np.zeros((len(item_fields), len(place)), np.float32)
  for row, fields in zip(out, item_fields, strict=True):
    row[[place[name] for name in _names(fields) if name in place]] = 1.0
  return out


def _names(fields: Mapping[str, Any]) -> set[tuple[str, str]]:
  """(kind, name) pairs: a person is the same one whatever she did."""
  return {
    *(("genre", name.casefold()) for name in genres_of(fields)),
    *(("tag", name.casefold()) for field in TAG_FIELDS for name in terms_of(fields.get(field))),
    *(("person", n.casefold()) for field in PEOPLE_FIELDS for n in terms_of(fields.get(field))),
  }


def _of_years(
  item_fields: Sequence[Mapping[str, Any]], like: Sequence[Mapping[str, Any]]
) -> np.ndarray:
  known = np.sort([year for fields in like if (year := year_of(fields)) is not None])
  centres = np.linspace(0.0, 1.0, _STEPS + 1)
  out = np.zeros((len(item_fields), len(centres) if len(known) else 0), np.float32)
  for row, fields in zip(out, item_fields, strict=True):
    year = year_of(fields)
    if year is not None and len(known):
      rank = (np.searchsorted(known, year) + np.searchsorted(known, year, "right")) / 2 / len(known)
      row[:] = np.exp(-0.5 * ((rank - centres) * _STEPS) ** 2)
  return out


def year_of(fields: Mapping[str, Any]) -> int | None:
  """An item's year: of a field of that meaning, or in brackets behind the title."""
  for field in _YEAR_FIELDS:
    if found := _YEAR.search(str(fields.get(field) or "")):
      return int(found.group(1))
  found = _YEAR_OF_TITLE.search(str(fields.get("title") or ""))
  return int(found.group(1)) if found else None
