"""Successive halving on artificial objectives: rounds, verdicts, resumption, failures."""

import collections
import json
import math

import pyarrow.parquet as pq
import pytest

from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.search_space import Draws, own_settings, search_space
from gatrec_jax.experiment.successive_halving import (
  Ledger,
  best_of,
  judge,
  round_cost,
  rungs_of,
  successive_halving,
)
from gatrec_jax.runs.log import SILENT

EASE, LIGHTGCN = get_preset("ease"), get_preset("lightgcn")


class Killed(Exception):
  """Stands for the end of the process."""


def run(tmp_path, objective, *, config=EASE, space=(), budget=16, rungs=(1,), dies_at=None, seed=0):
  """A search of an artificial objective (settings, epochs) -> value. Returns it with its calls."""
  config, ranges, bounded = search_space(config, space)
  calls, forgotten = [], set()

  def train(trial, settings, epochs):
    calls.append((trial, epochs))
    if len(calls) == dies_at:
      raise Killed
    return objective(settings, epochs)

  ledger = Ledger(
    tmp_path / "trials.parquet", describe=json.dumps, rungs=len(rungs), metric="ndcg@10"
  )
  ended = successive_halving(
    train,
    own=own_settings(config, ranges),
    draws=Draws(config, ranges, seed=seed, bounded=bounded),
    rungs=rungs,
    budget=budget,
    ledger=ledger,
    forget=forgotten.add,
    metric="ndcg@10",
    log=SILENT,
  )
  rows = [ledger.rows[at] for at in sorted(ledger.rows)]
  result = collections.namedtuple("Result", "ended rows calls forgotten verdict best")
  verdict = judge(config, ranges, ended, bounded=bounded)
  return result(ended, rows, calls, forgotten, verdict, best_of(ended))


def hill(top):
  return lambda settings, epochs: 1 - 0.01 * math.log(settings["l2"] / top) ** 2


def test_nothing_is_drawn_twice_and_small_spaces_end(tmp_path):
  space = ["learning_rate=0.01", "l2_weight=0.001", "layers=1|2|3"]
  done = run(tmp_path, lambda s, epochs: s["layers"] / 10, config=LIGHTGCN, space=space, budget=30)
  assert sorted(row.settings["layers"] for row in done.rows) == [1, 2, 3]
  assert done.best.settings == {"layers": 3}


@pytest.mark.parametrize(
  ("epochs", "every", "rungs"),
  [
    (90, 1, (10, 30, 90)),
    (200, 5, (20, 65, 200)),
    (6, 2, (2, 6)),
    (4, 2, (2, 4)),
    (2, 2, (2,)),
    (1, 5, (1,)),
    (250, 10, (30, 80, 250)),
    (9, 1, (1, 3, 9)),
  ],
)
def test_rungs(epochs, every, rungs):
  assert rungs_of(epochs, every) == rungs


def test_costs_of_rounds_solved_by_hand():
  assert round_cost(1, (10, 30, 90)) == pytest.approx(1)
  assert round_cost(9, (10, 30, 90)) == pytest.approx(9 / 9 + 3 * 2 / 9 + 1 * 6 / 9)
  assert round_cost(7, (10, 30, 90)) == pytest.approx(7 / 9 + 2 * 2 / 9 + 1 * 6 / 9)
  assert round_cost(4, (1,)) == 4


def test_halving_trains_the_best_third_on_within_the_budget(tmp_path):
  rungs = (10, 30, 90)
  done = run(tmp_path, lambda s, e: hill(300)(s, e) * e / 100, rungs=rungs, budget=9)
  spent = {}
  for trial, epochs in done.calls:
    spent[trial] = epochs
  before = {10: 0, 30: 10, 90: 30}
  assert sum(epochs - before[epochs] for _, epochs in done.calls) <= 9 * 90
  assert spent[0] == 90  # the preset's own settings, to the end
  first = [row for row in done.rows if row.round == 1]
  assert [sum(row.rung == r for row in first) for r in range(3)] == [9, 3, 1]
  ranked = sorted((r for r in first if r.rung == 0), key=lambda row: -row.value)
  assert {r.trial for r in first if r.rung == 1} == {row.trial for row in ranked[:3]}
  assert [r.trial for r in first if r.rung == 2] == [ranked[0].trial]
  assert done.forgotten == {row.trial for row in done.rows}
  assert {row.trial for row in done.ended} == {t for t, e in spent.items() if e == 90}


def test_the_optimum_is_found_and_called_interior_and_flat(tmp_path):
  done = run(tmp_path, hill(700.0))
  assert len(done.rows) == 16 and done.rows[0].settings == {"l2": 300.0}
  assert done.best.settings["l2"] == pytest.approx(700, rel=0.3)
  assert done.verdict.interior and done.verdict.flat
  assert "l2=" in done.verdict.lines[0] and "interior" in done.verdict.lines[0]
  assert done.verdict.lines[1].startswith("flat")


def test_an_optimum_beyond_the_range_is_followed_and_called_an_edge(tmp_path):
  done = run(tmp_path, hill(1e9))
  assert done.best.settings["l2"] > 10_000 and not done.verdict.interior
  assert "edge of what was tried, nothing higher" in done.verdict.lines[0]
  assert "search_space" in done.verdict.lines[0]


def test_a_peak_is_not_flat_and_few_trials_say_nothing_of_it(tmp_path):
  def steep(settings, epochs):
    return hill(700.0)(settings, epochs) ** 40

  done = run(tmp_path / "a", steep, budget=7)
  assert not done.verdict.flat and "not flat" in done.verdict.lines[-1]
  few = run(tmp_path / "b", steep, budget=4).verdict
  assert few.spread is None and not few.flat and "4 trials reached the end" in few.lines[-1]


def test_a_range_that_was_given_is_not_left(tmp_path):
  """Its optimum lies above, the settings to begin with below."""
  done = run(tmp_path, hill(5000.0), space=["l2=1000:1100"], budget=16)
  values = [row.settings["l2"] for row in done.rows]
  assert values[0] == 1000 and all(1000 <= value <= 1100 for value in values)
  assert not done.verdict.interior or max(values) > done.best.settings["l2"]
  words = run(tmp_path / "w", lambda s, _: -s["l2"], space=["l2=400|500"], budget=9)
  assert sorted(row.settings["l2"] for row in words.rows) == [400, 500]
  low = run(tmp_path / "low", lambda s, _: 1 / s["l2"], space=["l2=1000:1100"], budget=4)
  assert low.best.settings["l2"] == 1000
  assert low.verdict.lines[0] == "l2=1000.0: at the lower end of the given range"


@pytest.mark.parametrize("rungs", [(1,), (10, 30, 90)])
def test_a_killed_search_repeats_nothing_and_ends_the_same(tmp_path, rungs):
  whole = run(tmp_path / "whole", hill(5000.0), rungs=rungs)
  calls = []
  for dies_at in (1, 4, 8):
    with pytest.raises(Killed):
      run(tmp_path / "killed", hill(5000.0), rungs=rungs, dies_at=dies_at)
    calls.append(dies_at - 1)
  last = run(tmp_path / "killed", hill(5000.0), rungs=rungs)
  assert len(last.calls) + sum(calls) == len(whole.calls)

  def strip(rows):
    return [(r.trial, r.rung, r.round, r.epochs, r.value, r.settings) for r in rows]

  assert strip(last.rows) == strip(whole.rows) and last.best.trial == whole.best.trial


def test_a_larger_budget_goes_on(tmp_path):
  small = run(tmp_path / "grown", hill(700.0), budget=7)
  grown = run(tmp_path / "grown", hill(700.0), budget=16)
  whole = run(tmp_path / "whole", hill(700.0), budget=16)
  assert len(small.calls) + len(grown.calls) == len(whole.calls) == 16
  assert grown.best.settings == whole.best.settings


def test_failed_trials_count_as_the_worst_and_are_recorded(tmp_path):
  def fails_above(settings, epochs):
    if settings["l2"] > 200:
      raise InputError("the loss became nan")
    return settings["l2"]

  done = run(tmp_path, fails_above, rungs=(1, 3))
  table = pq.read_table(tmp_path / "trials.parquet").to_pylist()
  failed = [row for row in table if row["status"] == "failed"]
  assert failed and all(row["l2"] > 200 and row["value"] is None for row in failed)
  assert failed[0]["trial"] == 0 and failed[0]["message"] == "the loss became nan"
  assert not {(row["trial"], 1) for row in failed} & {
    (row["trial"], row["rung"] - 1) for row in table
  }
  assert {(row["rungs"], row["metric"]) for row in table} == {(2, "ndcg@10")}
  assert done.best.settings["l2"] <= 200
  again = run(tmp_path, fails_above, rungs=(1, 3))
  assert not again.calls and again.best == done.best


def test_a_full_disk_is_no_failure_of_the_trial(tmp_path):
  def full(settings, epochs):
    raise InputError("/x: the disk is full (1 MB free)")

  with pytest.raises(InputError, match="disk is full"):
    run(tmp_path, full)
  assert not (tmp_path / "trials.parquet").exists()


def test_rows_of_other_settings_or_damaged_files_are_refused(tmp_path):
  run(tmp_path, hill(700.0), budget=3, seed=0)
  with pytest.raises(InputError, match="its trial 1 is"):
    run(tmp_path, hill(700.0), budget=3, seed=1)
  (tmp_path / "trials.parquet").write_bytes(b"PAR1 nothing")
  with pytest.raises(InputError, match="damaged"):
    run(tmp_path, hill(700.0))
