"""Items and users that training has not seen."""

import dataclasses

import numpy as np
import pytest
from rerank_table import write_table

from gatrec_jax.config import with_fields
from gatrec_jax.errors import InputError
from gatrec_jax.presets import get_preset
from gatrec_jax.train import pipeline
from gatrec_jax.train.cold_start import cold_evaluations, users_given_ratings

QUICK = {
  "bootstrap": 0, "dataset": "ratings.csv", "item_metadata": "items.jsonl", "encoder": "lexical",
}  # fmt: skip
LEARNED = {"epochs": 5, "evaluate_every": 5, "bootstrap": 0}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("place")
  write_table(folder)
  patch = pytest.MonkeyPatch()
  patch.chdir(folder)
  yield folder
  patch.undo()


def trained(preset, folder, **fields):
  config = with_fields(get_preset(preset), QUICK | fields)
  return pipeline.train_and_evaluate(config, folder / f"{preset}-{config.data.split}",
                                     say=lambda _: None)  # fmt: skip


def test_only_new_items_are_candidates(folder):
  run, results = trained("best", folder, split="cold_items", **LEARNED)
  train, test = run.prepared.train, run.prepared.test
  new = np.setdiff1d(np.arange(train.num_items), train.item)
  assert set(test.item) <= set(new)
  found = cold_evaluations(run)["new_items"]
  k = len(new)
  run = dataclasses.replace(run, config=with_fields(run.config, {"ks": (1, k)}))
  every = cold_evaluations(run)["new_items"]
  # All candidates shown, all relevant ones found; and coverage tells that no other was shown.
  assert every.summary[f"recall@{k}"].mean == 1.0
  assert every.summary[f"coverage@{k}"].mean == pytest.approx(k / train.num_items)
  assert results["new_items"]["ndcg@10"]["mean"] == pytest.approx(found.summary["ndcg@10"].mean)


def test_new_users_are_given_ratings_and_judged_on_others(folder):
  run, results = trained("best", folder, split="cold_users", **LEARNED)
  names = [name for name in results if name.startswith("given") and name[-1].isdigit()]
  assert names == ["given_1", "given_3", "given_5", "given_10"]
  counts = {results[name]["ndcg@10"]["n"] for name in names}
  assert len(counts) == 1 and counts.pop() > 0  # the same users
  assert results["full"]["ndcg@10"]["mean"] != results["given_5"]["ndcg@10"]["mean"]
  # Closed forms are fitted with what is given; models that cannot take ratings have no such result.
  _, results = trained("popularity", folder, split="cold_users")
  assert "given_10" in results
  _, results = trained("bpr_mf", folder, split="cold_users", **LEARNED)
  assert not [name for name in results if name.startswith("given")]


def test_given_ratings_are_no_truth(folder):
  run, _ = trained("ease", folder, split="cold_users")
  found = users_given_ratings(run)
  again = users_given_ratings(run)
  for name, evaluation in found.items():
    np.testing.assert_array_equal(
      evaluation.per_user["ndcg@10"], again[name].per_user["ndcg@10"]
    )
  with pytest.raises(InputError, match="no held-out user has more than 10 ratings"):
    few = run.prepared.split.test[:5]
    users_given_ratings(dataclasses.replace(run, prepared=dataclasses.replace(
      run.prepared, split=dataclasses.replace(run.prepared.split, test=few)
    )))  # fmt: skip


def test_other_splits_have_none(folder):
  run, results = trained("popularity", folder)
  assert cold_evaluations(run) == {} and "new_items" not in results
