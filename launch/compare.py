"""Trains models alike and says who is ahead, with intervals:

  python -m launch.compare --dataset=ml-100k --folds=u1,u2,u3,u4,u5 --models=ease,ials,best
  python -m launch.compare --dataset=ml-1m --split=recbole_a --models=ease:l2=1000,admm_slim
  python -m launch.compare --runs=runs/ml-100k-u1-ease-0,runs/ml-100k-u1-best-0

A model is a preset's name, with settings behind colons (lightgcn:layers=3:learning_rate=0.002) and
a label before it where one preset stands twice (small=ials:width=32). Users are the unit: the folds
and seeds of a user are averaged first. What is done is kept: the same command goes on after a stop.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from launch.cli import flags as common

if TYPE_CHECKING:
  from collections.abc import Mapping, Sequence

  from gatrec_jax.config.schema import Config

common.define(
  *(name for name in common.DATA if name != "fold"),
  *common.TEXT,
  *common.EVALUATE,
  "folds",
  "split_seeds",
  "models",
  "seeds",
  "reference",
  "refit",
  "runs",
  "metrics",
  "below",
  "workdir",
  "json_out",
  "markdown",
)


def main() -> None:
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.comparison import compare_systems, comparison_json
  from gatrec_jax.experiment.grid import open_finished, run_grid
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.comparison import facts_by_system, print_comparison, values_by_protocol

  flags = common.FLAGS
  common.require_writable("json_out")
  metrics = [name.strip() for name in flags["metrics"].value]
  below = common.whole_numbers("below")
  if bool(flags["models"].value) == bool(flags["runs"].value):
    raise InputError("--models, --runs: give one of them, what to train or what is trained")
  if flags["runs"].value:
    finished = [open_finished(pathlib.Path(folder)) for folder in flags["runs"].value]
    title = ", ".join(dict.fromkeys(run.part for run in finished))
  else:
    systems, parts, seeds, workdir = _grid_from_flags()
    _require_known(systems, metrics)
    finished = run_grid(systems, parts, seeds, workdir, refit=flags["refit"].value, log=CONSOLE)
    title = f"{pathlib.Path(flags['dataset'].value or 'demo').name} · {', '.join(parts)}"
  facts, comparisons = facts_by_system(finished), []
  reference = _reference_among(facts)
  for values in values_by_protocol(finished, flags["protocol"].value, below=below, log=CONSOLE):
    if missing := [system for system in facts if system not in values]:
      name = next(iter(values.values()))[0].protocol
      CONSOLE.info(
        f"{name}: without {', '.join(missing)}, which take ratings only by training again"
      )
    comparisons.append(
      compare_systems(
        values,
        reference=reference if reference in values else next(iter(values)),
        metrics=metrics,
        num_resamples=max(flags["bootstrap"].value or 10_000, 1),
      )
    )
    print_comparison(comparisons[-1], facts, title=title, markdown=flags["markdown"].value)
  if flags["json_out"].value:
    runs.write_json(
      pathlib.Path(flags["json_out"].value),
      {
        "title": title,
        "refit": flags["refit"].value,
        **comparison_json(comparisons, facts),
        "environment": runs.environment(),
      },
    )


def _reference_among(systems: Mapping[str, Any]) -> str:
  from gatrec_jax.errors import InputError

  reference = common.FLAGS["reference"].value or next(iter(systems))
  if reference not in systems:
    raise InputError(f"--reference={reference}: not among {', '.join(systems)}")
  return reference


def _require_known(systems: Mapping[str, Config], metrics: Sequence[str]) -> None:
  """Before the work: raises InputError for a reference or a metric that there will not be."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.metrics import DEFINITIONS

  _reference_among(systems)
  cutoffs = {str(k) for k in next(iter(systems.values())).evaluate.ks}
  of_users = [name for name in DEFINITIONS if name not in ("coverage", "gini", "diversity")]
  for metric in metrics:
    name, _, k = metric.partition("@")
    if name not in of_users or k not in cutoffs:
      raise InputError(
        f"--metrics={metric}: write one of {', '.join(of_users)} and one of the cut-offs --ks="
        f"{','.join(sorted(cutoffs, key=int))}, such as ndcg@10"
      )


def _grid_from_flags() -> tuple[
  dict[str, Config], dict[str, dict[str, Any]], list[int], pathlib.Path
]:
  """Configurations by label, parts by label, seeds, and the folder of all runs."""
  from gatrec_jax.config.overrides import field_types, parse_assignments, with_fields
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.errors import InputError

  flags = common.FLAGS
  systems = {}
  for text in flags["models"].value:
    head, *settings = text.split(":")
    label, _, name = head.rpartition("=")
    label = label or name
    config = get_preset(name, flag="--models")
    given = {n: flags[n].value for n in field_types(config) if n in flags and flags[n].present}
    config = with_fields(config, given | parse_assignments(settings, flag=f"--models={name}:"))
    if label in systems:
      raise InputError(f"--models={text}: '{label}' is there already; write other={name}:…")
    if "/" in label:
      raise InputError(f"--models={text}: a label may not hold a slash")
    systems[label] = config
  seeds = common.whole_numbers("seeds")
  if not seeds:
    raise InputError("--seeds: give at least one, as 0,1,2")
  folds = flags["folds"].value
  data = next(iter(systems.values())).data
  if folds and data.split not in ("random", "kfold"):
    raise InputError(f"--folds: shipped folds and --split={data.split} exclude each other")
  parts = {fold: {"fold": fold} for fold in folds}
  if not folds:
    split_seeds = common.whole_numbers("split_seeds") or [flags["split_seed"].value or 0]
    parts = {f"{data.split}-{seed}": {"split_seed": seed} for seed in split_seeds}
  default = f"runs/compare-{pathlib.Path(data.dataset).stem}-{'folds' if folds else data.split}"
  return systems, parts, seeds, pathlib.Path(flags["workdir"].value or default)


if __name__ == "__main__":
  common.run(main, __doc__)
