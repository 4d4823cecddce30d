"""The split `next_item` through a run: what is in a history, what is masked, what is learned."""

import shutil

import jax
import numpy as np
import pytest
from helpers.rerank_table import in_table_folder

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.experiment import train_and_evaluate as pipeline
from gatrec_jax.experiment.grid import train_alike
from gatrec_jax.experiment.validation import make_values
from gatrec_jax.explain.explainer import explain_items, make_explainer
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.rerank.candidates import validation_candidates
from gatrec_jax.runs.log import SILENT
from gatrec_jax.serve import with_new_ratings
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import before_validation, in_histories, load_run

COMMON = {"dataset": "ratings.csv", "split": "next_item", "bootstrap": 0, "ks": (10,)}
# One light layer, whose user vectors come from the items in the history, and the linear channel.
BEST = {
  "epochs": 2,
  "evaluate_every": 1,
  "layers": 1,
  "feature_width": 8,
  "linear_choice": "fixed",
  "unrated_l2": 0.0,
}
EVERYONE = np.arange(60, dtype=np.int32)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


def trained(preset, folder, **fields):
  config = with_fields(get_preset(preset), COMMON | fields)
  return pipeline.train_and_evaluate(config, folder, log=SILENT)


@pytest.fixture(scope="module")
def best(folder):
  return trained("best", folder / "best", **BEST)


def scores_of(run):
  return np.asarray(jax.jit(run.recommender.score)(run.serving_state, EVERYONE))


def pairs(rows):
  return set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def test_the_validation_rating_is_in_the_history_and_masked(best, folder):
  run, results = best
  prepared = run.prepared
  assert len(prepared.valid) == len(prepared.test) == 60
  assert pairs(run.histories) == pairs(prepared.known)
  lists, _ = top_lists(run, EVERYONE, k=10)
  listed = {(user, item) for user, row in enumerate(lists.tolist()) for item in row}
  assert not pairs(prepared.known) & listed
  test = prepared.test
  liked = prepared.feedback.liked(test.rating)
  hits = [pair in listed for pair in zip(test.user[liked], test.item[liked], strict=True)]
  # One item is relevant for each user.
  assert results["full"]["recall@10"]["mean"] == pytest.approx(np.mean(hits), abs=1e-6)
  assert results["full"]["recall@10"]["n"] == len(hits)


def test_scores_follow_the_history_with_parameters_of_the_training_ratings(best):
  run, _ = best
  before = before_validation(run)
  assert pairs(before.histories) == pairs(run.prepared.train)
  for name, leaf in before.params.items():
    assert leaf is run.params[name]
  # All weights of the linear channel stay, while a history has the relevance of one item more.
  np.testing.assert_array_equal(run.inputs.own.linear[0], before.inputs.own.linear[0])
  lengths = [np.diff(one.inputs.own.linear[1].pairs.start) for one in (run, before)]
  np.testing.assert_array_equal(lengths[0], lengths[1] + 1)
  weights = np.asarray(run.inputs.own.linear[0])
  linear = [
    np.asarray(run.recommender._linear.score(one.inputs.own.linear, EVERYONE))
    for one in (run, before)
  ]
  valid = run.prepared.valid
  judged = run.prepared.feedback.judge(valid.rating)
  own = np.zeros((60, 40), np.float32)
  for user, item, relevance in zip(valid.user, valid.item, judged.relevance, strict=True):
    own[user] = relevance * weights[0, item] + weights[1, item]
  np.testing.assert_allclose(linear[0] - linear[1], own, atol=1e-5)
  assert np.abs(scores_of(run) - scores_of(before)).max(axis=1).min() > 1e-4


def test_epochs_are_chosen_without_the_validation_rating_in_the_history(best):
  run, results = best
  before = before_validation(run)
  common = dict(recommender=run.recommender, config=run.config)
  values = make_values(run.prepared, before.inputs, **common)(before.serving_state)
  assert values.mean() == pytest.approx(results["selection"]["valid_ndcg@10"], abs=1e-6)
  candidates = validation_candidates(run, top=10)
  again = validation_candidates(before, top=10)
  np.testing.assert_array_equal(candidates.lists, again.lists)
  assert candidates.hits.any()


def test_an_opened_run_serves_the_same(best):
  run, _ = best
  np.testing.assert_allclose(scores_of(load_run(run.workdir)), scores_of(run), atol=1e-5)


def test_new_ratings_leave_the_history_as_it_is(best):
  run, _ = best
  nothing = run.prepared.train.take(np.arange(0))
  same = with_new_ratings(run, nothing)
  assert pairs(same.histories) == pairs(run.prepared.known)
  np.testing.assert_allclose(scores_of(same), scores_of(run), atol=1e-4)


def test_reasons_know_the_whole_history(best):
  run, _ = best
  valid = run.prepared.valid
  user = int(valid.user[run.prepared.feedback.liked(valid.rating)][0])
  last = int(valid.item[valid.user == user][0])
  explainer = make_explainer(run)
  assert explainer.liked_by[last, user] == 1
  whole, without = explainer.rescorer(user, [[], [last]])
  np.testing.assert_allclose(whole, scores_of(run)[user], atol=1e-4)
  # The user's own rating is gone; those of others are still in the graph.
  before = scores_of(before_validation(run))[user]
  assert np.abs(without - before).mean() < 0.5 * np.abs(whole - before).mean()


def test_fitted_models_serve_from_it_where_they_hold_no_users(folder):
  run, _ = trained("ease", folder / "ease", valid_share=0.1)
  assert pairs(run.histories) == pairs(run.prepared.known)
  before = before_validation(run)
  valid, weights = run.prepared.valid, np.asarray(run.params["weights"])[0]
  liked = run.prepared.feedback.liked(valid.rating)
  own = np.zeros((60, 40), np.float32)
  own[valid.user[liked]] = weights[valid.item[liked]]
  np.testing.assert_allclose(scores_of(run) - scores_of(before), own, atol=1e-5)
  assert served_from_it(run, "ease", {"weights": weights})
  assert not served_from_it(run, "ials", {"user": own, "item": own})
  assert not served_from_it(run, "lightgcn", {})


def served_from_it(run, preset, params):
  model = get_preset(preset).model
  recommender = make_recommender(model, num_users=60, num_items=40)
  return in_histories(run.config, run.prepared, recommender, params)


def test_without_a_validation_part_training_has_all_but_the_last(folder):
  run, _ = trained("ease", folder / "whole")
  assert len(run.prepared.valid) == 0 and len(run.prepared.train) == 60 * 21
  assert run.histories is run.prepared.train


def test_a_refit_trains_on_all_but_the_last(best, folder):
  run, _ = best
  shutil.copytree(run.workdir, folder / "refit" / "choosing")
  train_alike(run.config, folder / "refit", refit=True, log=SILENT)
  final = load_run(folder / "refit")
  assert pairs(final.prepared.train) == pairs(run.prepared.known)
  assert pairs(final.prepared.test) == pairs(run.prepared.test)
  assert pairs(final.histories) == pairs(run.histories)


@pytest.fixture(scope="module")
def ordered(folder):
  config = with_fields(
    get_preset("best", split="next_item"),
    COMMON | {"epochs": 2, "evaluate_every": 1, "feature_width": 8, "batch_size": 64},
  )
  return pipeline.train_and_evaluate(config, folder / "ordered", log=SILENT)[0]


def test_best_attends_to_events_and_the_validation_event_is_among_them(ordered):
  run = ordered
  assert run.config.preset == "best" and run.config.model.reads_order
  events, valid = run.inputs.own.ordered.events, run.prepared.valid
  item, time, start = map(np.asarray, (events.item, events.time, events.start))
  for user, last in zip(valid.user, valid.item, strict=True):
    own = slice(start[user], start[user + 1])
    # Of several events of the same time, a random one is held out.
    assert last in item[own][time[own] == time[own].max()]
  before = before_validation(run)
  assert len(before.inputs.own.ordered.events.item) == len(run.prepared.train)
  assert not np.allclose(scores_of(run), scores_of(before), atol=1e-3)


def test_a_run_over_events_is_opened_extended_and_explained(ordered, folder):
  run = load_run(folder / "ordered")
  np.testing.assert_allclose(scores_of(run), scores_of(ordered), atol=1e-5)
  ids = run.prepared.interactions
  user, item = ids.user_ids[0], ids.item_ids[int(run.prepared.test.item[0])]
  added = Interactions.from_arrays([user, "new"], [item, item], [5, 5], [10**10] * 2)
  extended = with_new_ratings(run, added)
  assert extended.recommender.num_users == ids.num_users + 1
  assert not np.allclose(scores_of(extended)[0], scores_of(run)[0], atol=1e-3)
  lists, _ = top_lists(run, EVERYONE[:1], k=2)
  evidence = explain_items(make_explainer(run), 0, lists[0].tolist())
  assert len(evidence) == 2 and all(one.cited for one in evidence)


def test_added_ratings_without_times_are_the_latest_in_their_order(ordered):
  ids = ordered.prepared.interactions
  user, known = ids.user_ids[0], set(ordered.histories.item[ordered.histories.user == 0].tolist())
  more = [item for item in range(ids.num_items) if item not in known][2::-1]
  added = Interactions.from_arrays([user] * 3, [ids.item_ids[item] for item in more], [5] * 3)
  events = with_new_ratings(ordered, added).inputs.own.ordered.events
  end = int(events.start[1])
  assert np.asarray(events.item)[end - 3 : end].tolist() == more


@pytest.mark.parametrize("preset", ["sasrec", "gru4rec", "markov"])
def test_models_of_the_order_refuse_ratings_without_times(preset, folder):
  fields = {"split": "random", "time_column": "", "columns": ""}
  with pytest.raises(InputError, match="there are no times"):
    trained(preset, folder / f"{preset}-timeless", **fields)
