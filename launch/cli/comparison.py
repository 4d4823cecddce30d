"""The tables of launch.compare: one row per model, best first, with its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatrec_jax.evaluate.comparison import Comparison
from launch.cli.evaluation_tables import protocol_note
from launch.cli.grid import Table, markdown_grid, print_grid
from launch.cli.output import say_text


def print_comparison(
  comparison: Comparison, facts: Mapping[str, Mapping[str, Any]], *, title: str, markdown: bool
) -> None:
  """Prints a comparison.

  Args:
    comparison: of one protocol. facts: of `facts_by_system`. title: of the data.
    markdown: whether to print the table as Markdown too.
  """
  grid = Table(
    f"{title} · {comparison.protocol}",
    _header(comparison),
    [_row(comparison, facts[system], system) for system in comparison.estimates],
    _notes(comparison, facts),
  )
  print_grid(grid)
  if markdown:
    say_text(f"\n{markdown_grid(grid)}")


def _header(comparison: Comparison) -> list[str]:
  first = comparison.metrics[0]
  return [
    "model",
    *(f"{name} [95 %]" for name in comparison.metrics),
    f"{first} − {comparison.reference}",
    "relative",
    "effect",
    "p (Holm)",
    "verdict",
    "runs",
    "train s",
    "peak MiB",
  ]


def _row(comparison: Comparison, known: Mapping[str, Any], system: str) -> list[str]:
  cells = [system]
  for name in comparison.metrics:
    one = comparison.estimates[system][name]
    cells.append(f"{one.mean:.4f} [{one.lo:.4f}, {one.hi:.4f}]" if one.n else "–")
  if system == comparison.reference:
    cells += ["reference", "", "", "", ""]
  else:
    found = comparison.against[system][comparison.metrics[0]]
    one = found.difference
    cells += [
      one.says(),
      "–" if one.relative is None else f"{one.relative:+.1%}",
      "–" if one.effect is None else f"{one.effect:+.2f}",
      f"{found.holm_p_value:.4f}",
      one.verdict,
    ]
  return [
    *cells,
    str(len(known["runs"])),
    f"{known['train_seconds']:.1f}",
    str(known["peak_memory_mb"]),
  ]


def _notes(comparison: Comparison, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """How the figures were computed, and a warning if models were trained on different data."""
  parts = comparison.parts[next(iter(comparison.parts))]
  return _unequal_training(facts) + [
    protocol_note(comparison.protocol),
    f"each user's metrics are averaged over seeds, then over {len(parts)} part(s): "
    f"{', '.join(parts)}",
    f"intervals: {comparison.level:.0%} bootstrap over users, paired (and expanded) for "
    f"differences; p: sign-flip test with Holm's correction for {len(comparison.against)} "
    f"comparison(s); {comparison.num_resamples} resamples, seed {comparison.seed}",
    "verdict: whether the interval of the difference excludes 0; effect: mean ÷ standard deviation "
    "of the difference over users",
    "train s: mean per run, including the choice of epochs; peak MiB: of the whole process, so it "
    "includes memory still held from earlier runs",
  ]


def _unequal_training(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
  trained_on = {
    system: sorted({run["trained_on"] for run in own["runs"]}) for system, own in facts.items()
  }
  if len({tuple(sizes) for sizes in trained_on.values()}) == 1:
    return []
  sizes = "; ".join(f"{s} {', '.join(map(str, n))}" for s, n in trained_on.items())
  return [f"NOT TRAINED ALIKE: the numbers of training ratings differ ({sizes})"]
