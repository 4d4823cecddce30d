"""A subprocess that answers jobs: one line of JSON in, one line of JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gatrec_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
STOP_SECONDS = 10


class Process:
  """A subprocess and its pipes; a context manager that ends it.

  Raises: InputError, whose line begins with `what`, if it cannot be started, ends, or answers with
    an error.
  """

  def __init__(
    self, command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None
  ) -> None:
    self._what = what
    self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
    try:
      self._process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._log,
        text=True,
        env={**os.environ, **(environment or {})},
      )
    except OSError as error:
      raise InputError(f"{what}: cannot be started ({error.strerror})") from None

  def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
    """Sends a job and waits for its answer."""
    line = ""
    try:
      self._process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
      answer = json.loads(line)
    except (OSError, ValueError):
      raise InputError(f"{self._what}: {self._last_words(line)}") from None
    if "error" in answer:
      raise InputError(f"{self._what}: {answer['error']}")
    return answer

  def __enter__(self) -> Process:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if error is not None:
      self._process.kill()
    self._process.communicate()  # closing its input ends it
    self._log.close()

  def _last_words(self, line: str) -> str:
    """Why there is no answer: what it wrote instead, its last error line, or its exit code."""
    if line.strip():
      return f"answered {line.strip()[:200]!r} instead of JSON"
    try:
      code = self._process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
      return "closed its output without an answer"
    self._log.seek(0)
    lines = [one.strip() for one in self._log if one.strip()]
    return f"ended with exit code {code}" + (f" ({lines[-1][:200]})" if lines else "")
