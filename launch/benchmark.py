"""Measures this library, beside other implementations where they are at hand:

  python -m launch.benchmark --suite=lm --json_out=lm.json
  python -m launch.benchmark --suite=lm --llm=FOLDER --peer_python=/path/to/python
  python -m launch.benchmark --suite=fusion --data_dir=../shared/data --json_out=fusion.json
  python -m launch.benchmark --suite=sweep --data_dir=../shared/data --json_out=sweep.json
  python -m launch.benchmark --suite=statistics
  python -m launch.benchmark --suite=anchors --data_dir=../shared/data

Suite lm: prefill, decoding, continuations of a shared prefix, compile time. Without --llm the model
has random weights in the shape of Qwen2-0.5B. --peer_python is a Python that has torch and
transformers; ours and theirs then take turns.

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

from launch import common

common.define(
  "suite", "llm", "random_shape", "peer_python", "prompt_tokens", "max_tokens", "batch_sizes",
  "dtype", "continuations", "repeats", "workdir", "data_dir", "markdown", "json_out",
  max_tokens="64",
)  # fmt: skip

SUITES = ("lm", "fusion", "statistics", "sweep", "anchors")


def main() -> None:
  """Flags -> one suite -> table and file."""
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.runs import environment, write_json
  from launch.benchmark_tables import markdown_grid, print_grid

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  if flags["suite"] not in SUITES:
    raise InputError(f"--suite={flags['suite']}: not one of {', '.join(SUITES)}")
  common.require_writable("json_out")
  results, grid = measured(flags)
  text = markdown_grid(*grid)
  print_grid(*grid)
  if flags["markdown"]:
    print(f"\n{text}")
  if flags["json_out"]:
    tree = {"suite": flags["suite"], **results, "environment": environment(), "markdown": text}
    write_json(pathlib.Path(flags["json_out"]), tree)


def measured(flags: dict[str, Any]) -> tuple[dict[str, Any], tuple]:
  """The figures of a suite, and its table."""
  suite, data_dir = flags["suite"], flags["data_dir"] or ""
  if suite == "lm":
    from launch import benchmark_lm, benchmark_lm_table

    results = benchmark_lm.run_lm(benchmark_lm.read_settings(flags), say=common.say)
    return results, benchmark_lm_table.table(results)
  if suite == "fusion":
    from launch import benchmark_fusion

    published = benchmark_fusion.open_published(data_dir)
    results = benchmark_fusion.run_fusion(published, say=common.say)
    return results, benchmark_fusion.table(results)
  if suite == "statistics":
    from launch import benchmark_statistics

    results = benchmark_statistics.run_statistics(say=common.say)
    return results, benchmark_statistics.table(results)
  if suite == "sweep":
    import jax

    from launch import benchmark_sweep

    # It measures what compiling each run anew costs, which programs kept on disk would hide.
    jax.config.update("jax_enable_compilation_cache", False)

    results = benchmark_sweep.run_sweeps(data_dir, say=common.say)
    return results, benchmark_sweep.table(results)
  from launch import benchmark_anchors

  results = benchmark_anchors.run_anchors(data_dir, say=common.say)
  return results, benchmark_anchors.table(results)


if __name__ == "__main__":
  common.run(main, __doc__)
