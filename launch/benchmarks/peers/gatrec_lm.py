"""Times this library's compilation of text generation in a fresh process.

Reads one job from standard input and answers with one line; see `process.Process`.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
  """Compiles generation for every batch size."""
  job = json.loads(sys.stdin.readline())
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.folders.load import load_decoder
  from launch.benchmarks.lm.timing import endless, random_rows, time_compiling

  try:
    begun = time.perf_counter()
    model = endless(load_decoder(job["folder"], dtype=job["dtype"]))
    answer = {"load_seconds": time.perf_counter() - begun, "batches": {}}
    for batch in job["batch_sizes"]:
      prompts = random_rows(model.config.vocabulary, batch, job["prompt_tokens"], seed=0)
      answer["batches"][batch] = time_compiling(model, prompts, max_tokens=job["max_tokens"])
  except InputError as error:
    answer = {"error": str(error)}
  print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
