"""Tuning: ranges, draws, rounds and verdicts on artificial objectives; then real models."""

import collections
import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.config.models import Choice, LogUniform, Uniform
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import PRESETS, get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment import search as searching
from gatrec_jax.experiment.search_space import (
  Draws,
  own_settings,
  place_of,
  search_space,
  value_at,
  where_it_lies,
)
from gatrec_jax.experiment.successive_halving import (
  Ledger,
  best_of,
  judge,
  round_cost,
  rungs_of,
  successive_halving,
)
from gatrec_jax.runs.log import SILENT, Recorder

EASE, BPR, LIGHTGCN = (get_preset(name) for name in ("ease", "bpr_mf", "lightgcn"))


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


# Ranges


@given(
  st.sampled_from(
    [LogUniform(0.01, 50.0), Uniform(-1.0, 3.0), LogUniform(4, 400, True), Uniform(1, 9, True)]
  ),
  st.floats(0, 1),
)
def test_values_lie_in_their_range_and_places_lead_back(range_, place):
  value = value_at(range_, place)
  assert range_.low <= value <= range_.high
  assert isinstance(value, int if range_.whole else float)
  if not range_.whole:
    assert place_of(range_, value) == pytest.approx(place, abs=1e-4)


def test_scales():
  assert value_at(LogUniform(10, 1000), 0.5) == 100.0
  assert value_at(LogUniform(10, 1000), 1.5) == 10_000.0
  assert value_at(Uniform(0.0, 4.0), -0.25) == -1.0
  assert [value_at(Uniform(1, 3, True), p) for p in (0, 0.34, 0.7, 1)] == [1, 2, 3, 3]
  assert [value_at(Choice(("a", "b")), p) for p in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]
  assert place_of(LogUniform(0.1, 10), 0.0) is None


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "popularity"])
def test_every_preset_declares_ranges_whose_ends_it_may_have(name):
  config, ranges, _ = search_space(get_preset(name))
  for field, range_ in ranges.items():
    for place in (0.0, 1.0):
      with_fields(config, {field: value_at(range_, place)})


def test_flags_replace_add_and_fix():
  config, ranges, _ = search_space(
    BPR,
    [
      "learning_rate=1e-3:1e-2",
      "l2_weight=0:0.1:linear",
      "width=16|32|64|16",
      "init_stddev=0.05",
      "negatives=uniform|popularity",
      "gradient_clip=0.5:5:log",
      "batch_size=100:200",
    ],
  )
  assert ranges == {
    "learning_rate": LogUniform(1e-3, 1e-2),
    "l2_weight": Uniform(0.0, 0.1),
    "width": Choice((16, 32, 64)),
    "negatives": Choice(("uniform", "popularity")),
    "gradient_clip": LogUniform(0.5, 5.0),
    "batch_size": Uniform(100, 200, True),
  }
  assert config.model.init_stddev == 0.05
  config, ranges, _ = search_space(BPR, ["learning_rate=0.01"])
  assert list(ranges) == ["l2_weight"] and config.train.learning_rate == 0.01


@pytest.mark.parametrize(
  ("config", "text", "words"),
  [
    (EASE, "l2=500:100", ["search_space l2=500:100", "empty", "low must lie below high"]),
    (EASE, "l2=5:5", ["empty", "write l2=5"]),
    (EASE, "l2=0:5", ["l2=0", "must lie in"]),
    (EASE, "l2=|", ["empty"]),
    (EASE, "l2=", ["empty"]),
    (EASE, "l2", ["field=value"]),
    (EASE, "l3=1:2", ["no setting is called 'l3'", "l2"]),
    (EASE, "learning_rate=1e-3:1", ["ease has no such setting"]),
    (EASE, "l2=1:2:3", ["low:high:log"]),
    (EASE, "l2=1:", ["low:high"]),
    (EASE, "l2=1:inf", ["finite"]),
    (EASE, "l2=a:b", ["l2=a", "a number"]),
    (BPR, "l2_weight=0:1", ["empty on a log scale", "0:1:linear"]),
    (BPR, "width=1.5:3", ["width=1.5", "whole number"]),
    (BPR, "negatives=uniform|odd", ["negatives=odd", "explicit"]),
    (BPR, "epochs=10:20", ["set"]),
    (BPR, "positive_threshold=3:5", ["set"]),
    (get_preset("multi_vae"), "hidden_widths=100|200", ["numbers and words"]),
    (EASE, "l2=300", ["search: ease has nothing that is searched", "name a setting"]),
    (get_preset("popularity"), "ks=10", ["set"]),
  ],
)
def test_bad_ranges_are_told_in_a_line(config, text, words):
  with pytest.raises(InputError) as caught:
    search_space(config, [text])
  assert all(word in str(caught.value) for word in words), str(caught.value)
  assert "\n" not in str(caught.value)


def test_nothing_to_search():
  message = "popularity has nothing that is searched; leave `search` out$"
  with pytest.raises(InputError, match=message):
    search_space(get_preset("popularity"))


@pytest.mark.parametrize("budget", [0.5, -3, float("nan"), float("inf")])
def test_a_budget_without_a_trial_is_refused(tmp_path, budget):
  with pytest.raises(InputError, match="search="):
    searching.search(EASE, tmp_path / "w", budget=budget)
  assert not (tmp_path / "w").exists()


# Draws


def test_draws_fill_the_ranges_evenly_and_are_a_function_of_the_seed():
  config, ranges, _ = search_space(BPR)
  drawn = [Draws(config, ranges, seed=3).anywhere() for _ in range(2)]
  assert drawn[0] == drawn[1] != Draws(config, ranges, seed=4).anywhere()
  draws = Draws(config, ranges, seed=0)
  for name in ranges:
    settings = [draws.anywhere()[name] for _ in range(32)]
    places = [place_of(ranges[name], value) for value in settings]
    counts = np.histogram(places, bins=4, range=(0, 1))[0]
    assert counts.sum() == 32 and counts.min() >= 6


def test_draws_beside_the_best_stay_in_the_box_pass_the_range_and_obey_the_field():
  config, ranges, _ = search_space(EASE)
  draws = Draws(config, ranges, seed=0)
  places = [place_of(ranges["l2"], draws.near({"l2": 10_000.0}, 0.25)["l2"]) for _ in range(20)]
  assert all(0.875 <= p <= 1.125 for p in places) and min(places) < 0.95 and max(places) > 1.05
  config, ranges, _ = search_space(get_preset("multi_vae"))
  draws, best = Draws(config, ranges, seed=0), own_settings(config, ranges) | {"kl_weight": 0.0}
  values = [draws.near(best, 0.25)["kl_weight"] for _ in range(20)]
  assert 0 <= min(values) < 0.03 and 0.1 < max(values) <= 0.125
  config, ranges, _ = search_space(get_preset("item_knn"))
  # A shrinkage of 0 is off the scale.
  near = Draws(config, ranges, seed=0).near({"neighbors": 1, "shrinkage": 0.0}, 0.25)
  assert near["neighbors"] >= 1 and 0 < near["shrinkage"] < 1


def test_nothing_is_drawn_twice_and_small_spaces_end(tmp_path):
  space = ["learning_rate=0.01", "l2_weight=0.001", "layers=1|2|3"]
  done = run(tmp_path, lambda s, epochs: s["layers"] / 10, config=LIGHTGCN, space=space, budget=30)
  assert sorted(row.settings["layers"] for row in done.rows) == [1, 2, 3]
  assert done.best.settings == {"layers": 3}


# Rounds


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
  assert few.spread is None and not few.flat and "4 trials went to the end" in few.lines[-1]


@pytest.mark.parametrize(
  ("config", "name", "best", "tried", "inside"),
  [
    (EASE, "l2", 100.0, [100.0, 50.0, 200.0], True),
    (EASE, "l2", 100.0, [100.0, 50.0, 101.0], False),  # 101 is the same place
    (EASE, "l2", 100.0, [100.0, 200.0], False),
    (get_preset("item_knn"), "shrinkage", 0.0, [0.0, 3.0], True),  # none is allowed below
    (get_preset("item_knn"), "neighbors", 5, [5, 4, 6], True),
    (get_preset("multi_vae"), "kl_weight", 0.0, [0.0, 0.3], True),
    (LIGHTGCN, "layers", 2, [1, 2, 3], True),
    (LIGHTGCN, "layers", 2, [2, 3], False),
    (LIGHTGCN, "layers", 3, [1, 2, 3], False),
    (get_preset("xsimgcl"), "layers", 1, [1, 2], True),
  ],
)
def test_where_an_optimum_lies(config, name, best, tried, inside):
  assert (
    where_it_lies(config, name, search_space(config)[1][name], best, dict.fromkeys(tried, 0.1))[0]
    is inside
  )


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
  assert low.verdict.lines[0] == "l2=1000.0: at the lower end of the range that was given"


def test_words_must_all_be_tried():
  range_ = Choice(("uniform", "mixed"))
  assert where_it_lies(BPR, "negatives", range_, "mixed", {"mixed": 0.1}) == (
    False,
    "not tried: uniform",
  )
  assert where_it_lies(BPR, "negatives", range_, "mixed", {"mixed": 0.1, "uniform": 0.2})[0]


# Kept, resumed, failed


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


# Real models


def small(name, **fields):
  return with_fields(get_preset(name), {"bootstrap": 0, **fields})


def test_ease_ends_at_least_as_well_as_it_began_and_keeps_its_valid_share(tmp_path):
  lines = []
  chosen = searching.search(small("ease"), tmp_path, budget=4, log=Recorder(lines))
  table = pq.read_table(tmp_path / "search/trials.parquet").to_pylist()
  assert [row["trial"] for row in table] == list(range(4))
  best = max(table, key=lambda row: row["value"])
  assert chosen == with_fields(small("ease"), {"l2": best["l2"]})
  assert chosen.data.valid_share == 0 and table[0]["l2"] == 300.0
  assert json.loads(table[1]["settings"])["model"] == {"kind": "ease", "l2": table[1]["l2"]}
  assert sum(line.startswith("search: trial") for line in lines) == 4
  kept = json.loads((tmp_path / "search/chosen.json").read_text())
  assert kept["settings"] == {"l2": best["l2"]} and kept["value"] == best["value"]
  assert not list((tmp_path / "search").glob("trial-*/checkpoints"))
  again = []
  assert searching.search(small("ease"), tmp_path, budget=4, log=Recorder(again)) == chosen
  assert not any(line.startswith("search: trial") for line in again)
  for other, words in (
    (dict(seed=1), "search_seed"),
    (dict(space=["l2=1:2"]), "search_space"),
    (dict(config=small("ease", valid_seed=3)), "valid_seed"),
    (dict(config=small("item_knn")), "model: ease"),
  ):
    with pytest.raises(InputError, match=words):
      searching.search(
        **{
          "config": small("ease"),
          "workdir": tmp_path,
          "budget": 4,
          "log": Recorder(again),
          **other,
        }
      )


def test_test_ratings_make_no_difference(tmp_path, monkeypatch):
  prepare = searching.prepare

  def garbled(config, folder, *, log):
    prepared = prepare(config, folder, log=log)
    rows = prepared.interactions
    rating, item = rows.rating.copy(), rows.item.copy()
    rating[prepared.split.test], item[prepared.split.test] = 1.0, 0
    rows = dataclasses.replace(rows, rating=rating, item=item)
    return dataclasses.replace(prepared, interactions=rows)

  values = []
  for name, change in (("plain", prepare), ("garbled", garbled)):
    monkeypatch.setattr(searching, "prepare", change)
    searching.search(small("item_knn"), tmp_path / name, budget=2, log=SILENT)
    values.append(pq.read_table(tmp_path / name / "search/trials.parquet")["value"].to_pylist())
  assert values[0] == values[1]


def test_learned_models_go_on_from_rung_to_rung_and_after_a_kill(tmp_path, monkeypatch):
  config = small(
    "bpr_mf", epochs=3, evaluate_every=1, batch_size=0, width=8, select_on="last", valid_share=0.0
  )
  whole = searching.search(config, tmp_path / "whole", budget=2.4, log=SILENT)
  assert (whole.data.valid_share, whole.train.select_on) == (0.0, "last")
  learn, epochs, calls = searching.learn, [], []

  def dies(*args, until, **kwargs):
    calls.append(until)
    params, progress = learn(*args, until=until, **kwargs)
    epochs.append(progress.epoch)
    if len(calls) == 4:  # after its checkpoint, before its row
      raise Killed
    return params, progress

  monkeypatch.setattr(searching, "learn", dies)
  with pytest.raises(Killed):
    searching.search(config, tmp_path / "killed", budget=2.4, log=SILENT)
  assert searching.search(config, tmp_path / "killed", budget=2.4, log=SILENT) == whole
  assert calls == epochs
  serving_state = [
    pq.read_table(tmp_path / n / "search/trials.parquet").drop(["seconds"]).to_pylist()
    for n in ("whole", "killed")
  ]
  assert serving_state[0] == serving_state[1]
  assert {row["epochs"] for row in serving_state[0]} == {1, 3}
  folder = tmp_path / "killed/search"
  assert not list(folder.glob("trial-*/checkpoints"))
  steps = [
    json.loads(s)["step"] for s in (folder / "trial-0000/metrics.jsonl").read_text().splitlines()
  ]
  assert sorted(set(steps)) == [1, 2, 3]
