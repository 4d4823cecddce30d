"""Joins a table of items to a catalog by their ids, and says what is wrong where few join."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from gatrec_jax.data.interactions import Dataset, Interactions, catalog_order
from gatrec_jax.data.tables.metadata import ItemMetadata, matches_by_column

# Below this share of the smaller side, ids are probably spelled differently.
_FEW = 0.1
_FLOAT = re.compile(r"(-?\d+)\.0+")


def join_items(dataset: Dataset, metadata: ItemMetadata, *, grows: bool) -> Dataset:
  """The data set with the fields of `metadata`, which take precedence.

  Args:
    dataset: its sentences and notes are kept.
    metadata: whose ids may have been read as other text than those of the catalog; then a sentence
      shows both spellings.
    grows: whether items that only the metadata contains are added to the catalog. They are not
      where no item joins, since the catalog would hold every item twice.
  """
  if not metadata.fields:
    return dataset
  catalog = dataset.interactions.item_ids
  joined = len(metadata.fields.keys() & set(catalog))
  # Counts of both files may have the same name.
  notes = {f"{note} (item metadata)": count for note, count in metadata.notes.items()}
  sentences = [metadata.sentence]
  if joined < max(1, _FEW * min(len(metadata.fields), len(catalog))):
    sentences.append(_warning(metadata, catalog, joined))
  interactions = dataset.interactions
  fields: Mapping[str, Mapping[str, Any]] = dict(zip(catalog, dataset.item_fields, strict=True))
  if grows and joined:
    interactions = with_items(interactions, metadata.fields)
  elif unknown := len(metadata.fields) - joined:
    notes["metadata items not in the catalog"] = unknown
  return dataclasses.replace(
    dataset,
    interactions=interactions,
    item_fields=[
      {**fields.get(item_id, {}), **metadata.fields.get(item_id, {})}
      for item_id in interactions.item_ids
    ],
    notes={**dataset.notes, **notes},
    sentences=(*dataset.sentences, *sentences),
  )


def with_items(interactions: Interactions, item_ids: Iterable[str]) -> Interactions:
  """The same rows in a catalog that also holds `item_ids`."""
  catalog = catalog_order([*interactions.item_ids, *item_ids])
  place = {item_id: index for index, item_id in enumerate(catalog)}
  moved = np.array([place[item_id] for item_id in interactions.item_ids], np.int32)
  return dataclasses.replace(interactions, item=moved[interactions.item], item_ids=catalog)


def _warning(metadata: ItemMetadata, catalog: Collection[str], joined: int) -> str:
  ids = metadata.fields.keys()
  count = f"only {joined}" if joined else "none"
  left_out = "" if joined else " They are left out of the catalog."
  ours = next(iter(catalog_order(set(catalog) - ids)), "")
  theirs = next(iter(catalog_order(ids - set(catalog))), "")
  advice, twin = _advice(metadata, catalog, joined)
  if twin:
    ours, theirs = twin
  return (
    f"warning: {count} of the {len(ids)} items of the metadata {'are' if joined > 1 else 'is'} "
    f"rated: ids look like {ours!r} and {theirs!r}{advice}.{left_out}"
  )


def _advice(
  metadata: ItemMetadata, catalog: Collection[str], joined: int
) -> tuple[str, tuple[str, str] | None]:
  """What would join more items, "" for nothing, and the ids of an item that it would join."""
  ids = list(metadata.fields)
  best, found, twin = joined, "", None
  for spelled, advice in _SPELLINGS:
    by_spelling = {spelled(item_id): item_id for item_id in catalog}
    pairs = [(by_spelling[key], own) for own in ids if (key := spelled(own)) in by_spelling]
    if len(pairs) > best:
      best, found = len(pairs), f"; {advice}"
      twin = next((ours, own) for ours, own in pairs if ours != own)
  if found:
    return found, twin
  matches = matches_by_column(metadata, set(catalog)) if metadata.source else {}
  matches.pop(metadata.id_column, None)
  name = max(matches, key=lambda name: matches[name], default="")
  if name and matches[name] > joined:
    return (
      f"; its column {name!r} has {matches[name]} of the {len(catalog)} rated items: name that one "
      "as the item column of the ratings is named",
      None,
    )
  return "", None


def _without_fraction(item_id: str) -> str:
  whole = _FLOAT.fullmatch(item_id)
  return whole.group(1) if whole else item_id


def _without_zeros(item_id: str) -> str:
  return _without_fraction(item_id).lstrip("0")


_SPELLINGS: tuple[tuple[Callable[[str], str], str], ...] = (
  (_without_fraction, "write whole numbers without a fraction in both files"),
  (_without_zeros, "write leading zeros in both files or in neither"),
  (str.casefold, "write the same capitals in both files"),
)
