"""Requests: filters, lists per user, similar items, and no compilation per request."""

import dataclasses
import json
import logging
import os

import jax
import numpy as np
import pytest
from helpers.served import trained, with_fields_of_items

from gatrec_jax import serve as serving
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.serve.filters import item_mask

GENRES = ("Drama", "Comedy", "War", "Noir")


@pytest.fixture(scope="module")
def run(best):
  """With genres in lists and in texts, years 1960 to 1999, and prices for every other item."""
  fields = [
    {
      "title": f"Film {item} ({1960 + item})",
      "genres": [GENRES[item % 4], "Long"] if item % 8 == 0 else [GENRES[item % 4]],
      "tags": "sea, ice" if item < 4 else "sea",
    }
    | ({"price": f"{item}.5"} if item % 2 else {"added": f"{2000 + item}-03-15"})
    for item in range(39)
  ]
  return with_fields_of_items(best, [*fields, {}])


def kept(run, only=(), exclude=(), log=SILENT):
  return np.flatnonzero(item_mask(run, only=only, exclude=exclude, log=log)).tolist()


def test_conditions_on_fields(run):
  every = set(range(40))
  assert kept(run, ["genres=war"]) == [*range(2, 39, 4)]
  assert kept(run, [" genres = NOIR|Long"]) == sorted({*range(3, 39, 4), *range(0, 39, 8)})
  assert kept(run, ["tags=ice"]) == [0, 1, 2, 3]  # an entry of a text with commas
  assert kept(run, ["tags=sea, ice"]) == [0, 1, 2, 3]  # the whole text
  assert kept(run, ["year=1990..1992"]) == [30, 31, 32]
  assert kept(run, ["year=1997.."]) == [37, 38]
  assert kept(run, ["year=1961"]) == [1]
  assert kept(run, ["age=..1"]) == [37, 38]  # the newest is of 1998
  assert kept(run, ["price=..3.5"]) == [1, 3]
  assert kept(run, ["added=2010..2013"]) == [10, 12]
  assert kept(run, ["title=film 7 (1967)"]) == [7]
  assert kept(run, ["genres=War", "year=1990.."]) == [30, 34, 38]
  assert set(kept(run, (), ["genres=War", "year=..1990"])) == every - {*range(2, 39, 4), *range(31)}
  assert kept(run, ["genres=War"], ["year=1965.."]) == [2]
  assert item_mask(run, only=(), exclude=(), log=SILENT) is None


def test_a_field_of_the_catalog_goes_before_the_years(run):
  fields = [dict(own, age=str(item)) for item, own in enumerate(run.prepared.item_fields)]
  assert kept(with_fields_of_items(run, fields), ["age=..2"]) == [0, 1, 2]


def test_lists_of_ids(run, folder):
  assert kept(run, [["5", 7]]) == [5, 7]
  (folder / "ids.txt").write_text("\ufeff3\n\n 9 \nnone\n", encoding="utf-8")
  (folder / "ids.csv").write_text("name,item_id\nx,3\ny,11\n")
  (folder / "ids.jsonl").write_text('{"item_id": 4}\n')
  lines = []
  assert kept(run, ["ids.txt"], log=Recorder(lines)) == [3, 9]
  assert len(lines) == 1 and "ids.txt: 1 of 3 ids are not among" in lines[0]
  assert kept(run, [str(folder / "ids.csv")]) == [3, 11]
  assert kept(run, (), ["ids.jsonl", "ids.csv"]) == sorted(set(range(40)) - {3, 4, 11})


@pytest.mark.parametrize(
  ("condition", "message"),
  [
    ("color=red", "no item has a field color; they have added, age, genres, price, tags, title"),
    ("genre=War", "no item has a field genre (columns of that name are read as genres); they have"),
    ("Category=War", "a field Category (columns of that name are read as genres); they have"),
    ("prize=..20", "no item has a field prize (did you mean price?); they have"),
    ("added=2050..", "no item lies in this range; they go from 2000 to 2038"),
    ("genres=Wra", "genres=Wra: no item has this value; near it are war"),
    ("genres=War|xyzzy", "genres=xyzzy: no item has this value; the most common ones are"),
    ("year=2050..", "no item lies in this range; they go from 1960 to 1998"),
    ("year=1999..1990", "the first end must not be above the second"),
    ("year=..", "at least one end"),
    ("genres=1..5", "no item has a number in genres"),
    ("year=1990..now", "no item has this value, and a range has numbers at its ends; "),
    ("missing.csv", "is no file, and no condition such as genres=Comedy"),
    ("none.txt", "none of its 2 ids is among the catalog's 40 items"),
    ("noids.csv", "column item_id is missing"),
    (["1", "77"], "item 77: not in the catalog"),
  ],
)
def test_wrong_conditions_are_one_line(run, folder, condition, message):
  (folder / "none.txt").write_text("a\nb\n")
  (folder / "noids.csv").write_text("id\n1\n")
  for name in ("only", "exclude"):
    with pytest.raises(InputError) as error:
      serving.recommend(run, ["1"], **{name: [condition]})
    assert message in str(error.value) and "\n" not in str(error.value)
  with pytest.raises(InputError, match="must be a list"):
    serving.recommend(run, ["1"], only="genres=War")


def test_lists_are_the_best_of_what_is_left(run):
  full = serving.recommend(run, ["1", "2"], top_n=40)
  war = serving.recommend(run, ["1", "2"], top_n=3, only=["genres=War"])
  for every, own in zip(full.items, war.items, strict=True):
    assert own == [item for item in every if int(item) in range(2, 39, 4)][:3]
  new = serving.recommend_to_new_user(run, ["2", "6"], top_n=40)
  some = serving.recommend_to_new_user(run, ["2", "6"], top_n=40, exclude=["genres=War"])
  assert some.items[0] == [item for item in new.items[0] if int(item) not in range(2, 39, 4)]
  np.testing.assert_allclose(
    some.scores[0],
    [s for i, s in zip(new.items[0], new.scores[0], strict=True) if i in some.items[0]],
  )


def test_candidates_per_user(run, folder):
  lists = serving.recommend(run, candidates={"3": ["8", 2, "5"], 1: []}, exclude_seen=False)
  assert list(lists.users) == ["3", "1"] and sorted(lists.items[0]) == ["2", "5", "8"]
  assert lists.items[1] == []  # nothing is left, and nothing is put in its place
  both = serving.recommend(
    run, ["1", "3", "4"], candidates={"3": ["8", "2"]}, only=["genres=War"], exclude_seen=False
  )
  assert both.items == [[], ["2"], []]
  (folder / "some.csv").write_text("user_id,item_id\n3,8\n3,2\n4,1\n900,1\n4,900\n")
  lines = []
  found = serving.read_candidates(run, "some.csv", log=Recorder(lines))
  assert found == {"3": ["8", "2"], "4": ["1"]} and "2 of 5" in lines[0]
  for wrong in ({"900": ["1"]}, {"3": ["900"]}, {"3": "12"}):
    with pytest.raises(InputError, match="not in the catalog|must be a list"):
      serving.recommend(run, candidates=wrong)


def test_seen_items_stay_out_of_candidates(run):
  known = run.prepared.known
  own = [run.prepared.interactions.item_ids[i] for i in known.item[known.user == 0]]
  user = run.prepared.interactions.user_ids[0]
  assert serving.recommend(run, candidates={user: own}).items == [[]]


# Similar items


def test_similar_items_share_users_or_attributes(run):
  found = serving.similar_items(run, "6", top_n=39)
  items = [one.item for one in found.items]
  assert found.basis == "vectors" and found.title == "Film 6 (1966)" and "6" not in items
  assert np.mean([int(item) % 4 == 2 for item in items[:5]]) >= 0.8  # liked by the same users
  train, liked = run.prepared.train, run.prepared.train.rating >= 4
  users = [set(train.user[liked & (train.item == int(i))]) for i in ("6", items[0])]
  assert found.items[0].liked_both == len(users[0] & users[1]) > 0
  assert ("genre", "War") in found.items[0].shared and ("tag", "sea") in found.items[0].shared
  cosines = [one.similarity for one in found.items]
  assert cosines == sorted(cosines, reverse=True) and 0 < min(cosines) <= max(cosines) <= 1.0001
  only = serving.similar_items(run, 6, only=["genres=Noir"], exclude=["year=1990.."])
  assert {int(one.item) for one in only.items} <= set(range(3, 30, 4))
  with pytest.raises(InputError, match="item 77"):
    serving.similar_items(run, "77")


def test_items_that_nobody_rated_are_compared_by_content(best):
  fields = {"new": dict(best.prepared.item_fields[6]), "bare": {}}
  grown = serving.with_new_ratings(best, best.prepared.train.take(np.zeros(0, int)), fields)
  found = serving.similar_items(grown, "new", top_n=5)
  assert found.basis == "content"
  assert all(int(one.item) % 4 == 2 for one in found.items)  # of the same genre and overview
  assert all(one.liked_both == 0 for one in found.items)
  with pytest.raises(InputError, match="item bare: nothing is known of it"):
    serving.similar_items(grown, "bare")


def test_a_model_without_vectors_compares_who_liked_the_items(folder):
  ease = trained("ease", folder, dataset="ratings.csv", bootstrap=0, ks=(10,))
  found = serving.similar_items(ease, "6", top_n=3)
  train = ease.prepared.train
  likes = np.zeros((60, 40))
  likes[train.user[train.rating >= 4], train.item[train.rating >= 4]] = 1
  together, count = likes.T @ likes[:, 6], likes.sum(axis=0)
  want = together / (np.sqrt(count * count[6]) + 10)
  want[6] = -1
  assert [int(one.item) for one in found.items] == np.argsort(-want, kind="stable")[:3].tolist()
  assert found.basis == "likes"
  np.testing.assert_allclose([one.similarity for one in found.items], np.sort(want)[:-4:-1])


# Programs


def compiled(caplog, action):
  """The programs that JAX compiles (or reads from its cache on disk) during an action."""
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    caplog.clear()
    action()
  return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]


def test_requests_of_any_size_run_the_programs_of_the_first(best, caplog):
  ids = best.prepared.interactions.item_ids

  def new_user(liked, disliked=(), **more):
    serving.recommend_to_new_user(best, ids[:liked], disliked=ids[30 : 30 + disliked], **more)

  jax.clear_caches()
  # Under a JAX that words it otherwise, this test would find nothing.
  assert compiled(caplog, lambda: new_user(3, 0))
  for liked, disliked in ((1, 0), (2, 1), (7, 4), (29, 9)):
    assert not compiled(caplog, lambda: new_user(liked, disliked))
  assert not compiled(caplog, lambda: new_user(5, 0, top_n=3, only=["genres=War"]))
  assert compiled(caplog, lambda: serving.recommend(best, ["5"]))
  for user in ("1", "2", "40"):
    assert not compiled(caplog, lambda: serving.recommend(best, [user], exclude_seen=user != "2"))
  same = dict(only=["genres=War"], exclude=[["2", "6"]], top_n=16, candidates={"3": ["2", "10"]})
  assert not compiled(caplog, lambda: serving.recommend(best, ["3"], **same))


def test_scores_are_a_single_program(best, caplog):
  jax.clear_caches()
  assert len(compiled(caplog, lambda: serving.score(best, ["1", "2"]))) == 1
  assert not compiled(caplog, lambda: serving.score(best, ["3", "40"]))


def test_texts_of_new_users_are_prepared_once(best, monkeypatch):
  first = best.texts_of_new_users([np.array([2, 6])], [np.array([], int)])
  monkeypatch.setattr(os, "open", None)  # nothing is read again
  again = best.texts_of_new_users([np.array([2, 6]), np.array([], int)], [np.array([], int)] * 2)
  np.testing.assert_array_equal(again[0], first[0])
  assert first.any() and not again[1].any()


def test_lists_are_written_for_spreadsheets_and_read_back(run, folder):
  fields = [dict(own, title="=1+1") for own in run.prepared.item_fields]
  lists = serving.recommend(with_fields_of_items(run, fields), ["1"], top_n=2)
  serving.write_lists(folder / "l.csv", lists)
  assert '"\'=1+1"' in (folder / "l.csv").read_text()
  serving.write_lists(folder / "l.jsonl", lists)
  rows = [json.loads(line) for line in (folder / "l.jsonl").read_text().splitlines()]
  assert rows[0]["title"] == "=1+1" and rows[0]["score"] == lists.scores[0][0]
  with pytest.raises(InputError, match="out=.*must end in .parquet, .csv, .jsonl"):
    serving.write_lists(folder / "l.xlsx", lists)


@pytest.mark.parametrize("condition", ["x" * 5000, "a\0b", "genres=" + "y" * 5000])
def test_a_condition_that_no_file_name_could_be(run, condition):
  with pytest.raises(InputError) as error:
    item_mask(run, only=[condition], exclude=[], log=SILENT)
  assert len(str(error.value)) < 2000


def test_a_run_is_told_by_what_it_is_and_not_by_where_it_lies(best, tmp_path):
  moved = dataclasses.replace(best, workdir=tmp_path)
  assert moved.content_hash == best.content_hash
  params = jax.tree.map(lambda leaf: leaf, best.params)
  leaves, form = jax.tree.flatten(params)
  leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].add(1e-3)
  other = dataclasses.replace(best, params=jax.tree.unflatten(form, leaves))
  assert other.content_hash != best.content_hash
  facts = {**best.prepared.facts, "content": "of other data"}
  prepared = dataclasses.replace(best.prepared, facts=facts)
  assert dataclasses.replace(best, prepared=prepared).content_hash != best.content_hash
