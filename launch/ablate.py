"""Trains a model without each of its components, and says what each of them brings.

  python -m launch.ablate --dataset=ml-100k --folds=u1,u2 --seeds=0,1,2
  python -m launch.ablate --dataset=FILE --split=next_item --components=layers,order
  python -m launch.ablate --preset=paper --dataset=ml-100k --folds=u1 --components=attention,cosine

Differences are paired over users, whose folds and seeds are averaged first. Validation ratings
choose the epoch of every model, test ratings choose nothing. Finished runs are kept: the same
command continues after an interruption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import COMPARING, FLAGS, config_from_flags, define, require_writable, run, say
from launch.cli.comparing import compared, report, trained_runs

if TYPE_CHECKING:
  from collections.abc import Sequence

  from gatrec_jax.evaluate.comparison import Comparison
  from gatrec_jax.experiment.components import Component

WHOLE = "whole"
"""The label of the model with all components."""

define(*COMPARING, "preset", "set", "components")


def main() -> None:
  """Flags -> runs of the whole model and without each component -> tables, and what they say."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.experiment.components import chosen_components
  from gatrec_jax.runs.log import CONSOLE

  require_writable("json_out")
  config = config_from_flags()
  if config.data.split == "none":
    raise InputError("holds out no ratings to compare on", field="split", value="none")
  components = chosen_components(config, [name.strip() for name in FLAGS.components])
  without = {f"without {one.name}": one for one in components}
  systems = {WHOLE: config} | {label: one.without(config) for label, one in without.items()}
  for label, one in without.items():
    CONSOLE.info(f"{label}: {one.what}; {one.flags}")
  finished, title = trained_runs(systems, program="ablate")
  comparisons = compared(finished, reference=WHOLE)
  found = {
    one.name: {"what": one.what, "settings": dict(one.settings), "flags": one.flags}
    for one in components
  }
  report(comparisons, finished, title=f"{config.preset} · {title}", components=found)
  for sentence in verdicts(comparisons[0], without):
    say(sentence)


def verdicts(comparison: Comparison, without: dict[str, Component]) -> Sequence[str]:
  """A sentence on each component: what it brings, or that nothing shows.

  Args: without: the component that each system lacks.
  """
  metric = comparison.metrics[0]
  sentences = []
  for label, one in without.items():
    difference = comparison.against[label][metric].difference
    relative = "" if difference.relative is None else f" ({-difference.relative:+.1%})"
    says = f"{-difference.mean:+.4f} [{-difference.hi:+.4f}, {-difference.lo:+.4f}]{relative}"
    if difference.lo <= 0 <= difference.hi:
      sentences.append(
        f"{one.name}: no difference shows, {says} {metric}; {one.flags} leaves it out"
      )
    else:
      verb = "brings" if difference.mean < 0 else "costs"
      sentences.append(f"{one.name}: {verb} {says} {metric}")
  return sentences


if __name__ == "__main__":
  run(main, __doc__)
