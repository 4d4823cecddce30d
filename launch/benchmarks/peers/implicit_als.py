"""The peer of suite `als`: AlternatingLeastSquares of the package `implicit`.

Needs implicit, and imports nothing from this library. Each line of JSON on standard input is a job,
answered by one line of JSON:

  {"job": "hello"}                                                -> version, threads
  {"job": "load", "path"}  an .npz: user [P], item [P], sizes [2] -> pairs
  {"job": "fit", "factors", "iterations", "alpha", "regularization", "path"}
    -> seconds, cpu_seconds, peak_memory_mb; writes user [U, D] and item [I, D] to the .npz `path`
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The package's own advice: its threads must not each start those of OpenBLAS. Before NumPy.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import implicit
import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares


class Peer:
  """The observed pairs and the jobs."""

  def hello(self) -> dict[str, Any]:
    """The version, and as many threads as CPUs are available to this process."""
    allowed = getattr(os, "sched_getaffinity", None)
    self.threads = len(allowed(0)) if allowed else os.cpu_count()
    return {"implicit": implicit.__version__, "threads": self.threads}

  def load(self, path: str) -> dict[str, Any]:
    """Reads the pairs into a sparse matrix of ones."""
    with np.load(path) as file:
      cells = file["user"], file["item"]
      ones = np.ones(len(cells[0]), np.float32)
      self.pairs = scipy.sparse.csr_matrix((ones, cells), shape=tuple(file["sizes"]))
    return {"pairs": self.pairs.nnz}

  def fit(
    self, factors: int, iterations: int, alpha: float, regularization: float, path: str
  ) -> dict[str, Any]:
    """Fits once, from the sparse matrix to the factors, with the package's defaults otherwise."""
    with contextlib.suppress(OSError):  # the peak since the start remains
      Path("/proc/self/clear_refs").write_text("5")
    begun, cpu = time.perf_counter(), time.process_time()
    model = AlternatingLeastSquares(
      factors=factors,
      iterations=iterations,
      alpha=alpha,
      regularization=regularization,
      num_threads=self.threads,
      random_state=0,
    )
    model.fit(self.pairs, show_progress=False)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    np.savez(path, user=model.user_factors, item=model.item_factors)
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": _peak_memory()}


def _peak_memory() -> float | None:
  """The peak resident memory in MiB; None if the system does not report it."""
  try:
    with open("/proc/self/status") as file:
      return next(int(one.split()[1]) for one in file if one.startswith("VmHWM:")) / 1024
  except (OSError, StopIteration):
    return None


def main() -> None:
  """Answers jobs until the input ends."""
  # Libraries print to the log, so that standard output carries only answers.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  peer = Peer()
  jobs: dict[str, Callable[..., dict[str, Any]]] = {
    "hello": peer.hello,
    "load": peer.load,
    "fit": peer.fit,
  }
  for line in sys.stdin:
    arguments = json.loads(line)
    try:
      answer = jobs[arguments.pop("job")](**arguments)
    except Exception as error:  # Told to the other side, which decides.
      answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main()
