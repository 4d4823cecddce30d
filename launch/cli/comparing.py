"""Trains systems on every part with every seed, and compares them, as the flags say."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from launch.cli.flags import FLAGS, path_flag, whole_numbers

if TYPE_CHECKING:
  from collections.abc import Iterable, Mapping, Sequence

  from gatrec_jax.config.schema import Config
  from gatrec_jax.evaluate.comparison import Comparison
  from gatrec_jax.experiment.grid import Finished


def trained_runs(systems: Mapping[str, Config], *, program: str) -> tuple[list[Finished], str]:
  """Every system trained on every part with every seed, and a title.

  Args: program: begins the name of the folder, if --workdir is not given.
  Raises: InputError, before the training, for a metric that will not exist.
  """
  from gatrec_jax.experiment.grid import run_grid
  from gatrec_jax.runs.log import CONSOLE

  first = next(iter(systems.values()))
  _require_known(first)
  parts, seeds, workdir = _grid_from_flags(first, program)
  finished = run_grid(systems, parts, seeds, workdir, refit=FLAGS.refit, log=CONSOLE)
  return finished, f"{pathlib.Path(FLAGS.dataset or 'demo').name} · {', '.join(parts)}"


def compared(finished: Sequence[Finished], *, reference: str) -> list[Comparison]:
  """One comparison per protocol, with the metrics of the flags. Raises InputError."""
  from gatrec_jax.evaluate.comparison import compare_systems, values_by_protocol
  from gatrec_jax.experiment.grid import user_values_of
  from gatrec_jax.runs.log import CONSOLE

  systems = list(dict.fromkeys(one.system for one in finished))
  of_users = user_values_of(finished)
  computed = set.intersection(*(set(one.values) for one in of_users))
  metrics, below = _metrics() or default_metrics(computed), whole_numbers("below")
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


def report(
  comparisons: Sequence[Comparison], finished: Sequence[Finished], *, title: str, **more: Any
) -> None:
  """Prints one table per protocol, and writes --json_out, where `more` is added."""
  from gatrec_jax import runs
  from gatrec_jax.evaluate.comparison import comparison_json
  from gatrec_jax.experiment.grid import facts_by_system
  from launch.cli.comparison import print_comparison

  facts = facts_by_system(finished)
  for comparison in comparisons:
    print_comparison(comparison, facts, title=title, markdown=FLAGS.markdown)
  if FLAGS.json_out:
    runs.write_json(
      path_flag("json_out"),
      {
        "title": title,
        "refit": FLAGS.refit,
        **comparison_json(comparisons, facts),
        **more,
        "environment": runs.environment(),
      },
    )


def default_metrics(computed: Iterable[str]) -> list[str]:
  """ndcg@10 and recall@20; where one was not computed, it is taken at the first cut-off.

  Args: computed: names of metrics, such as "ndcg@5".
  """
  cutoffs = {int(name.partition("@")[2]) for name in computed}
  wanted = (("ndcg", 10), ("recall", 20))
  return [f"{name}@{k if k in cutoffs else min(cutoffs, default=k)}" for name, k in wanted]


def _metrics() -> list[str]:
  return [name.strip() for name in FLAGS.metrics]


def _require_known(config: Config) -> None:
  """Raises InputError for a metric that will not be computed for every user."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.evaluate.metrics import DEFINITIONS

  cutoffs = {str(k) for k in config.evaluate.ks}
  of_users = [name for name in DEFINITIONS if name not in ("coverage", "gini", "diversity")]
  for metric in _metrics():
    name, _, k = metric.partition("@")
    if name not in of_users or k not in cutoffs:
      raise InputError(
        f"must be one of {', '.join(of_users)} at one of the cut-offs "
        f"`ks={','.join(sorted(cutoffs, key=int))}`, such as ndcg@10",
        field="metrics",
        value=metric,
      )


def _grid_from_flags(
  config: Config, program: str
) -> tuple[dict[str, dict[str, Any]], list[int], pathlib.Path]:
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
  kind = "folds" if folds else data.split
  default = f"runs/{program}-{pathlib.Path(data.dataset).stem}-{kind}"
  return parts, seeds, path_flag("workdir") if FLAGS.workdir else pathlib.Path(default)
