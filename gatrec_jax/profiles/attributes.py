"""Item attributes as columns: genres, tags, people and years from the metadata."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.profiles.builder import (
  CREDIT_FIELDS,
  TAG_FIELDS,
  YEAR,
  genres_of,
  one_line,
  terms_of,
)

_MIN_ITEMS = 3  # that share a name, for it to get a column
_MAX_NAMES = 1000  # the most common ones, because columns are dense
_STEPS = 8  # between the oldest and the newest item
YEAR_FIELDS = ("year", "release_year", "release_date", "date")
_FOUR_DIGITS = re.compile(r"(?<!\d)\d{4}(?!\d)")


def item_attributes(item_fields: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """A matrix of item attributes.

  There is one 0/1 column for each genre, tag, person and maker that at least three items share, up
  to the thousand most common ones. Years are converted to ranks in [0, 1] among the items
  (mid-ranks for equal years) and encoded in nine columns exp(−½ ((rank − c) ÷ ⅛)²) for c = 0, ⅛,
  … 1, so that items of similar age are similar.

  Args: item_fields: [I] as in `Dataset.item_fields`.
  Returns: [I, A] float32; a row of 0 for items without metadata.
  """
  return np.concatenate([_of_names(item_fields), _of_years(item_fields)], axis=1)


def _of_names(item_fields: Sequence[Mapping[str, Any]]) -> np.ndarray:
  names = [named_attributes(fields) for fields in item_fields]
  counts = Counter(name for own in names for name in own)
  common = sorted((-count, name) for name, count in counts.items() if count >= _MIN_ITEMS)
  place = {name: column for column, (_, name) in enumerate(common[:_MAX_NAMES])}
  out = np.zeros((len(item_fields), len(place)), np.float32)
  for row, own in zip(out, names, strict=True):
    row[[place[name] for name in own if name in place]] = 1.0
  return out


def named_attributes(fields: Mapping[str, Any]) -> dict[tuple[str, str], str]:
  """An item's genres, tags and people: (kind, name in small letters) -> name as in the metadata.

  A person or maker is the same in every role.
  """
  names = [
    *(("genre", name) for name in genres_of(fields)),
    *(("tag", name) for field in TAG_FIELDS for name in terms_of(fields.get(field))),
    *(("person", name) for field in CREDIT_FIELDS for name in terms_of(fields.get(field))),
  ]
  return {(kind, name.casefold()): name for kind, name in names}


def _of_years(item_fields: Sequence[Mapping[str, Any]]) -> np.ndarray:
  years = [year_of(fields) for fields in item_fields]
  known = np.sort([year for year in years if year is not None])
  if not len(known):
    return np.zeros((len(item_fields), 0), np.float32)
  centers = np.linspace(0.0, 1.0, _STEPS + 1)
  out = np.zeros((len(item_fields), len(centers)), np.float32)
  for row, year in zip(out, years, strict=True):
    if year is not None:
      rank = (np.searchsorted(known, year) + np.searchsorted(known, year, "right")) / 2 / len(known)
      row[:] = np.exp(-0.5 * ((rank - centers) * _STEPS) ** 2)
  return out


def year_of(fields: Mapping[str, Any]) -> int | None:
  """An item's year, from a year or date field or after the title; None if unknown."""
  behind_title = YEAR.search(one_line(fields.get("title")))
  texts = [str(fields.get(field) or "") for field in YEAR_FIELDS]
  for text in (*texts, behind_title.group() if behind_title else ""):
    if found := _FOUR_DIGITS.search(text):
      return int(found.group())
  return None
