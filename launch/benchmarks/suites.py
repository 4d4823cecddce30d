"""The suites of launch.benchmark, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  from gatrec_jax.runs.log import Log
  from launch.cli.grid import Table

Json = dict[str, Any]


class Suite(NamedTuple):
  """A suite of measurements.

  Attributes:
    module: below launch.benchmarks. function: in it, `run(flags, *, log) -> Json`.
    table: the module below launch.benchmarks whose `table` turns these results into a `Table`.
    help: one line.
  """

  module: str
  function: str
  table: str
  help: str


SUITES: Mapping[str, Suite] = {
  "attention": Suite(
    "attention", "run_attention", "measure", "graph attention by each implementation, random graphs"
  ),
  "train": Suite("train", "run_train", "measure", "training steps on ML-100K and ML-1M"),
  "eval": Suite("eval", "run_eval", "measure", "full ranking of all users of ML-1M, all metrics"),
  "embed": Suite(
    "embed", "run_embed", "measure", "sentence vectors of the published item profiles"
  ),
  "lm": Suite(
    "lm.suite", "run_lm_suite", "lm.table", "prefill, decoding, scoring and compile time"
  ),
  "rerank": Suite("rerank", "run_rerank", "measure", "users per second by re-ranking strategy"),
  "serve": Suite("serve", "run_serve", "measure", "answers to requests of the run in --workdir"),
  "scale": Suite(
    "scale", "run_scale", "measure", "steps on 10^5 to 2.5 * 10^7 ratings, and memory"
  ),
  "size": Suite("size", "run_size", "size", "whole runs on synthetic data, planned and measured"),
  "fusion": Suite(
    "fusion", "run_fusion_suite", "fusion", "whether fused lists can be worse than the candidates"
  ),
  "sweep": Suite("sweep", "run_sweep_suite", "sweep", "16 settings in one program or one by one"),
  "statistics": Suite(
    "statistics", "run_statistics_suite", "statistics", "verdicts on simulated systems"
  ),
  "injection": Suite(
    "injection", "run_injection_suite", "injection", "titles that demand the first place"
  ),
  "llama_cpp": Suite(
    "llama_cpp", "run_llama_cpp_suite", "llama_cpp", "a GGUF file here and by llama.cpp"
  ),
  "anchors": Suite("anchors", "run_anchors_suite", "anchors", "models on RecBole's own splits"),
  "als": Suite("als", "run_als_suite", "als", "iALS on ML-1M or --dataset, beside implicit"),
  "peers": Suite(
    "peers_table", "run_peers_suite", "peers_table", "EASE and iALS, binary and graded"
  ),
}
SPEED = ("attention", "train", "eval", "embed", "lm", "rerank", "scale")
"""What `--suite=all` runs."""


def measured(name: str, flags: Mapping[str, Any], *, log: Log) -> tuple[Json, Table]:
  """Runs a suite. Args: flags: of launch.benchmark. Returns: its figures and its table."""
  suite = SUITES[name]
  results = _attribute(suite.module, suite.function)(flags, log=log)
  return results, _attribute(suite.table, "table")(results)


def described() -> str:
  """One line per suite, for --help."""
  lines = [f"  {name:<12}{suite.help}" for name, suite in SUITES.items()]
  return "\n".join(["Suites:", *lines, f"  {'all':<12}{', '.join(SPEED)}"])


def _attribute(module: str, name: str) -> Callable[..., Any]:
  return getattr(importlib.import_module(f"launch.benchmarks.{module}"), name)
