"""Damages the stored files of runs one at a time, and lets the programs read them.

  python -m launch.damage --trials=1000
  python -m launch.damage --trials=100 --seed=1 --workdir=/tmp/damage

Bits are flipped, digits changed, blocks zeroed, files cut, lengthened, emptied and deleted: data,
profiles, vectors, checkpoints, results, re-rank scores, reasons, written profiles, searches and the
built-in models. A program must then give what it gives without the damage, saying where it made
something again, or end with one line that names the file. Other results in silence and tracebacks
are findings: the folder is kept in WORKDIR/findings/NUMBER, and the exit code is 1. The same
command goes on where it stopped.
"""

from __future__ import annotations

import sys

from launch.cli import FLAGS, define, require_at_least, run, say, say_text

define("trials", "seed", "workdir", "markdown", seed="0", workdir="runs/damage")


def main() -> None:
  """Flags -> damaged files -> tables of outcomes."""
  from gatrec_jax import runs
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.grid import Table, markdown_grid, print_grid
  from launch.fuzzing.damage_trials import BAD, GOOD, by_outcome, try_damages

  require_at_least("trials", 1)
  require_at_least("seed", 0)
  workdir = runs.open_workdir(FLAGS.workdir)
  with runs.locked(workdir):
    found = try_damages(workdir, trials=FLAGS.trials, seed=FLAGS.seed, log=CONSOLE)
  for field in ("artifact", "reader", "damage"):
    counts = by_outcome(found, field)
    rows = [
      [name, *(str(outcomes[kind]) for kind in (*GOOD, *BAD))] for name, outcomes in counts.items()
    ]
    table = Table(f"{len(found)} damaged files by {field}", [field, *GOOD, *BAD], rows)
    print_grid(table)
    if FLAGS.markdown:
      say_text(markdown_grid(table))
  bad = [one for one in found if one["outcome"] in BAD]
  for one in bad:
    say(
      f"{workdir}/findings/{one['key']}: {one['outcome']}: {one['damage']} in {one['file']}, read "
      f"by {one['reader']}: {one['said']}"
    )
  if bad:
    sys.exit(1)


if __name__ == "__main__":
  run(main, __doc__)
