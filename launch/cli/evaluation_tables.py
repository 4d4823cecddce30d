"""Tables of metrics: rows are systems, cut-offs or groups of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.evaluate.metrics import DEFINITIONS, JUDGED_DEFINITIONS
from launch.cli.grid import Table

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


def evaluation_grid(
  rows: Mapping[str, Results],
  *,
  title: str,
  protocol: str,
  metrics: Sequence[str] | None = None,
  digits: int = 4,
  intervals: bool = True,
  notes: Sequence[str] = (),
) -> Table:
  """A table of results with the definition of each metric below.

  Args:
    rows: results as `Evaluation.to_json` gives them, by label (system, "@10", group).
    title: dataset, split and protocol.
    protocol: `full` or `judged`, which selects the definitions.
    metrics: columns; None = all that occur. digits: decimals.
    intervals: whether to show 95 % intervals beside the means.
    notes: more footnotes, such as the encoder that was used.
  """
  columns = list(dict.fromkeys(name for results in rows.values() for name in results))
  columns = columns if metrics is None else list(metrics)
  return Table(
    title,
    ["", *columns, "users"],
    [
      [
        label,
        *(_cell(results.get(name), digits, intervals) for name in columns),
        _users(results, columns),
      ]
      for label, results in rows.items()
    ],
    _footnotes(columns, protocol=protocol, intervals=intervals, notes=notes),
  )


def protocol_note(protocol: str) -> str:
  """What is ranked under `full`, `judged`, `new_items`, `given_5` or, for some users,
  `full_below_5`."""
  protocol, _, below = protocol.partition("_below_")
  if below:
    return f"{protocol_note(protocol)}; only users with fewer than {below} training ratings"
  name, _, count = protocol.partition("_")
  if name == "given":
    return (
      f"given {count}: users without training ratings, whose first {count} ratings in a random "
      "order are given to the model; the test items come after the first ten for every count; full "
      "ranking"
    )
  return {
    "full": "full ranking: every item not rated in training is a candidate; users with at least one"
    " relevant test item",
    "judged": "judged-only: items without a test rating are removed from the lists; not comparable"
    " with full ranking",
    "new_items": "new items: the candidates are the items without a training rating; users with at"
    " least one relevant test item",
  }[protocol]


def _footnotes(
  columns: Sequence[str], *, protocol: str, intervals: bool, notes: Sequence[str]
) -> list[str]:
  definitions = JUDGED_DEFINITIONS if protocol == "judged" else DEFINITIONS
  names = dict.fromkeys(column.partition("@")[0] for column in columns)
  lines = [f"{name}: {definitions[name]}" for name in names if name in definitions]
  lines.append(protocol_note(protocol))
  if intervals:
    lines.append("[lo, hi]: 95 % bootstrap interval over users")
  return lines + list(notes)


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
