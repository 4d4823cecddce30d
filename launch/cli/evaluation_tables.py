"""Tables of results for people: rows are systems (or cut-offs, or user buckets)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from gatrec_jax.evaluate.metrics import DEFINITIONS, JUDGED_DEFINITIONS

Results = Mapping[str, Mapping[str, Any]]
"""One system's metrics in the form of `Evaluation.to_json`."""


def rows_by_cutoff(results: Results) -> dict[str, dict[str, Mapping[str, Any]]]:
  """Turns `{"ndcg@10": {…}}` of one system into rows `{"@10": {"ndcg": {…}}}`, K ascending."""
  cutoffs = sorted({int(name.rpartition("@")[2]) for name in results})
  return {
    f"@{k}": {
      name.rpartition("@")[0]: value for name, value in results.items() if name.endswith(f"@{k}")
    }
    for k in cutoffs
  }


def print_table(
  rows: Mapping[str, Results],
  *,
  title: str,
  protocol: str,
  metrics: Sequence[str] | None = None,
  digits: int = 4,
  intervals: bool = True,
  notes: Sequence[str] = (),
  file: TextIO | None = None,
) -> None:
  """Prints results to the console, with each metric's definition below.

  Args:
    rows: by label (system, "@10", bucket), results as `Evaluation.to_json` gives them.
    title: what the table shows: dataset, split, protocol.
    protocol: "full" or "judged", which chooses the definitions.
    metrics: columns, by default all that occur. digits: after the point.
    intervals: whether 95 % intervals stand beside the means.
    notes: more footnotes, e.g. which encoder was used.
    file: where to print; standard output by default.
  """
  from rich.console import Console
  from rich.markup import escape
  from rich.table import Table

  columns = _columns(rows, metrics)
  table = Table(title=escape(title), title_justify="left")
  table.add_column("", no_wrap=True)
  for name in [*columns, "users"]:
    table.add_column(escape(name), justify="right", no_wrap=True)
  for label, results in rows.items():
    cells = [_cell(results.get(name), digits, intervals) for name in columns]
    table.add_row(escape(label), *cells, _users(results, columns))
  # On a narrow terminal long lines are better than figures cut short.
  needed = Console(width=10_000).measure(table).maximum
  console = Console(file=file)
  console.width = max(console.width, needed)
  console.print(table)
  for line in footnotes(columns, protocol=protocol, intervals=intervals, notes=notes):
    console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)


def markdown_table(
  rows: Mapping[str, Results],
  *,
  title: str,
  protocol: str,
  metrics: Sequence[str] | None = None,
  digits: int = 4,
  intervals: bool = True,
  notes: Sequence[str] = (),
) -> str:
  """The table of `print_table` as Markdown text, same arguments."""
  columns = _columns(rows, metrics)
  lines = [f"**{title}**", "", f"| | {' | '.join(columns)} | users |"]
  lines.append("|---|" + "---:|" * (len(columns) + 1))
  for label, results in rows.items():
    cells = [_cell(results.get(name), digits, intervals) for name in columns]
    safe_label = label.replace("|", "\\|")
    lines.append(f"| {safe_label} | {' | '.join(cells)} | {_users(results, columns)} |")
  lines.append("")
  lines += [
    f"- {line}" for line in footnotes(columns, protocol=protocol, intervals=intervals, notes=notes)
  ]
  return "\n".join(lines) + "\n"


def footnotes(
  columns: Sequence[str], *, protocol: str, intervals: bool, notes: Sequence[str] = ()
) -> list[str]:
  """One line per metric among the columns with its definition, then the notes."""
  definitions = JUDGED_DEFINITIONS if protocol == "judged" else DEFINITIONS
  names = dict.fromkeys(column.partition("@")[0] for column in columns)
  lines = [f"{name}: {definitions[name]}" for name in names if name in definitions]
  lines.append(protocol_note(protocol))
  if intervals:
    lines.append("[lo, hi]: 95 % bootstrap interval over users")
  return lines + list(notes)


def protocol_note(protocol: str) -> str:
  """What is ranked: "full", "judged", "new_items", "given_5", or of some users "full_below_5"."""
  protocol, _, below = protocol.partition("_below_")
  if below:
    return f"{protocol_note(protocol)}; among these who have fewer than {below} training ratings"
  name, _, count = protocol.partition("_")
  if name == "given":
    return (
      f"given {count}: users without training ratings are given {count} of theirs (a random order;"
      " the truth lies behind the first ten for every number); full ranking"
    )
  return {
    "full": "full ranking: every item not rated in training is a candidate; users with at least one"
    " relevant test item",
    "judged": "judged-only: items without a test rating are removed from the lists; not comparable"
    " with full ranking",
    "new_items": "new items: the items without a training rating are the candidates; users with at"
    " least one relevant test item",
  }[protocol]


def _columns(rows: Mapping[str, Results], metrics: Sequence[str] | None) -> list[str]:
  if metrics is not None:
    return list(metrics)
  return list(dict.fromkeys(name for results in rows.values() for name in results))


def _cell(value: Mapping[str, Any] | None, digits: int, intervals: bool) -> str:
  if value is None or not value["n"]:
    return "–"
  text = f"{value['mean']:.{digits}f}"
  if intervals and value.get("lo") is not None:
    text += f" [{value['lo']:.{digits}f}, {value['hi']:.{digits}f}]"
  return text


def _users(results: Results, columns: Sequence[str]) -> str:
  counts = {results[name]["n"] for name in columns if name in results}
  if not counts:
    return "–"
  return str(counts.pop()) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"
