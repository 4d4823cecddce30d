"""The table that every program prints: on the console, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO


class Table(NamedTuple):
  """A table. Attributes: rows: as wide as the header. notes: lines below it."""

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  notes: Sequence[str] = ()


def print_grid(grid: Table, *, file: TextIO | None = None) -> None:
  """Prints a table with its first column left-aligned and its notes below. Args: file: stdout."""
  from rich.console import Console
  from rich.table import Table as RichTable

  from gatrec_jax.runs.visible import visible

  plain = {"markup": False, "emoji": False}  # "[bold]" and ":smile:" in data are just that
  table = RichTable(title=visible(grid.title), title_justify="left")
  for number, name in enumerate(grid.header):
    table.add_column(visible(name), justify="right" if number else "left", no_wrap=True)
  for row in grid.rows:
    table.add_row(*map(visible, row))
  # On a narrow terminal, long lines are better than truncated figures.
  needed = Console(width=10_000, **plain).measure(table).maximum
  console = Console(file=file, **plain)
  console.width = max(console.width, needed)
  console.print(table)
  for note in map(visible, grid.notes):
    console.print(note, highlight=False, style="dim", soft_wrap=True)


def markdown_grid(grid: Table) -> str:
  """A table as Markdown text."""
  from gatrec_jax.runs.visible import visible

  lines = [f"**{visible(grid.title)}**", "", _line(grid.header)]
  lines.append("|---|" + "---:|" * (len(grid.header) - 1))
  lines += [*map(_line, grid.rows), ""]
  lines += [f"- {visible(note)}" for note in grid.notes]
  return "\n".join(lines) + "\n"


def amount(value: float) -> str:
  """A figure with at least three digits: 0.0123, 4.56, 78.9, 1234."""
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def signed(difference: Mapping[str, Any], *, digits: int = 4) -> str:
  """A difference and its interval: "+0.0123 [+0.0100, +0.0150]"."""
  text = f"{difference['mean']:+.{digits}f}"
  if difference["lo"] is not None:
    text += f" [{difference['lo']:+.{digits}f}, {difference['hi']:+.{digits}f}]"
  return text


def _line(cells: Sequence[str]) -> str:
  from gatrec_jax.runs.visible import visible

  return "| " + " | ".join(visible(cell).replace("|", "\\|") for cell in cells) + " |"
