"""Successive halving over drawn settings, with a ledger of all trials and a verdict at the end.

Settings are drawn in rounds: first the preset's own, then two rounds from the whole ranges for each
round near the best so far. In a round all settings are trained for a few epochs, the best third for
three times as many, and so on (Jamieson and Talwalkar 2016). The draws do not depend on the budget,
so a larger budget continues a search with a smaller one.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatrec_jax import runs
from gatrec_jax.config.fields import Range
from gatrec_jax.config.schema import Config
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.search_space import FIELD, Draws, Settings, where_it_lies
from gatrec_jax.runs.log import Log

ETA = 3  # a rung has a third of the trials of the one before, trained three times as long
MOST_RUNGS = 3
# Widths of the boxes around the best settings, as shares of the ranges; used alternately.
WIDTHS = (0.25, 0.125)
BEST = 5  # trials whose values decide whether the optimum is flat
FLAT = 0.01  # largest relative spread of a flat optimum

# (trial, settings, epochs) -> the best validation value so far. Raises InputError if it fails.
Train = Callable[[int, Settings, int], float]


@dataclasses.dataclass(frozen=True)
class Row:
  """A trial at a rung.

  Attributes:
    trial, rung: from 0. round: the round in which it was drawn.
    epochs: trained in total, unless patience stopped earlier. seconds: spent on this rung.
    value: best on validation so far; −∞ if it failed.
    message: why it failed, or "".
    settings: of the searched fields.
  """

  trial: int
  rung: int
  round: int
  epochs: int
  value: float
  seconds: float
  message: str
  settings: Settings


class Ledger:
  """The rows of a search, in a Parquet file that is replaced atomically."""

  def __init__(
    self, path: pathlib.Path, *, describe: Callable[[Settings], str], rungs: int, metric: str
  ) -> None:
    """Opens the file, or starts a new one.

    Args:
      describe: searched settings -> JSON of all settings of that trial.
      rungs: number of rungs.
      metric: name of the values.
    """
    self._path, self._describe, self._rungs, self._metric = path, describe, rungs, metric
    self.rows = {(row.trial, row.rung): row for row in _read_rows(path)} if path.exists() else {}

  def find(self, trial: int, rung: int, settings: Settings) -> Row | None:
    """The row of a trial. Raises InputError if it was made with other settings."""
    row = self.rows.get((trial, rung))
    if row is not None and row.settings != settings:
      raise InputError(
        f"{self._path}: its trial {trial} is {short(row.settings)}, but this version draws "
        f"{short(settings)}; use another `workdir`"
      )
    return row

  def add(self, row: Row) -> None:
    """Adds a row, on disk too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    self.rows[row.trial, row.rung] = row
    rows = [self.rows[at] for at in sorted(self.rows)]
    columns: dict[str, Any] = {
      name: [getattr(row, name) for row in rows] for name in ("trial", "round", "epochs")
    }
    columns["rung"] = [row.rung + 1 for row in rows]  # people count from 1
    columns["rungs"] = [self._rungs] * len(rows)
    columns["metric"] = [self._metric] * len(rows)
    columns["value"] = pa.array([None if r.message else r.value for r in rows], pa.float64())
    columns["seconds"] = [row.seconds for row in rows]
    columns["status"] = ["failed" if row.message else "finished" for row in rows]
    columns["message"] = [row.message for row in rows]
    columns |= {name: [row.settings[name] for row in rows] for name in row.settings}
    columns["settings"] = [self._describe(row.settings) for row in rows]
    table = pa.table(columns)
    seal = {_DIGEST: runs.digest(table.to_pylist())}
    with runs.atomic_path(self._path) as temporary:
      pq.write_table(table.replace_schema_metadata(seal), temporary)


_DIGEST = "digest"  # in the schema: a hash of all rows
_COLUMNS = (
  "trial",
  "rung",
  "rungs",
  "round",
  "epochs",
  "metric",
  "value",
  "seconds",
  "status",
  "message",
  "settings",
)


def _read_rows(path: pathlib.Path) -> list[Row]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    table = pq.read_table(path)
    lines = table.to_pylist()
    if (table.schema.metadata or {}).get(_DIGEST.encode()) != runs.digest(lines).encode():
      raise KeyError("it does not hold the rows that were written")
    return [
      Row(
        line["trial"],
        line["rung"] - 1,
        line["round"],
        line["epochs"],
        -math.inf if line["value"] is None else line["value"],
        line["seconds"],
        line["message"],
        {name: value for name, value in line.items() if name not in _COLUMNS},
      )
      for line in lines
    ]
  except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: damaged ({error}); delete it and search again") from None


def rungs_of(epochs: int, evaluate_every: int) -> tuple[int, ...]:
  """The epochs after which trials are compared; the last entry is all epochs."""
  shares = [epochs / ETA**k for k in range(MOST_RUNGS - 1, 0, -1)]
  looks = {round(share / evaluate_every) * evaluate_every for share in shares}
  return (*sorted(e for e in looks if 0 < e < epochs), epochs)


def round_cost(size: int, rungs: Sequence[int]) -> float:
  """The cost of a round of `size` settings, in trainings over all epochs."""
  cost, before = 0.0, 0
  for epochs in rungs:
    cost += size * (epochs - before) / rungs[-1]
    size, before = _survivors(size), epochs
  return cost


def _survivors(size: int) -> int:
  return max(1, size // ETA)


def successive_halving(
  train: Train,
  *,
  own: Settings,
  draws: Draws,
  rungs: Sequence[int],
  budget: float,
  ledger: Ledger,
  forget: Callable[[int], None],
  metric: str,
  log: Log,
) -> list[Row]:
  """Trains all trials of a budget that are not in the ledger yet.

  Args:
    train: trains a trial, from where it stopped at the rung before.
    own: settings of trial 0, which is trained to the end whatever its value.
    budget: in trainings over all epochs, at least 1.
    forget: called for every trial that is dropped or done.
    metric: name of the values, for log lines.
  Returns:
    The rows of the trials of this budget that reached the last rung.
  """
  report = _Report(budget, rungs, metric, log)
  ended: list[Row] = []
  trial, left, number = 0, budget, 0
  while True:
    largest = ETA ** (len(rungs) - 1) if number else 1
    size = max((n for n in range(1, largest + 1) if round_cost(n, rungs) <= left + 1e-9), default=0)
    drawn = _draw_round(number, size, own=own, draws=draws, ended=ended)
    if not drawn:
      if size:
        log.info(
          "search: every setting in the ranges was tried; the rest of the budget is not needed"
        )
      return ended
    left -= round_cost(len(drawn), rungs)
    going = dict(enumerate(drawn, start=trial))
    trial += len(drawn)
    for rung, epochs in enumerate(rungs):
      rows = []
      for one, settings in going.items():
        row = ledger.find(one, rung, settings)
        if row is None:
          row = _train_row(train, one, rung, number, epochs, settings)
          ledger.add(row)
          report.trained(row)
        else:
          report.kept(row)
        rows.append(row)
      if rung == len(rungs) - 1:
        ended += [row for row in rows if not row.message]
        kept = set()
      else:
        best = sorted(rows, key=lambda row: (-row.value, row.trial))[: _survivors(len(rows))]
        kept = {row.trial for row in best if not row.message}
      for one in going.keys() - kept:
        forget(one)
      going = {one: settings for one, settings in going.items() if one in kept}
    number += 1


def _draw_round(
  number: int, size: int, *, own: Settings, draws: Draws, ended: Sequence[Row]
) -> list[Settings]:
  """The settings of a round; fewer than `size` if the ranges hold no more new ones."""
  if number == 0:
    return [own][:size]
  beside = number % 3 == 0 and bool(ended)
  width = WIDTHS[(number // 3 - 1) % len(WIDTHS)]
  drawn = []
  for _ in range(size):
    new = draws.near(best_of(ended).settings, width) if beside else None
    drawn.append(new or draws.anywhere())
  return [settings for settings in drawn if settings]


def _train_row(
  train: Train, trial: int, rung: int, number: int, epochs: int, settings: Settings
) -> Row:
  started, message = time.monotonic(), ""
  try:
    value = float(train(trial, settings, epochs))
  except InputError as error:
    # A full disk is not the settings' fault; the same command continues once there is space.
    if "disk is full" in str(error):
      raise
    value, message = -math.inf, str(error)
  return Row(
    trial, rung, number, epochs, value, round(time.monotonic() - started, 3), message, settings
  )


def best_of(rows: Sequence[Row]) -> Row:
  """The row with the highest value; among equals, that of the first trial."""
  return max(rows, key=lambda row: (row.value, -row.trial))


class _Report:
  """Logs a line for each trained trial, with an estimate of the time left."""

  def __init__(self, budget: float, rungs: Sequence[int], metric: str, log: Log) -> None:
    self._left, self._rungs, self._metric, self._log = budget, rungs, metric, log
    self._best: Row | None = None
    self._done, self._seconds = 0.0, 0.0

  def kept(self, row: Row) -> None:
    self._left -= self._cost(row)
    if not row.message and (self._best is None or row.value > self._best.value):
      self._best = row

  def _cost(self, row: Row) -> float:
    before = self._rungs[row.rung - 1] if row.rung else 0
    return (row.epochs - before) / self._rungs[-1]

  def trained(self, row: Row) -> None:
    self.kept(row)
    self._done += self._cost(row)
    self._seconds += row.seconds
    steps = len(self._rungs)
    rung = f" ({row.epochs} epochs, rung {row.rung + 1}/{steps})" if steps > 1 else ""
    outcome = f"failed: {row.message}" if row.message else f"{self._metric} {row.value:.4f}"
    best = f", best {self._best.value:.4f} in trial {self._best.trial}" if self._best else ""
    minutes = round(max(self._left, 0) * self._seconds / self._done / 60)
    left = f", about {minutes} min left" if minutes else ""
    self._log.info(
      f"search: trial {row.trial}{rung} {short(row.settings)}: {outcome}{best}; "
      f"{row.seconds:.1f} s{left}"
    )


def short(settings: Settings) -> str:
  """The settings in one line."""
  return " ".join(f"{name}={value}" for name, value in settings.items())


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Whether a search has converged.

  Attributes:
    lines: for the user, one for each field and one on flatness.
    interior: whether the best value of every field lies inside the values that were tried.
    flat: whether the best trials are equally good.
    spread: relative spread of the best values; None if there are too few.
  """

  lines: tuple[str, ...]
  interior: bool
  flat: bool
  spread: float | None


def judge(
  config: Config,
  ranges: Mapping[str, Range],
  ended: Sequence[Row],
  *,
  bounded: frozenset[str] = frozenset(),
) -> Verdict:
  """Decides whether the optimum is interior in every field, and flat.

  Args:
    ended: rows of the last rung; trials that were dropped earlier are no evidence of the optimum.
    bounded: fields whose ranges were given.
  """
  best, lines, interior = best_of(ended), [], True
  for name, range_ in ranges.items():
    tried: dict[Any, float] = {}
    for row in ended:
      tried[row.settings[name]] = max(row.value, tried.get(row.settings[name], -math.inf))
    inside, words = where_it_lies(
      config, name, range_, best.settings[name], tried, bounded=name in bounded
    )
    interior &= inside
    lines.append(f"{name}={best.settings[name]}: {words}")
  values = sorted((row.value for row in ended), reverse=True)[:BEST]
  if len(values) < BEST:
    few = f"flatness: {len(values)} trials reached the end, {BEST} are needed: search more"
    return Verdict((*lines, few), interior, False, None)
  spread = (values[0] - values[-1]) / abs(values[0]) if values[0] else 0.0
  flat = spread <= FLAT
  lines.append(
    f"{'flat' if flat else 'not flat'}: the best {BEST} trials differ by {spread:.1%}"
    + ("" if flat else f", more than {FLAT:.0%}: search more, or narrow `{FIELD}`")
  )
  return Verdict(tuple(lines), interior, flat, spread)
