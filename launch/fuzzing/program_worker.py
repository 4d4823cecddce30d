"""A process that runs one launch program again and again, as `damage_trials` asks for it.

A line of JSON with the arguments comes in; a line with exit code, output and traceback goes out.
Starting Python, importing JAX and compiling would otherwise take most of the time of a call.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import traceback


def main(place: str) -> None:
  """Answers until the input ends. Args: place: the working folder, entered anew for each call."""
  from launch.cli.entry import run
  from launch.cli.flags import FLAGS, defined

  program = importlib.import_module(f"launch.{sys.argv[1]}")
  answers = sys.stdout
  for line in sys.stdin:
    os.chdir(place)
    out, err, code, trace = io.StringIO(), io.StringIO(), 0, ""
    for name in defined():
      FLAGS[name].unparse()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        run(program.main, program.__doc__ or "", [sys.argv[1], *json.loads(line)])
      except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
      except Exception:
        trace = traceback.format_exc()
    answer = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "trace": trace}
    print(json.dumps(answer), file=answers, flush=True)
