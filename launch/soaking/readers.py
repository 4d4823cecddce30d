"""Reads a run again and again while it is trained."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Mapping

from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from launch.soaking.subjects import TINY
from launch.soaking.trials import Place

# A checkpoint after each of more epochs than there is time for.
_TRAIN = (
  "train",
  *TINY,
  "--set=epochs=1000000",
  "--set=evaluate_every=1",
  "--set=patience=1000000",
  "--workdir=run",
)
_READ = ("recommend", "--workdir=run", "--users=1,2", "--top_n=3")
_EACH = 20  # every so many reads are those of launch.recommend, the others are within this process


def read_while_training(place: Place, *, minutes: float, log: Log) -> Mapping[str, int]:
  """Trains in one process and reads the run in others, then stops training and reads once more.

  Args: place: of the soak. minutes: of reading.
  Returns: numbers of checkpoints, of reads by kind, and of those that ended with one line.
  Raises: InputError: training ended, or a reader failed in another way than with one line.
  """
  from gatrec_jax.serve.recommendations import recommend
  from gatrec_jax.serve.run import load_run

  place.clear("nothing")
  counts: collections.Counter[str] = collections.Counter(refused=0)
  epochs = set()
  folder = place.folder / "run"
  writer = place.popen(_TRAIN, "log")
  try:
    while not (folder / "checkpoints").is_dir() or not any((folder / "checkpoints").iterdir()):
      if writer.poll() is not None:
        raise InputError(f"training ended: {place.last_line('log')}")
      time.sleep(0.1)
    until = time.monotonic() + 60 * minutes
    with log.progress("reads", total=round(60 * minutes)) as show:
      while (left := until - time.monotonic()) > 0:
        if writer.poll() is not None:
          raise InputError(f"training ended: {place.last_line('log')}")
        if counts.total() % _EACH == 0:
          code = place.popen(_READ, "reader").wait()
          counts["by launch.recommend"] += 1
          if code:
            raise InputError(f"launch.recommend ended with {code}: {place.last_line('reader')}")
        else:
          try:
            recommend(load_run(folder), ["1", "2"], top_n=3)
            counts["by load_run"] += 1
          except InputError as error:
            counts["refused"] += 1
            log.info(f"refused: {error}")
        epochs |= {path.name for path in (folder / "checkpoints").iterdir()}
        show(round(60 * minutes - left), checkpoints=str(len(epochs)))
    writer.send_signal(signal.SIGTERM)
    if (code := writer.wait(120)) != 128 + signal.SIGTERM:
      raise InputError(f"training ended with {code}: {place.last_line('log')}")
  finally:
    writer.kill()
  if place.popen(_READ, "reader").wait():
    raise InputError(f"the last reader failed: {place.last_line('reader')}")
  return {"checkpoints": len(epochs), **counts}
