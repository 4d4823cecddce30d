"""Kills programs at random moments and checks that they end with the same files.

  python -m launch.soak --kills=20 --workdir=/tmp/soak
  python -m launch.soak --kills=20 --workdir=/tmp/soak --programs=rerank_builtin,explain_builtin
  python -m launch.soak --reader_minutes=10 --workdir=/tmp/readers

Each program works on the demo catalog, or on a smaller table where a language model reads it, with
small settings. It gets SIGKILL, sometimes SIGTERM or SIGINT, up to three times in a row and at
moments spread evenly over its duration; sometimes launch.recommend reads the run meanwhile. It is
then run to its end, and everything that it wrote is compared with an uninterrupted run: arrays bit
for bit, tables, JSON and lines by value except for times and memory, other files byte for byte.
Where something differs, it is named, the folder is kept as WORKDIR/kept/PROGRAM-N, and the exit
code is 1. Counts are kept in WORKDIR/soak.json; the same command goes on from there.
--reader_minutes kills nothing, but reads a run over and over while it is trained.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from launch.cli import FLAGS, define, path_flag, require_at_least, require_one_of, run, say_text

if TYPE_CHECKING:
  from launch.cli.grid import Table
  from launch.soaking.trials import Place

define("programs", "kills", "reader_minutes", "seed", "workdir", "markdown", seed=0)


def main() -> None:
  """Flags -> kills of each program -> a table."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.grid import markdown_grid, print_grid
  from launch.soaking.readers import read_while_training
  from launch.soaking.subjects import SLOW, SUBJECTS
  from launch.soaking.trials import Place

  require_one_of("programs", ("all", *SUBJECTS))
  require_at_least("kills", 1)
  names = FLAGS.programs
  if "all" in names:
    names = [name for name in SUBJECTS if name not in SLOW]
  given = path_flag("workdir") if FLAGS.workdir else pathlib.Path(f"runs/soak-{FLAGS.seed}")
  workdir = runs.open_workdir(given).absolute()
  with runs.locked(workdir):
    place, state = Place(workdir), _state(workdir)
    if FLAGS.reader_minutes:
      found = read_while_training(place, minutes=FLAGS.reader_minutes, log=CONSOLE)
      CONSOLE.info(f"readers: both ended well; {', '.join(f'{v} {k}' for k, v in found.items())}")
      return
    for name in names:
      soak(name, place, state)
    print_grid(table(state))
    if FLAGS.markdown:
      say_text(markdown_grid(table(state)))
  if wrong := sorted(name for name, one in state["programs"].items() if one["problems"]):
    raise InputError(f"{workdir}: something differs or went wrong in {', '.join(wrong)}")


def soak(name: str, place: Place, state: dict[str, Any]) -> None:
  """Adds kills of one program to the state until there are enough."""
  import numpy as np

  from gatrec_jax import runs
  from gatrec_jax.runs.log import CONSOLE
  from launch.soaking.subjects import SUBJECTS
  from launch.soaking.trials import shown

  subject, whole = SUBJECTS[name], None
  one = state["programs"].setdefault(name, {"trials": 0, "kills": {}, "readers": 0, "problems": {}})
  while sum(one["kills"].values()) < FLAGS.kills:
    if whole is None:
      whole, one["seconds"] = place.whole(name, subject)
      CONSOLE.info(f"{name}: {len(whole)} leaves in {one['seconds']:.1f} s")
    number = one["trials"]
    random = np.random.default_rng([FLAGS.seed, *name.encode(), number])
    trial = place.trial(subject, whole, one["seconds"], random)
    one["trials"] += 1
    one["readers"] += trial.readers
    for signum in trial.signals:
      one["kills"][signum] = one["kills"].get(signum, 0) + 1
    line = f"{name} {number}: {', '.join(trial.signals) or 'ended before the signal'}"
    if trial.problems:
      one["problems"][str(number)] = trial.problems
      kept = place.workdir / "kept" / f"{name}-{number}"
      kept.parent.mkdir(exist_ok=True)
      place.folder.rename(kept)
      line += f"; {shown(trial.problems)}; kept as {kept}"
    CONSOLE.info(line)
    runs.write_json(place.workdir / "soak.json", state)


def table(state: dict[str, Any]) -> Table:
  """Counts by program, and their sum."""
  from launch.cli.grid import Table

  columns = ("SIGKILL", "SIGTERM", "SIGINT")
  rows, sums = [], [0] * 6
  for name, one in state["programs"].items():
    kills = [one["kills"].get(column, 0) for column in columns]
    counts = [one["trials"], *kills, one["readers"], len(one["problems"])]
    sums = [total + count for total, count in zip(sums, counts, strict=True)]
    rows.append((name, *map(str, counts), f"{one.get('seconds', 0):.1f}"))
  rows.append(("all", *map(str, sums), ""))
  header = ("program", "runs", *columns, "readers", "unequal", "seconds")
  return Table(f"soak, commit {state['commit'][:9]}", header, rows)


def _state(workdir: pathlib.Path) -> dict[str, Any]:
  """The counts of earlier calls. Raises InputError where they had another commit or seed."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError

  fresh = {"commit": runs.environment()["git_commit"], "seed": FLAGS.seed, "programs": {}}
  path = workdir / "soak.json"
  if not path.exists():
    return fresh
  state = runs.read_json(path)
  for name in ("commit", "seed"):
    if state[name] != fresh[name]:
      raise InputError(f"{workdir}: begun with {name} {state[name]}; use another `workdir`")
  return state


if __name__ == "__main__":
  run(main, __doc__)
