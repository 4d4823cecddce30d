"""Measures this library, beside other implementations where they are at hand:

  python -m launch.benchmark --suite=lm --json_out=lm.json
  python -m launch.benchmark --suite=lm --llm=FOLDER --peer_python=/path/to/python

Suite lm: prefill, decoding, continuations of a shared prefix, compile time. Without --llm the model
has random weights in the shape of Qwen2-0.5B. --peer_python is a Python that has torch and
transformers; ours and theirs then take turns.
"""

from launch import common

common.define(
  "suite", "llm", "random_shape", "peer_python", "prompt_tokens", "max_tokens", "batch_sizes",
  "dtype", "continuations", "repeats", "workdir", "markdown", "json_out", max_tokens="64",
)  # fmt: skip

SUITES = ("lm",)


def main() -> None:
  """Flags -> one suite -> table and file."""
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.runs import environment, write_json
  from launch.benchmark_lm import read_settings, run_lm
  from launch.benchmark_lm_table import table
  from launch.benchmark_tables import markdown_grid, print_grid

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  if flags["suite"] not in SUITES:
    raise InputError(f"--suite={flags['suite']}: not one of {', '.join(SUITES)}")
  common.require_writable("json_out")
  results = run_lm(read_settings(flags), say=common.say)
  grid = table(results)
  text = markdown_grid(*grid)
  print_grid(*grid)
  if flags["markdown"]:
    print(f"\n{text}")
  if flags["json_out"]:
    tree = {"suite": flags["suite"], **results, "environment": environment(), "markdown": text}
    write_json(pathlib.Path(flags["json_out"]), tree)


if __name__ == "__main__":
  common.run(main, __doc__)
