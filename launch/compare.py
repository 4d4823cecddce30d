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

from launch.cli import COMPARING, FLAGS, define, given_fields, require_writable, run
from launch.cli.comparing import compared, report, trained_runs

if TYPE_CHECKING:
  from collections.abc import Mapping

  from gatrec_jax.config.schema import Config
  from gatrec_jax.experiment.grid import Finished

define(*COMPARING, "models", "reference", "runs")


def main() -> None:
  """Flags -> finished runs -> one table per protocol."""
  from gatrec_jax.errors import InputError

  require_writable("json_out")
  if bool(FLAGS.models) == bool(FLAGS.runs):
    raise InputError("give either `models` to train or `runs` that are finished")
  if FLAGS.runs:
    finished, title = opened_runs()
  else:
    systems = systems_from_flags()
    _reference_among(systems)
    finished, title = trained_runs(systems, program="compare")
  reference = _reference_among({one.system: one for one in finished})
  report(compared(finished, reference=reference), finished, title=title)


def opened_runs() -> tuple[list[Finished], str]:
  """The runs of --runs and a title. Raises InputError."""
  from gatrec_jax.experiment.grid import open_finished

  finished = [open_finished(pathlib.Path(folder)) for folder in FLAGS.runs]
  return finished, ", ".join(dict.fromkeys(one.part for one in finished))


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


if __name__ == "__main__":
  run(main, __doc__)
