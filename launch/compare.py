"""Trains several models the same way and reports which is ahead, with intervals.

  python -m launch.compare --dataset=ml-100k --folds=u1,u2,u3,u4,u5 --models=ease,ials,best
  python -m launch.compare --dataset=ml-1m --split=recbole_a --models=ease:l2=1000,admm_slim
  python -m launch.compare --runs=runs/ml-100k-u1-ease-0,runs/ml-100k-u1-best-0

A model is the name of a preset, followed by settings after colons
(lightgcn:layers=3:learning_rate=0.002) and preceded by a label if one preset occurs twice
(small=ials:width=32). Differences are paired over users, whose folds and seeds are averaged first.
Finished runs are kept: the same command continues after an interruption.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from launch.cli import (
  DATA,
  EVALUATE,
  FLAGS,
  TEXT,
  define,
  given_fields,
  path_flag,
  require_writable,
  run,
  whole_numbers,
)

if TYPE_CHECKING:
  from collections.abc import Iterable, Mapping, Sequence

  from gatrec_jax.config.schema import Config
  from gatrec_jax.evaluate.comparison import Comparison
  from gatrec_jax.experiment.grid import Finished

define(
  *(name for name in DATA if name != "fold"),
  *TEXT,
  *EVALUATE,
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
  """Flags -> finished runs -> one table per protocol."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.comparison import comparison_json
  from gatrec_jax.experiment.grid import facts_by_system
  from launch.cli.comparison import print_comparison

  require_writable("json_out")
  metrics = [name.strip() for name in FLAGS.metrics]
  below = whole_numbers("below")
  if bool(FLAGS.models) == bool(FLAGS.runs):
    raise InputError("give either `models` to train or `runs` that are finished")
  finished, title = opened_runs() if FLAGS.runs else trained_runs(metrics)
  facts = facts_by_system(finished)
  comparisons = compared(finished, metrics, below, reference=_reference_among(facts))
  for comparison in comparisons:
    print_comparison(comparison, facts, title=title, markdown=FLAGS.markdown)
  if FLAGS.json_out:
    runs.write_json(
      path_flag("json_out"),
      {
        "title": title,
        "refit": FLAGS.refit,
        **comparison_json(comparisons, facts),
        "environment": runs.environment(),
      },
    )


def opened_runs() -> tuple[list[Finished], str]:
  """The runs of --runs and a title. Raises InputError."""
  from gatrec_jax.experiment.grid import open_finished

  finished = [open_finished(pathlib.Path(folder)) for folder in FLAGS.runs]
  return finished, ", ".join(dict.fromkeys(one.part for one in finished))


def trained_runs(metrics: Sequence[str]) -> tuple[list[Finished], str]:
  """The models of --models, trained on every part with every seed, and a title.

  Raises: InputError, before the training, for a reference or a metric that will not exist.
  """
  from gatrec_jax.experiment.grid import run_grid
  from gatrec_jax.runs.log import CONSOLE

  systems = systems_from_flags()
  _reference_among(systems)
  _require_known(next(iter(systems.values())), metrics)
  parts, seeds, workdir = _grid_from_flags(next(iter(systems.values())))
  finished = run_grid(systems, parts, seeds, workdir, refit=FLAGS.refit, log=CONSOLE)
  return finished, f"{pathlib.Path(FLAGS.dataset or 'demo').name} · {', '.join(parts)}"


def compared(
  finished: Sequence[Finished], metrics: Sequence[str], below: Sequence[int], *, reference: str
) -> list[Comparison]:
  """One comparison per protocol. Args: metrics: () = the default. Raises InputError."""
  from gatrec_jax.evaluate.comparison import compare_systems, values_by_protocol
  from gatrec_jax.experiment.grid import user_values_of
  from gatrec_jax.runs.log import CONSOLE

  systems = list(dict.fromkeys(one.system for one in finished))
  of_users = user_values_of(finished)
  metrics = metrics or default_metrics(set.intersection(*(set(one.values) for one in of_users)))
  values = values_by_protocol(of_users, FLAGS.protocol, below=below, log=CONSOLE)
  comparisons = []
  for protocol, of_systems in values.items():
    if missing := [system for system in systems if system not in of_systems]:
      CONSOLE.info(
        f"{protocol}: without {', '.join(missing)}, which would have to be trained again to use "
        "new ratings"
      )
    comparisons.append(
      compare_systems(
        of_systems,
        reference=reference if reference in of_systems else next(iter(of_systems)),
        metrics=metrics,
        num_resamples=max(FLAGS.bootstrap or 10_000, 1),
      )
    )
  return comparisons


def default_metrics(computed: Iterable[str]) -> list[str]:
  """ndcg@10 and recall@20; where one was not computed, it is taken at the first cut-off.

  Args: computed: names of metrics, such as "ndcg@5".
  """
  cutoffs = {int(name.partition("@")[2]) for name in computed}
  wanted = (("ndcg", 10), ("recall", 20))
  return [f"{name}@{k if k in cutoffs else min(cutoffs, default=k)}" for name, k in wanted]


def systems_from_flags() -> dict[str, Config]:
  """The configurations of --models by label. Raises InputError."""
  from gatrec_jax.config.overrides import field_types, parse_assignments, with_fields
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.errors import InputError

  systems: dict[str, Config] = {}
  for text in FLAGS.models:
    head, *settings = text.split(":")
    label, _, name = head.rpartition("=")
    label = label or name
    chosen = parse_assignments(settings, field="models")
    split = chosen.get("split") or given_fields().get("split", "")
    config = get_preset(name, field="models", split=split)
    known = field_types(config)
    given = {field: value for field, value in given_fields().items() if field in known}
    config = with_fields(config, given | chosen)
    if config.data.split == "none":
      raise InputError("holds out no ratings to compare on", field="split", value="none")
    if label in systems:
      raise InputError(
        f"the label '{label}' is already taken; write other={name}:…", field="models", value=text
      )
    if "/" in label:
      raise InputError("a label must not contain a slash", field="models", value=text)
    systems[label] = config
  return systems


def _reference_among(systems: Mapping[str, Any]) -> str:
  from gatrec_jax.errors import InputError

  reference = FLAGS.reference or next(iter(systems))
  if reference not in systems:
    raise InputError(f"not among {', '.join(systems)}", field="reference", value=reference)
  return reference


def _require_known(config: Config, metrics: Sequence[str]) -> None:
  """Raises InputError for a metric that will not be computed for every user."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.metrics import DEFINITIONS

  cutoffs = {str(k) for k in config.evaluate.ks}
  of_users = [name for name in DEFINITIONS if name not in ("coverage", "gini", "diversity")]
  for metric in metrics:
    name, _, k = metric.partition("@")
    if name not in of_users or k not in cutoffs:
      raise InputError(
        f"must be one of {', '.join(of_users)} at one of the cut-offs "
        f"`ks={','.join(sorted(cutoffs, key=int))}`, such as ndcg@10",
        field="metrics",
        value=metric,
      )


def _grid_from_flags(config: Config) -> tuple[dict[str, dict[str, Any]], list[int], pathlib.Path]:
  """Parts by label, seeds, and the folder of all runs. Args: config: of one model."""
  from gatrec_jax.errors import InputError

  seeds, folds, data = whole_numbers("seeds"), FLAGS.folds, config.data
  if not seeds:
    raise InputError("give at least one, such as 0,1,2", field="seeds")
  if folds and data.split not in ("random", "kfold"):
    raise InputError(f"and `split={data.split}` exclude each other", field="folds")
  parts: dict[str, dict[str, Any]] = {fold: {"fold": fold} for fold in folds}
  if not folds:
    split_seeds = whole_numbers("split_seeds") or [FLAGS.split_seed or 0]
    parts = {f"{data.split}-{seed}": {"split_seed": seed} for seed in split_seeds}
  default = f"runs/compare-{pathlib.Path(data.dataset).stem}-{'folds' if folds else data.split}"
  return parts, seeds, path_flag("workdir") if FLAGS.workdir else pathlib.Path(default)


if __name__ == "__main__":
  run(main, __doc__)
