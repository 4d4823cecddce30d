"""Parsers with faults, for tests of launch.fuzz; workers import them by the name of this module."""

import json
import os
import time

from gatrec_jax.errors import InputError
from launch.fuzzing.execute import Parser
from launch.fuzzing.mutate import in_json, some_of

TREE = {"size": 3, "name": "a", "list": [1, 2]}
SEEDS = ({"a.json": json.dumps(TREE).encode()},)


def _seeds():
  return list(SEEDS)


def read(folder):
  """A parser without faults. Returns: the number that the file holds."""
  try:
    tree = json.loads((folder / "a.json").read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f"a.json: not JSON ({error})") from None
  if not isinstance(tree, dict) or type(tree.get("size")) is not int:
    raise InputError("a.json: size must be a whole number")
  return tree["size"]


def wrong_type(folder):
  """Trusts that a file is JSON and holds an object with a size."""
  return json.loads((folder / "a.json").read_bytes())["size"] + 1


def two_lines(folder):
  """Forgets that an error is one line."""
  try:
    read(folder)
  except InputError as error:
    error.named = lambda _: "first\nsecond"
    raise


def crash(folder):
  """Ends the process at any size but 3."""
  if read(folder) != 3:
    os.abort()


def hang(folder):
  """Never ends at any size but 3, and lets no signal through."""
  if read(folder) != 3:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(600)


_change = some_of({".json": in_json})
PARSERS = tuple(
  Parser(run.__name__, _seeds, _change, run) for run in (read, wrong_type, two_lines, crash, hang)
)
