"""Measures this library, beside other implementations where they are at hand:

  python -m launch.benchmark --suite=attention --json_out=attention.json
  python -m launch.benchmark --suite=train --data_dir=../shared/data --compare=torch
  python -m launch.benchmark --suite=all --data_dir=../shared/data --peer_python=/path/to/python

Speed of the stages. Compilation is timed apart from runs, runs are repeated (--repeats) and their
median counts; the machine's memory bandwidth and matmul rate are measured first, and figures whose
bytes and FLOPs are counted have their share of what these allow. --compare=torch runs PyTorch,
PyTorch Geometric or transformers on the same inputs in the same call; --peer_python names the
Python that has them, if not this one.

Suite attention: graph attention by its implementations on random graphs. Suite train: steps and
epochs on ML-100K and ML-1M. Suite eval: full ranking of all users of ML-1M with all metrics. Suite
embed: sentence vectors of the published item profiles. Suite lm: prefill, decoding, continuations
of a shared prefix, compile time; without --llm the model has random weights in the shape of
Qwen2-0.5B. Suite rerank: users that each strategy re-ranks in a second. Suite scale: a step on
graphs of 10^5 to 2.5 * 10^7 ratings, and the memory of each of eight devices. Suite all: these one
after another; 40 minutes on two cores with the peers.

Suite fusion: whether fused lists can be worse than the candidates they came from. Over the lists
that the paper's authors published (in DATA_DIR/published), a random ranker, one that knows the
truth under noise, and four re-ranked lists by LLMs are fused by every method. Two minutes.

Suite sweep: 16 settings of a model in one program against 16 single runs of it, on ML-100K u1 (60
epochs): the time of both, and how far their validation values and losses lie apart. Ten minutes.

Suite statistics: what the verdicts of launch.compare say of simulated systems of known quality, two
copies of one and one that is 3 % better. Three minutes.

Suite anchors: EASE, SLIM, ADMM-SLIM and ItemKNN on RecBole's own split (ML-100K and ML-1M), beside
the published figures. Five minutes.
"""

from __future__ import annotations

from typing import Any

from launch.cli import flags as common

common.define(
  "suite",
  "compare",
  "llm",
  "random_shape",
  "peer_python",
  "prompt_tokens",
  "max_tokens",
  "batch_sizes",
  "dtype",
  "continuations",
  "repeats",
  "workdir",
  "data_dir",
  "markdown",
  "json_out",
  max_tokens="64",
)

# Suites of figures with one kind of table: module of launch.benchmarks, function.
SPEED = {
  "attention": ("attention", "run_attention"),
  "train": ("train", "run_train"),
  "eval": ("eval", "run_eval"),
  "embed": ("embed", "run_embed"),
  "rerank": ("rerank", "run_rerank"),
  "scale": ("scale", "run_scale"),
}
ALL = ("attention", "train", "eval", "embed", "lm", "rerank", "scale")
SUITES = (*ALL, "all", "fusion", "statistics", "sweep", "anchors")


def main() -> None:
  """Flags -> one suite -> table and file."""
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.folder import environment, write_json
  from launch.cli.grid import markdown_grid, print_grid

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  if flags["suite"] not in SUITES:
    raise InputError(f"--suite={flags['suite']}: not one of {', '.join(SUITES)}")
  if flags["repeats"] < 1:
    raise InputError(f"--repeats={flags['repeats']}: must be at least 1")
  if flags["compare"] not in (None, "torch"):
    raise InputError(f"--compare={flags['compare']}: torch is the only peer")
  common.require_writable("json_out")
  names = ALL if flags["suite"] == "all" else (flags["suite"],)
  found = {}
  for name in names:
    results, grid = measured(name, flags)
    print_grid(*grid)
    found[name] = results | {"markdown": markdown_grid(*grid)}
    if flags["markdown"]:
      print(f"\n{found[name]['markdown']}")
    if flags["json_out"]:  # after each, so that a long call that is stopped leaves what it had
      tree = {"suites": found} if flags["suite"] == "all" else found[name]
      write_json(
        pathlib.Path(flags["json_out"]),
        {"suite": flags["suite"], **tree, "environment": environment()},
      )


def measured(suite: str, flags: dict[str, Any]) -> tuple[dict[str, Any], tuple]:
  """The figures of a suite, and its table."""
  from gatrec_jax.runs.log import CONSOLE

  data_dir = flags["data_dir"] or ""
  if suite in SPEED:
    import importlib

    from launch.benchmarks.measure import table

    module, function = SPEED[suite]
    run = getattr(importlib.import_module(f"launch.benchmarks.{module}"), function)
    results = run(flags, log=CONSOLE)
    return results, table(results)
  if suite == "lm":
    from launch.benchmarks.lm import suite as benchmark_lm
    from launch.benchmarks.lm import table as benchmark_lm_table

    results = benchmark_lm.run_lm(benchmark_lm.read_settings(flags), log=CONSOLE)
    return results, benchmark_lm_table.table(results)
  if suite == "fusion":
    from launch.benchmarks import fusion as benchmark_fusion

    published = benchmark_fusion.open_published(data_dir)
    results = benchmark_fusion.run_fusion(published, log=CONSOLE)
    return results, benchmark_fusion.table(results)
  if suite == "statistics":
    from launch.benchmarks import statistics as benchmark_statistics

    results = benchmark_statistics.run_statistics(log=CONSOLE)
    return results, benchmark_statistics.table(results)
  if suite == "sweep":
    import jax

    from launch.benchmarks import sweep as benchmark_sweep

    # It measures what compiling each run anew costs, which programs kept on disk would hide.
    jax.config.update("jax_enable_compilation_cache", False)

    results = benchmark_sweep.run_sweeps(data_dir, log=CONSOLE)
    return results, benchmark_sweep.table(results)
  from launch.benchmarks import anchors as benchmark_anchors

  results = benchmark_anchors.run_anchors(data_dir, log=CONSOLE)
  return results, benchmark_anchors.table(results)


if __name__ == "__main__":
  common.run(main, __doc__)
