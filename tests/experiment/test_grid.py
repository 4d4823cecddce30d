"""Many models alike: refits, seeds that matter, what is kept, what may be compared."""

import pytest
from helpers.rerank_table import in_table_folder

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment import grid
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.stages.config_file import read_config

SMALL = {"bootstrap": 0, "ks": (10,), "dataset": "ratings.csv"}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


def systems():
  learned = with_fields(
    get_preset("bpr_mf"),
    {
      **SMALL,
      "epochs": 6,
      "evaluate_every": 2,
      "width": 8,
      "batch_size": 0,
      "learning_rate": 0.05,
      "schedule": "cosine",
    },
  )
  return {"ease": with_fields(get_preset("ease"), SMALL), "mf": learned}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("grid")
  parts = {"random-3": {"split_seed": 3}}
  finished = grid.run_grid(systems(), parts, [0, 1], workdir, refit=True, log=SILENT)
  return workdir, parts, finished


def test_every_system_ends_trained_on_all_training_ratings(done):
  workdir, _, finished = done
  assert [(run.system, run.seed) for run in finished] == [("ease", 0), ("mf", 0), ("mf", 1)]
  for run in finished:
    assert read_config(run.folder).data.valid_share == 0
    assert runs.read_json(run.folder / "data/manifest.json")["facts"]["valid"] == 0
    assert read_config(run.folder).data.split_seed == 3
  chosen = runs.read_json(finished[1].folder / "choosing/results.json")
  final = read_config(finished[1].folder).train
  assert (final.select_on, final.epochs, final.decay_epochs) == ("last", chosen["epoch"], 6)
  assert chosen["selection"]["valid_ndcg@10"] > 0
  assert finished[1].results["train_seconds"] >= chosen["train_seconds"]
  assert finished[1].results["full"] != finished[2].results["full"]
  assert finished[1].results["peak_memory_mb"] > 50


def test_what_is_done_is_kept_and_another_setting_is_not_taken_for_it(done):
  workdir, parts, finished = done
  lines = []
  again = grid.run_grid(systems(), parts, [0], workdir, refit=True, log=Recorder(lines))
  assert sum("already finished, kept" in line for line in lines) == 3  # ease, mf and its choosing
  assert [run.results["full"] for run in again] == [run.results["full"] for run in finished[:2]]
  other = {"ease": with_fields(systems()["ease"], {"l2": 5.0})}
  with pytest.raises(InputError, match="another configuration"):
    grid.run_grid(other, parts, [0], workdir, refit=True, log=SILENT)


def test_without_refit_nobody_sees_the_validation_part(tmp_path):
  for label, config in systems().items():
    results = grid.train_alike(config, tmp_path / label, refit=False, log=SILENT)
    assert results["selection"]["valid_ndcg@10"] > 0
    assert read_config(tmp_path / label).data.valid_share == 0.1


def test_protocols_by_name_know_no_refit(tmp_path):
  config = with_fields(systems()["ease"], {"split": "recbole_b"})
  grid.train_alike(config, tmp_path, refit=True, log=SILENT)
  facts = runs.read_json(tmp_path / "data/manifest.json")["facts"]
  assert facts["valid"] == facts["test"] > 0 and facts["positive_threshold"] == 3


def test_a_folder_that_is_not_finished_is_refused(done, tmp_path):
  _, _, finished = done
  assert grid.open_finished(finished[0].folder).part == "random-3"
  runs.write_json(tmp_path / "config.json", runs.read_json(finished[0].folder / "config.json"))
  with pytest.raises(InputError, match="has no results.json; run launch.train"):
    grid.open_finished(tmp_path)


def test_a_run_without_a_refit_is_no_place_for_one(tmp_path):
  config = systems()["mf"]
  grid.train_alike(config, tmp_path, refit=False, log=SILENT)
  lines = []
  with pytest.raises(InputError, match="trained without `refit`"):
    grid.train_alike(config, tmp_path, refit=True, log=Recorder(lines))
  assert not lines  # said before anything was trained
