"""The figures of an audit of written profiles, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatrec_jax.profiles.audit import MEANINGS
from launch.cli.grid import Table, signed

_COUNTS = ("profiles", "own words")


def audit_table(facts: Mapping[str, Any], *, title: str) -> Table:
  """A row per figure, a column per kind of profiles. Args: facts: of `audit_profiles`."""
  kinds = facts["kinds"]
  names = [name for name, value in kinds["written"].items() if not isinstance(value, list)]
  rows = [
    (name, *(_shown(name, one[name], one.get(f"{name} interval")) for one in kinds.values()))
    for name in names
  ]
  differences = [
    signed(one["written against it"]) if "written against it" in one else ""
    for one in kinds.values()
  ]
  rows.append(("written − it, auc", *differences))
  notes = [f"{name}: {MEANINGS[name]}" for name in names if name in MEANINGS]
  notes.append(
    f"auc: two items that a user liked are more similar than a liked and an unrated one, "
    f"{facts['users']} users, {facts['encoder']}; .5 is chance; brackets are 95 % intervals"
  )
  return Table(f"profiles · {title} · {facts['items']} items", ("figure", *kinds), rows, notes)


def _shown(name: str, value: float | None, interval: list[float] | None) -> str:
  if value is None:
    return "none"
  if name == "auc":
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
  if name in _COUNTS:
    return f"{value:.4g}"
  return f"{value:.1%}"
