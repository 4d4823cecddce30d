"""What every peer is beside its jobs: a loop that answers lines of JSON.

Peers are started as scripts, which finds this file beside them; it imports nothing from this
library, so that any Python can run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def answer_jobs(
  make_jobs: Callable[[], Mapping[str, Callable[..., dict[str, Any]]]],
  *,
  within: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> None:
  """Answers jobs until the input ends.

  Args:
    make_jobs: gives the jobs by name; what it prints goes to the log, too.
    within: makes the context that each job runs in.
  """
  # Libraries print to the log, so that standard output carries only answers.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  jobs = make_jobs()
  for line in sys.stdin:
    arguments = json.loads(line)
    try:
      with within():
        answer = jobs[arguments.pop("job")](**arguments)
    except Exception as error:  # Told to the other side, which decides.
      answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> float | None:
  """The peak resident memory in MiB; None if the system does not report it."""
  # Not `ru_maxrss`: Linux hands the peak of the process that started this one down to it.
  try:
    with open("/proc/self/status") as file:
      return next(int(one.split()[1]) for one in file if one.startswith("VmHWM:")) / 1024
  except (OSError, StopIteration):
    return None
