"""Figures of benchmarks as one table: on the console, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def print_grid(
  title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
  """Prints a table, its first column to the left, with notes below."""
  from rich.console import Console
  from rich.markup import escape
  from rich.table import Table

  table = Table(title=escape(title), title_justify="left")
  for number, name in enumerate(header):
    table.add_column(escape(name), justify="right" if number else "left", no_wrap=True)
  for row in rows:
    table.add_row(*map(escape, row))
  # On a narrow terminal long lines are better than figures cut short.
  needed = Console(width=10_000).measure(table).maximum
  console = Console()
  console.width = max(console.width, needed)
  console.print(table)
  for note in notes:
    console.print(note, markup=False, highlight=False, style="dim", soft_wrap=True)


def markdown_grid(
  title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
  """The table of `print_grid` as Markdown text, same arguments."""

  def safe(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

  lines = [f"**{title}**", "", safe(header), "|---|" + "---:|" * (len(header) - 1)]
  lines += [*map(safe, rows), ""]
  lines += [f"- {note}" for note in notes]
  return "\n".join(lines) + "\n"


def amount(value: float) -> str:
  """A figure with three digits or more: 0.0123, 4.56, 78.9, 1234."""
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
