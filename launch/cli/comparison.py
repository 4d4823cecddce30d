"""What launch.compare shows: a line a model, best first, with its verdict against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.evaluate.comparison import Comparison
from gatrec_jax.evaluate.user_values import UserValues, read_user_values
from gatrec_jax.experiment.grid import Finished
from gatrec_jax.experiment.train_and_evaluate import USER_VALUES
from gatrec_jax.runs.log import Log
from launch.cli.evaluation_tables import protocol_note


def values_by_protocol(
  finished: Sequence[Finished], protocol: str | None, *, below: Sequence[int], log: Log
) -> list[dict[str, list[UserValues]]]:
  """The metrics of every user of the runs, by system; one mapping for each protocol to show.

  These are the chosen ones (None: full), and what the runs have beside them: of splits by whole
  items or users the ranking of new items and of new users, among the systems that can do so; then
  the chosen ones for the users with fewer training ratings than each number of `below`.

  Raises: InputError for damaged files, and for a chosen protocol that a run was not evaluated by.
  """
  from gatrec_jax.errors import InputError

  chosen = ("full", "judged") if protocol == "both" else (protocol or "full",)
  out: dict[str, dict[str, list[UserValues]]] = {name: {} for name in chosen}
  for run in finished:
    found = {
      values.protocol: values
      for values in read_user_values(
        run.folder / USER_VALUES, system=run.system, part=run.part, seed=run.seed
      )
    }
    for name in chosen:
      if name not in found:
        raise InputError(f"{run.folder}: was not evaluated under --protocol={name}")
    for name, values in found.items():
      if name in chosen or name not in ("full", "judged"):
        out.setdefault(name, {}).setdefault(run.system, []).append(values)
  for count in below:
    for name in chosen:
      few = {system: [values.below(count) for values in own] for system, own in out[name].items()}
      if any(values.user_ids for own in few.values() for values in own):
        out[f"{name}_below_{count}"] = few
      else:
        log.info(f"--below={count}: no user has fewer training ratings, so there is no such table")
  return list(out.values())


def facts_by_system(finished: Sequence[Finished]) -> dict[str, dict[str, Any]]:
  """Mean training seconds of a run, the most memory of any, settings, each run's own figures."""
  out: dict[str, dict[str, Any]] = {}
  for system in dict.fromkeys(run.system for run in finished):
    own = [run.results for run in finished if run.system == system]
    out[system] = {
      "train_seconds": round(sum(one["train_seconds"] for one in own) / len(own), 2),
      "peak_memory_mb": max(one["peak_memory_mb"] for one in own),
      "settings": next(run.settings for run in finished if run.system == system),
      "runs": [
        {
          "part": run.part,
          "seed": run.seed,
          "folder": str(run.folder),
          "trained_on": run.known[0],
          "chosen_on": run.known[1],
          "epoch": run.results["epoch"],
          **{key: run.results[key] for key in ("train_seconds", "peak_memory_mb")},
          "ndcg@10": run.results.get("full", {}).get("ndcg@10", {}).get("mean"),
        }
        for run in finished
        if run.system == system
      ],
    }
  return out


def grid_of(
  comparison: Comparison, facts: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
  """Headings and cells."""
  first = comparison.metrics[0]
  head = ["model", *(f"{name} [95 %]" for name in comparison.metrics)]
  head += [f"{first} − {comparison.reference}", "relative", "effect", "p (Holm)", "verdict"]
  head += ["runs", "train s", "peak MiB"]
  rows = []
  for system, estimates in comparison.estimates.items():
    cells = [system]
    for name in comparison.metrics:
      one = estimates[name]
      cells.append(f"{one.mean:.4f} [{one.lo:.4f}, {one.hi:.4f}]" if one.n else "–")
    if system == comparison.reference:
      cells += ["reference", "", "", "", ""]
    else:
      found = comparison.against[system][first]
      one = found.difference
      cells += [
        one.says(),
        "–" if one.relative is None else f"{one.relative:+.1%}",
        "–" if one.effect is None else f"{one.effect:+.2f}",
        f"{found.holm_p_value:.4f}",
        one.verdict,
      ]
    known = facts[system]
    cells += [str(len(known["runs"])), f"{known['train_seconds']:.1f}"]
    cells.append(str(known["peak_memory_mb"]))
    rows.append(cells)
  return head, rows


def notes_of(comparison: Comparison, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """What the figures rest on."""
  trained_on = {
    system: sorted({run["trained_on"] for run in own["runs"]}) for system, own in facts.items()
  }
  unlike = []
  if len({tuple(sizes) for sizes in trained_on.values()}) > 1:
    sizes = "; ".join(f"{s} {', '.join(map(str, n))}" for s, n in trained_on.items())
    unlike = [f"NOT TRAINED ALIKE: numbers of training ratings differ ({sizes})"]
  some = next(iter(comparison.parts))
  return unlike + [
    protocol_note(comparison.protocol),
    "users are the unit, each averaged over seeds, then over "
    f"{len(comparison.parts[some])} part(s): {', '.join(comparison.parts[some])}",
    f"intervals: {comparison.level:.0%} bootstrap, paired (and expanded) for differences; p: sign "
    f"flips, Holm over {len(comparison.against)} comparison(s); {comparison.num_resamples} "
    f"resamples, seed {comparison.seed}",
    "ahead, behind, not separated: from the interval of the difference alone; effect: mean ÷ "
    "standard deviation of the difference over users",
    "train s: mean of a run, choosing its epochs and training together; peak MiB: of the process, "
    "with what runs before left there",
  ]


def print_comparison(
  comparison: Comparison, facts: Mapping[str, Mapping[str, Any]], *, title: str, markdown: bool
) -> None:
  """The table on the console, and as Markdown where asked for."""
  from launch.cli.grid import markdown_grid, print_grid

  head, rows = grid_of(comparison, facts)
  notes = notes_of(comparison, facts)
  title = f"{title} · {comparison.protocol}"
  print_grid(title, head, rows, notes)
  if markdown:
    print(f"\n{markdown_grid(title, head, rows, notes)}")
