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
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The package's own advice: its threads must not each start those of OpenBLAS. Before NumPy.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import implicit
import numpy as np
import scipy.sparse
from answering import answer_jobs, peak_memory
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
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak_memory()}


def make_jobs() -> dict[str, Callable[..., dict[str, Any]]]:
  """The jobs by name."""
  peer = Peer()
  return {"hello": peer.hello, "load": peer.load, "fit": peer.fit}


if __name__ == "__main__":
  answer_jobs(make_jobs)
