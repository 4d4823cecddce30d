"""Tables in memory become runs, with the results of the same table in a file."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest

import gatrec_jax as g
from gatrec_jax.data.interactions import no_interactions
from gatrec_jax.data.synthetic import make_demo
from gatrec_jax.errors import InputError

# One layer compiles in half the time of the two of the preset.
SETTINGS = {"epochs": 2, "encoder": "lexical", "bootstrap": 0, "layer_widths": "8", "heads": "1"}
ITEMS = 200


@pytest.fixture(scope="module")
def demo():
  """Columns of some of the demo's ratings, and their items."""
  data = make_demo(seed=0)
  rows = data.interactions
  rows = rows.take((rows.user < 80) & (rows.item < ITEMS))
  columns = {
    "user_id": np.array(rows.user_ids)[rows.user].astype(int),
    "item_id": np.array(rows.item_ids)[rows.item].astype(int),
    "rating": rows.rating,
    "timestamp": rows.timestamp,
  }
  ids = zip(rows.item_ids[:ITEMS], data.item_fields[:ITEMS], strict=True)
  return columns, [{"item_id": int(item), **fields} for item, fields in ids]


def results_of(folder):
  results = json.loads((folder / "results.json").read_text())
  return {name: results[name] for name in ("full", "epoch", "selection")}


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
  folder = tmp_path_factory.mktemp("fit") / "run"
  return g.fit(demo[0], items=demo[1], preset="tiny", workdir=folder, log=g.SILENT, **SETTINGS)


def test_equals_the_file(run, demo, tmp_path):
  columns, items = demo
  with open(tmp_path / "ratings.csv", "w", newline="") as out:
    csv.writer(out).writerows([list(columns), *zip(*columns.values(), strict=True)])
  (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
  config = g.with_fields(
    g.get_preset("tiny"),
    {
      "dataset": str(tmp_path / "ratings.csv"),
      "item_metadata": str(tmp_path / "items.jsonl"),
      **SETTINGS,
    },
  )
  other, _ = g.train_and_evaluate(config, tmp_path / "run", log=g.SILENT)
  assert results_of(other.workdir) == results_of(run.workdir)
  np.testing.assert_array_equal(g.score(other, ["1"]), g.score(run, ["1"]))


@pytest.mark.parametrize("form", ["arrow", "interactions"])
def test_every_form_of_table(demo, form):
  columns, _ = demo
  table = pa.table(columns) if form == "arrow" else g.Interactions.from_arrays(*columns.values())
  settings = {"preset": "popularity", "log": g.SILENT, "bootstrap": 0}
  expected = g.fit(columns, **settings)
  assert results_of(g.fit(table, **settings).workdir) == results_of(expected.workdir)


def test_a_run_recommends_explains_and_saves(run, tmp_path):
  lists = g.recommend(run, ["1"], top_n=3)
  reasons = g.explain(run, ["1"], top_n=3, path=tmp_path / "reasons.jsonl")
  assert [evidence.item_id for evidence, _ in reasons["1"]] == list(lists.items[0])
  assert all(reason.text for _, reason in reasons["1"])
  written = (tmp_path / "reasons.jsonl").read_text().splitlines()
  assert [json.loads(line)["text"] for line in written] == [r.text for _, r in reasons["1"]]
  g.save(run, tmp_path / "kept")
  again = g.load_run(tmp_path / "kept")
  np.testing.assert_array_equal(g.score(again, ["1"]), g.score(run, ["1"]))
  with pytest.raises(InputError, match="path=.*exists already"):
    g.save(run, tmp_path / "kept")
  for rows, fields in ((["1"], {}), ([], {"new": {"title": "New"}})):
    added = g.Interactions.from_arrays(rows, ["3"], [5.0]) if rows else no_interactions()
    with pytest.raises(InputError, match="run: its new ratings, users and items are in memory"):
      g.save(g.with_new_ratings(run, added, fields), tmp_path / "grown")


def test_a_model_for_use(demo):
  settings = {"preset": "tiny", "log": g.SILENT, **SETTINGS}
  run = g.fit(demo[0], items=demo[1], split="none", refit=True, **settings)
  assert len(run.prepared.train) == len(demo[0]["rating"])


def test_wrong_tables(demo, run, tmp_path):
  columns, _ = demo
  with pytest.raises(InputError, match="frame=int: must support the Arrow interchange"):
    g.fit(7, log=g.SILENT)
  with pytest.raises(InputError, match="no such setting; did you mean epochs"):
    g.fit(columns, epoch=3, log=g.SILENT)
  with pytest.raises(InputError, match="^the table of interactions: has no column 'user_id'"):
    g.fit({"who": [1], "item_id": [2]}, log=g.SILENT)
  (tmp_path / "mine.csv").write_text("who,item_id\n1,2\n")
  with pytest.raises(InputError, match="mine.csv: has no column 'user_id'"):
    g.fit(tmp_path / "mine.csv", log=g.SILENT)
  halved = {name: column[::2] for name, column in columns.items()}
  with pytest.raises(InputError, match="workdir=.*holds a run of another table"):
    g.fit(halved, workdir=run.workdir, log=g.SILENT)
