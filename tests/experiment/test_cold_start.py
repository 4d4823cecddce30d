"""Items and users that training has not seen."""

import dataclasses

import numpy as np
import pytest
from helpers.rerank_table import in_table_folder

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment import cold_start
from gatrec_jax.experiment import train_and_evaluate as pipeline
from gatrec_jax.experiment.cold_start import GIVEN, cold_evaluations, users_given_ratings
from gatrec_jax.runs.log import SILENT, Recorder

QUICK = {
  "bootstrap": 0,
  "ks": (10,),
  "dataset": "ratings.csv",
  "item_metadata": "items.jsonl",
  "encoder": "lexical",
}
LEARNED = {"epochs": 5, "evaluate_every": 5}
# Less to compile; choices are tested in test_linear_choices.py.
PLAIN = LEARNED | {"layers": 1, "linear_choice": "fixed"}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


def trained(preset, folder, **fields):
  config = with_fields(get_preset(preset), QUICK | fields)
  return pipeline.train_and_evaluate(config, folder / f"{preset}-{config.data.split}", log=SILENT)


def test_only_new_items_are_candidates(folder):
  run, results = trained("best", folder, split="cold_items", **PLAIN)
  train, known, test = run.prepared.train, run.prepared.known, run.prepared.test
  untrained = np.setdiff1d(np.arange(train.num_items), train.item)
  np.testing.assert_array_equal(np.flatnonzero(run.inputs.new), untrained)
  # The validation part is of whole items too, which are no candidates of the test.
  assert set(run.prepared.valid.item) <= set(untrained)
  new = np.setdiff1d(untrained, known.item)
  assert set(test.item) <= set(new)
  found = cold_evaluations(run)["new_items"]
  k = len(new)
  run = dataclasses.replace(run, config=with_fields(run.config, {"ks": (1, k)}))
  every = cold_evaluations(run)["new_items"]
  # All candidates shown, all relevant ones found; and coverage tells that no other was shown.
  assert every.summary[f"recall@{k}"].mean == 1.0
  assert every.summary[f"coverage@{k}"].mean == pytest.approx(k / train.num_items)
  assert results["new_items"]["ndcg@10"]["mean"] == pytest.approx(found.summary["ndcg@10"].mean)


def test_chance_does_not_choose_the_epoch(folder):
  """Nothing but ratings is known to this model, so validation items get vectors as initialized."""
  lines = []
  config = with_fields(get_preset("bpr_mf"), QUICK | LEARNED | {"split": "cold_items", "width": 4})
  log = Recorder(lines)
  run, results = pipeline.train_and_evaluate(config, folder / "chance", log=log)
  assert sum("the training loss chooses the epoch" in line for line in lines) == 1
  assert "train_loss" in results["selection"] and results["epoch"] == 5
  assert run.config.train.select_on == "train_loss"


def test_new_users_are_given_ratings_and_judged_on_others(folder, monkeypatch):
  monkeypatch.setattr(cold_start, "GIVEN", (5,))  # each number compiles anew
  _, results = trained("best", folder, split="cold_users", **PLAIN)
  assert given(results) == ["given_5"] and results["given_5"]["ndcg@10"]["n"] > 0
  assert results["full"]["ndcg@10"]["mean"] != results["given_5"]["ndcg@10"]["mean"]
  # Models that cannot take ratings have no such result.
  _, results = trained("bpr_mf", folder, split="cold_users", width=4, **LEARNED)
  assert not given(results)


def given(results):
  return [name for name in results if name.startswith("given") and name[-1].isdigit()]


@pytest.fixture(scope="module")
def ease(folder):
  return trained("ease", folder, split="cold_users")


def test_given_ratings_are_not_part_of_the_truth(ease):
  run, results = ease
  assert given(results) == ["given_1", "given_3", "given_5", "given_10"]
  counts = {results[name]["ndcg@10"]["n"] for name in given(results)}
  assert len(counts) == 1 and counts.pop() > 0  # the same users
  every = run.recommender.num_items
  run = dataclasses.replace(run, config=with_fields(run.config, {"ks": (every,)}))
  found = users_given_ratings(run)
  for count, evaluation in zip(GIVEN, found.values(), strict=True):
    # All 22 ratings of a user but the ten of the largest number are the truth, whatever is given.
    assert (evaluation.per_user[f"recall@{every}"] == 1).all()
    np.testing.assert_array_equal(
      evaluation.per_user[f"precision@{every}"], found["given_1"].per_user[f"precision@{every}"]
    )
    assert list(evaluation.buckets) == [{1: "1-4", 3: "1-4", 5: "5-9", 10: "10-19"}[count]]
  test = run.prepared.test
  liked = np.bincount(test.user[test.rating >= 4], minlength=60)[found["given_1"].users]
  sought = found["given_1"].per_user[f"precision@{every}"] * every
  assert (sought < liked).any() and (sought >= liked - max(GIVEN)).all()


def test_there_is_no_result_where_users_have_too_few_ratings(ease):
  run, _ = ease
  few = dataclasses.replace(run.prepared.split, test=run.prepared.split.test[:5])
  run = dataclasses.replace(run, prepared=dataclasses.replace(run.prepared, split=few))
  assert cold_evaluations(run) == {}


def test_other_splits_have_none(folder):
  run, results = trained("popularity", folder)
  assert not run.inputs.new.any()  # what nobody has rated in a part of the ratings is not new
  assert cold_evaluations(run) == {} and "new_items" not in results
