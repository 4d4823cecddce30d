"""Unique titles of items for display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.runs.visible import visible


def unique_titles(
  item_fields: Sequence[Mapping[str, Any]], item_ids: Sequence[str]
) -> tuple[str, ...]:
  """A unique one-line title for each item: its title, with its id if others share it.

  Args: item_fields: [I], "title" may be missing. item_ids: [I].
  """
  titles = [" ".join(str(fields.get("title", "")).split()) for fields in item_fields]
  times: dict[str, int] = {}
  for title in titles:
    times[title.casefold()] = times.get(title.casefold(), 0) + 1
  return tuple(
    title if title and times[title.casefold()] == 1 else f"{title or 'item'} [{visible(item_id)}]"
    for title, item_id in zip(titles, item_ids, strict=True)
  )
