"""Measures speed and memory, beside other implementations where available.

  python -m launch.benchmark --suite=attention --json_out=attention.json
  python -m launch.benchmark --suite=train --data_dir=DIR --compare=torch
  python -m launch.benchmark --suite=all --data_dir=DIR --peer_python=/path/to/python
  python -m launch.benchmark --compare=implicit --data_dir=DIR
  python -m launch.benchmark --compare=implicit --train_file=train.txt --test_file=test.txt

Compile time is reported separately from run time, and the median of --repeats runs counts. The
machine's memory bandwidth and matrix-multiplication rate are measured first; figures whose bytes
and FLOPs are counted are also given as a share of what these allow. --compare=torch runs PyTorch,
PyTorch Geometric or transformers on the same inputs in the same call; --peer_python names the
Python that has them, if it is not this one. --compare=implicit runs suite als, beside the package
of that name.

Suite lm has random weights in the shape of Qwen2-0.5B unless --llm is given. Suites train, eval,
embed, sweep and anchors need MovieLens in --data_dir, as does als without --dataset; embed and
fusion need the published profiles and lists in its folder published/; serve needs a trained run,
--workdir. Suite size writes its tables into the user's cache; ml-20m and ml-25m take up to 12 GiB
and more than an hour. Suite all takes 40 minutes on two cores with the peers, sweep ten, anchors
five, statistics three, fusion two and als one.
"""

from __future__ import annotations

from launch.benchmarks.suites import SPEED, SUITES, described, measured
from launch.cli import (
  FLAGS,
  define,
  flag_values,
  path_flag,
  require_at_least,
  require_one_of,
  require_writable,
  run,
  say_text,
)

__doc__ = f"{__doc__}\n{described()}"

define(
  "suite",
  "compare",
  "llm",
  "random_shape",
  "peer_python",
  "peer_node",
  "quantize",
  "prompt_tokens",
  "max_tokens",
  "batch_sizes",
  "dtype",
  "continuations",
  "shapes",
  "epochs",
  "repeats",
  "workdir",
  "dataset",
  "train_file",
  "test_file",
  "data_dir",
  "markdown",
  "json_out",
  max_tokens="64",
)


def main() -> None:
  """Flags -> suites -> a table and a file."""

  from gatrec_jax.runs.folder import environment, write_json
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.grid import markdown_grid, print_grid

  require_one_of("suite", (*SUITES, "all"))
  require_at_least("repeats", 1)
  require_at_least("epochs", 1)
  suite = _suite()
  require_writable("json_out")
  together = suite == "all"
  found = {}
  for name in SPEED if together else (suite,):
    results, grid = measured(name, flag_values(), log=CONSOLE)
    print_grid(grid)
    found[name] = results | {"markdown": markdown_grid(grid)}
    if FLAGS.markdown:
      say_text(f"\n{found[name]['markdown']}")
    if FLAGS.json_out:  # after each suite, so that an interrupted call keeps its results
      tree = {"suites": found} if together else found[name]
      write_json(path_flag("json_out"), {"suite": suite, **tree, "environment": environment()})


def _suite() -> str:
  """--suite, or the one that --compare belongs to. Raises InputError if they do not agree."""
  from gatrec_jax.errors import InputError

  compare, suite = FLAGS.compare, FLAGS.suite
  if compare not in (None, "torch", "implicit"):
    raise InputError("torch and implicit are the peers", field="compare", value=compare)
  if compare == "implicit" and not FLAGS["suite"].present:
    suite = "als"
  if (suite == "als") != (compare == "implicit") and (compare or FLAGS.peer_python):
    raise InputError(
      "suite als has the peer implicit, the others torch", field="suite", value=suite
    )
  for name in ("dataset", "train_file", "test_file"):
    if FLAGS[name].present and suite != "als":
      raise InputError("only suite als reads it", field=name, value=FLAGS[name].value)
  if FLAGS.dataset and FLAGS.train_file:
    raise InputError("and `dataset` exclude each other", field="train_file", value=FLAGS.train_file)
  return suite


if __name__ == "__main__":
  run(main, __doc__)
