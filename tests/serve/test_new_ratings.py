"""New ratings, users and items without training again: exact where the model is in closed form."""

import dataclasses

import numpy as np
import pytest
from helpers.served import QUICK, TEXTS, trained

from gatrec_jax import serve as serving
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.interactions import Interactions, no_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.serve import with_new_ratings
from gatrec_jax.serve.run import assemble_run, recommender_and_inputs


def ratings(rows):
  user, item, rating = zip(*rows, strict=True)
  user_ids, item_ids = (tuple(dict.fromkeys(column)) for column in (user, item))
  return Interactions(
    np.array([user_ids.index(u) for u in user], np.int32),
    np.array([item_ids.index(i) for i in item], np.int32),
    np.array(rating, np.float32),
    np.zeros(len(rows), np.int64),
    user_ids,
    item_ids,
  )


def test_a_closed_form_is_what_training_with_them_gives(folder):
  run = trained("ease_rated", folder, dataset="ratings.csv", bootstrap=0, ks=(10,))
  held = run.prepared.test
  all_known = with_new_ratings(run, held)
  prepared = dataclasses.replace(
    run.prepared,
    split=dataclasses.replace(
      run.prepared.split,
      train=np.append(run.prepared.split.train, run.prepared.split.test),
      test=run.prepared.split.test[:0],
    ),
  )
  recommender, inputs = recommender_and_inputs(run.config, prepared, run.texts)
  whole = assemble_run(
    run.workdir,
    config=run.config,
    prepared=prepared,
    texts=run.texts,
    recommender=recommender,
    params=recommender.fit(inputs, None),
    inputs=inputs,
  )
  users = ["0", "7", "33"]
  np.testing.assert_allclose(
    serving.score(all_known, users), serving.score(whole, users), atol=1e-5
  )
  assert len(all_known.prepared.test) == 0


def test_ratings_that_are_known_already_change_nothing(best):
  same = with_new_ratings(best, best.prepared.train)
  np.testing.assert_array_equal(serving.score(same, ["3", "4"]), serving.score(best, ["3", "4"]))


def test_a_changed_rating_changes_scores(best):
  row = best.prepared.train.take(np.array([0]))
  user, item = row.user_ids[row.user[0]], row.item_ids[row.item[0]]
  changed = with_new_ratings(best, ratings([(user, item, 6.0 - float(row.rating[0]))]))
  assert len(changed.prepared.train) == len(best.prepared.train)
  assert not np.allclose(serving.score(changed, [user]), serving.score(best, [user]), atol=1e-4)


KIND = [str(user) for user in range(2, 60, 4)]


@pytest.fixture(scope="module")
def grown(best):
  """With a user of the third kind, and an item that only the third kind has rated, and liked."""
  rows = [("new", str(item), 5.0) for item in range(2, 30, 4)]
  return with_new_ratings(best, ratings(rows + [(user, "film", 5.0) for user in KIND]))


def test_new_users_and_items_are_served(best, grown):
  assert grown.prepared.interactions.user_ids[-1] == "new"
  scores = serving.score(grown, ["new", *KIND[:3], "0", "1", "3"])
  assert scores.shape == (7, 41) and np.isfinite(scores).all()
  (items,) = serving.recommend(grown, ["new"], top_n=5).items
  assert "film" in items and not {str(item) for item in range(2, 30, 4)} & set(items)
  place = (scores >= scores[:, -1:]).sum(axis=1)
  assert place[0] <= 5 < place[4:].min()
  assert best.prepared.interactions.num_items == 40  # the run itself is as it was


def test_a_model_that_would_have_to_learn_again_says_so(best):
  lightgcn = make_recommender(get_preset("lightgcn").model, num_users=60, num_items=40)
  run = dataclasses.replace(best, recommender=lightgcn)
  with pytest.raises(InputError, match="lightgcn cannot take new ratings"):
    with_new_ratings(run, ratings([("0", "1", 5.0)]))


def test_a_trained_table_gets_rows_and_texts_for_new_nodes(folder):
  run = trained(
    "tiny",
    folder,
    **QUICK | {"epochs": 1, "evaluate_every": 1},
    **TEXTS,
    node_features="table",
    layer_widths=(16,),
    heads=(1,),
  )
  extended = with_new_ratings(run, ratings([("new", "2", 5.0), ("5", "film", 4.0)]))
  assert_texts_in_place(run, extended)
  assert np.isfinite(serving.score(extended, ["new"])).all()


def test_texts_of_new_nodes_are_in_their_places(best, grown):
  assert_texts_in_place(best, grown)


def assert_texts_in_place(run, extended):
  text = extended.texts.vectors
  np.testing.assert_array_equal(text[:60], run.texts.vectors[:60])
  np.testing.assert_array_equal(text[61:101], run.texts.vectors[60:])
  assert text[60].any() and not text[101].any()


def test_new_items_are_known_by_their_fields(best):
  run, train = best, best.prepared.train
  some = int(np.bincount(train.item).argmax())
  twin = dict(run.prepared.item_fields[some])
  fields = {"new-1": twin, "new-2": {}, train.item_ids[0]: {"title": "not this"}}
  extended = with_new_ratings(run, no_interactions(), fields)
  now = extended.prepared.interactions
  assert now.item_ids == (*train.item_ids, "new-1", "new-2")
  assert extended.prepared.item_fields[0] == run.prepared.item_fields[0]
  np.testing.assert_allclose(
    extended.texts.item_vectors[-2], run.texts.item_vectors[some], atol=2e-2
  )  # the same text; its key words are chosen among one item more
  assert not extended.texts.item_vectors[-1].any()
  before, after = serving.score(run, ["1"])[0], serving.score(extended, ["1"])[0]
  np.testing.assert_allclose(after[: len(before)], before, atol=1e-4)
  # Text alone: the twin of an item correlates with it over the users.
  every = serving.score(extended, list(now.user_ids))
  assert np.corrcoef(every[:, some], every[:, -2])[0, 1] > 0.3
  # One of which nothing is known stands at the mean: it is new, so nothing is held against it.
  rated = np.bincount(train.item, minlength=len(now.item_ids)) > 0
  np.testing.assert_allclose(every[:, -1], every[:, rated].mean(axis=1), atol=1e-4)


def test_known_users_need_no_encoder(best):
  gone = dataclasses.replace(best.texts, facts={**best.texts.facts, "content_hash": "another"})
  same = with_new_ratings(dataclasses.replace(best, texts=gone), best.prepared.train)
  assert same.prepared.interactions.num_users == 60


def test_popularity_is_added_only_for_users_who_came_after_training(grown):
  known = grown.prepared.interactions.user_ids[0]
  again = with_new_ratings(grown, ratings([("new", "3", 5.0), (known, "2", 5.0)]))
  for run, count in ((grown, 7), (again, 8)):
    place = run.prepared.interactions.user_ids.index("new")
    prior = np.asarray(run.serving_state.prior)
    assert np.flatnonzero(prior).tolist() == [place]
    np.testing.assert_allclose(prior[place], 4 * (1 - count / 15) ** 2, rtol=1e-6)
