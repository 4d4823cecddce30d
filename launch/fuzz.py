"""Feeds mutated files to every parser, and counts crashes, hangs and other faults.

  python -m launch.fuzz --executions=2000
  python -m launch.fuzz --parser=safetensors,tokenizer --executions=20000 --seed=1

Each parser is given valid files that are changed with knowledge of their format. It must return,
or raise the error that users read, in one line and within five seconds. Anything else is a finding:
another exception, a crash, a hang, an allocation that a file of a few kilobytes cannot need. The
files of a finding are kept in WORKDIR/findings/PARSER-NUMBER. WORKDIR/counts.json says how many
executions there were; the same command goes on from there. The exit code is 1 if anything is found.
"""

from __future__ import annotations

import sys

from launch.cli import FLAGS, define, require_at_least, require_one_of, run, say_text

define(
  "executions", "parser", "seed", "processes", "workdir", "markdown", seed="0", workdir="runs/fuzz"
)


def main() -> None:
  """Flags -> executions -> a table of counts, and the findings."""
  from gatrec_jax import runs
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.grid import Table, markdown_grid, print_grid
  from launch.fuzzing.campaign import findings_of, fuzz
  from launch.fuzzing.parsers import PARSERS

  names = tuple(parser.name for parser in PARSERS)
  require_one_of("parser", ("all", *names))
  require_at_least("executions", 1)
  require_at_least("processes", 0)
  workdir = runs.open_workdir(FLAGS.workdir)
  chosen = [one for one in PARSERS if {"all", one.name} & set(FLAGS.parser)]
  counts = fuzz(
    chosen,
    workdir,
    executions=FLAGS.executions,
    seed=FLAGS.seed,
    processes=FLAGS.processes,
    log=CONSOLE,
  )
  total = {key: sum(one[key] for one in counts.values()) for key in next(iter(counts.values()))}
  rows = [
    [name, *(f"{one[key]:.0f}" for key in ("executions", "accepted", "refused", "findings"))]
    + [f"{one['executions'] / max(one['seconds'], 1e-9):.0f}"]
    for name, one in [*counts.items(), ("all", total)]
  ]
  notes = [
    f"{name}: {kind}, {count} times, first {workdir}/findings/{name}-{number}"
    for (name, kind), (count, number) in findings_of(workdir).items()
  ]
  header = ["parser", "executions", "accepted", "refused", "findings", "per second and process"]
  table = Table(f"fuzz, seed {FLAGS.seed}", header, rows, notes)
  print_grid(table)
  if FLAGS.markdown:
    say_text(f"\n{markdown_grid(table)}")
  if total["findings"]:
    sys.exit(1)


if __name__ == "__main__":
  run(main, __doc__)
