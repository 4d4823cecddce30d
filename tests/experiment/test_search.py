"""Searches with real models: resumed, honest, refused."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest
from helpers.rerank_table import in_table_folder

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment import search as searching
from gatrec_jax.runs.log import SILENT, Recorder


class Killed(Exception):
  """Stands for the end of the process."""


@pytest.mark.parametrize("budget", [0.5, -3, float("nan"), float("inf")])
def test_a_budget_without_a_trial_is_refused(tmp_path, budget):
  with pytest.raises(InputError, match="search="):
    searching.search(get_preset("ease"), tmp_path / "w", budget=budget)
  assert not (tmp_path / "w").exists()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


def small(name, **fields):
  return with_fields(get_preset(name), {"dataset": "ratings.csv", "bootstrap": 0, **fields})


def test_ease_ends_at_least_as_well_as_it_began_and_keeps_its_valid_share(tmp_path):
  lines = []
  chosen = searching.search(small("ease"), tmp_path, budget=4, log=Recorder(lines))
  table = pq.read_table(tmp_path / "search/trials.parquet").to_pylist()
  assert [row["trial"] for row in table] == list(range(4))
  best = max(table, key=lambda row: row["value"])
  assert chosen == with_fields(small("ease"), {"l2": best["l2"]})
  assert chosen.data.valid_share == 0 and table[0]["l2"] == 300.0
  own = {"kind": "ease", "l2": table[1]["l2"], "relevance": "binary"}
  own |= {"user_power": 0.0, "item_power": 0.0, "score_power": 0.0}
  own |= {"form": "auto", "rank": 256, "neighbors": 32}
  assert json.loads(table[1]["settings"])["model"] == own
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
    ({}, "format 1, this version reads 3"),
  ):
    if not other:
      plan = json.loads((tmp_path / "search/search.json").read_text())
      del plan["format"], plan["digest"]
      (tmp_path / "search/search.json").write_text(json.dumps(plan))
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

  def garbled(data, folder, *, log):
    prepared = prepare(data, folder, log=log)
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
  tables = [
    pq.read_table(tmp_path / n / "search/trials.parquet").drop(["seconds"]).to_pylist()
    for n in ("whole", "killed")
  ]
  assert tables[0] == tables[1]
  assert {row["epochs"] for row in tables[0]} == {1, 3}
  folder = tmp_path / "killed/search"
  assert not list(folder.glob("trial-*/checkpoints"))
  steps = [
    json.loads(s)["step"] for s in (folder / "trial-0000/metrics.jsonl").read_text().splitlines()
  ]
  assert sorted(set(steps)) == [1, 2, 3]
