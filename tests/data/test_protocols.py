"""Protocols by name: what they leave, how they divide it, and the metrics of their tables."""

import dataclasses
import math

import numpy as np
import pytest
from helpers.paths import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.checks import FIXED_BY_SPLIT
from gatrec_jax.config.schema import DataConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Dataset, build_interactions
from gatrec_jax.data.movielens import load_movielens
from gatrec_jax.data.protocols import PROTOCOLS, Protocol, apply_protocol, filtered, protocol_split
from gatrec_jax.data.splits import KINDS
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.runs.log import SILENT
from gatrec_jax.stages.data import load_prepared, prepare, prepared_in_memory

A, B = PROTOCOLS["recbole_a"], PROTOCOLS["recbole_b"]
needs_shared = pytest.mark.skipif(
  not (SHARED / "data" / "ml-1m.zip").is_file(), reason="../shared/data is not here"
)


def make(seed=0, num_users=25, num_items=30, num_rows=400):
  random = np.random.default_rng(seed)
  pairs = random.choice(num_users * num_items, size=num_rows, replace=False)
  return build_interactions(
    [f"u{pair // num_items}" for pair in pairs],
    pairs % num_items,
    random.integers(1, 6, num_rows),
    random.integers(0, 99, num_rows),
  )[0]


def triples(interactions, rows=slice(None)):
  return {
    (interactions.user_ids[user], interactions.item_ids[item], float(rating), int(time))
    for user, item, rating, time in zip(
      interactions.user[rows],
      interactions.item[rows],
      interactions.rating[rows],
      interactions.timestamp[rows],
      strict=True,
    )
  }


def naive_core(rows, core):
  """Takes away one user or item at a time."""
  while True:
    for place in (0, 1):
      ids = [row[place] for row in rows]
      few = next((one for one in ids if ids.count(one) < core), None)
      if few is not None:
        rows = {row for row in rows if row[place] != few}
        break
    else:
      return rows


def assert_a_tenth_of_each_user(interactions, rows):
  """Rounded down."""
  counts = np.bincount(interactions.user)
  part = np.bincount(interactions.user[rows], minlength=len(counts))
  np.testing.assert_array_equal(part, counts // 10)


def test_config_fixes_what_the_protocols_say():
  assert not set(PROTOCOLS) & set(KINDS)
  assert {name: dict(fixed) for name, fixed in FIXED_BY_SPLIT.items()} == {
    name: {
      "positive_threshold": protocol.feedback.positive_threshold,
      "negative_threshold": protocol.feedback.negative_threshold,
      "test_share": protocol.test_share,
      "valid_share": protocol.valid_share,
      "valid_seed": 0,  # the validation part follows from split_seed
      "select_metric": protocol.select_metric,
    }
    for name, protocol in PROTOCOLS.items()
  }


@needs_shared
def test_counts_of_the_published_tables():
  million = load_movielens("ml-1m", data_dir=str(SHARED / "data"))
  hundred = load_movielens("ml-100k", data_dir=str(SHARED / "data"))
  for dataset, protocol, expected in (
    (million, A, (834_449, 6_033, 3_123)),
    (million, B, (836_478, 6_039, 3_628)),
    (hundred, B, (82_520, 943, 1_574)),
  ):
    left = apply_protocol(dataset, protocol)
    rows = left.interactions
    assert (len(rows), rows.num_users, rows.num_items) == expected
    titles = dict(zip(dataset.interactions.item_ids, dataset.item_fields, strict=True))
    assert list(left.item_fields) == [titles[item_id] for item_id in rows.item_ids]
    split = protocol_split(rows, protocol, split_seed=0)
    assert_a_tenth_of_each_user(rows, split.test)
    assert_a_tenth_of_each_user(rows, split.valid)


def test_one_low_rating_takes_a_whole_chain_out_of_the_core():
  """Without (a, x) user a has one row left, then item y, then user b: nothing of them remains."""
  rows = [
    ("a", "x", 2),
    ("a", "y", 3),
    ("b", "y", 5),
    ("b", "z", 5),
    ("c", "z", 3),
    ("c", "w", 4),
    ("d", "z", 5),
    ("d", "w", 3),
  ]
  users, items, ratings = zip(*rows, strict=True)
  interactions, _ = build_interactions(
    users, items, ratings, range(8), user_ids=["0"], item_ids=["new"]
  )
  fields = [{"title": item_id} for item_id in interactions.item_ids]
  dataset = Dataset("own", interactions, fields, np.ones(8, bool), notes={"rows without id": 2})
  left = apply_protocol(dataset, dataclasses.replace(A, core=2))
  assert left.interactions.user_ids == ("c", "d")
  assert left.interactions.item_ids == ("w", "z")
  assert triples(left.interactions) == {
    ("c", "z", 3.0, 4),
    ("c", "w", 4.0, 5),
    ("d", "z", 5.0, 6),
    ("d", "w", 3.0, 7),
  }
  assert left.item_fields == [{"title": "w"}, {"title": "z"}]
  assert left.test_rows is None
  assert left.notes == {
    "rows without id": 2,
    "ratings below 3 left out": 1,
    "ratings outside the 2-core left out": 3,
    "users left out": 3,
    "items left out": 3,
  }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), core=st.integers(0, 9))
def test_filtered_equals_taking_away_one_at_a_time(seed, core):
  interactions = make(seed)
  protocol = Protocol("p", core, "ndcg@10")
  expected = naive_core({row for row in triples(interactions) if row[2] >= 3}, core)
  if not expected:
    with pytest.raises(InputError, match="of 400 ratings none is"):
      filtered(interactions, protocol)
    return
  left, rows, notes = filtered(interactions, protocol)
  assert triples(left) == expected == triples(interactions, rows)
  np.testing.assert_array_equal(rows, np.sort(rows))
  for ids, all_ids, place in (
    (left.user_ids, interactions.user_ids, 0),
    (left.item_ids, interactions.item_ids, 1),
  ):
    present = {row[place] for row in expected}
    assert ids == tuple(one for one in all_ids if one in present)
  assert left.user.dtype == left.item.dtype == np.int32
  left_out = sum(count for note, count in notes.items() if note.startswith("ratings"))
  assert left_out == 400 - len(left)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_split_rounds_down_for_each_user_and_is_blind_to_the_order_of_rows(seed):
  rows = filtered(make(seed, num_items=60, num_rows=700), B)[0]
  split = protocol_split(rows, B, seed)
  together = np.concatenate([split.train, split.valid, split.test])
  np.testing.assert_array_equal(np.sort(together), np.arange(len(rows)))
  for part in (split.valid, split.test):
    assert part.dtype == np.int64
    np.testing.assert_array_equal(part, np.sort(part))
    assert_a_tenth_of_each_user(rows, part)

  shuffled = rows.take(np.random.default_rng(seed).permutation(len(rows)))
  again = protocol_split(shuffled, B, seed)
  for part in ("train", "valid", "test"):
    assert triples(rows, getattr(split, part)) == triples(shuffled, getattr(again, part))
  other = protocol_split(rows, B, seed + 1)
  assert set(other.test) != set(split.test)
  assert set(other.valid) != set(split.valid)


def test_every_row_of_a_user_is_as_likely_to_be_tested():
  users, items = [0] * 20 + [1] * 9, [*range(20), *range(9)]
  rows, _ = build_interactions(users, items, [3] * 29, [0] * 29)
  tested = np.zeros(29)
  validated = np.zeros(29)
  for seed in range(500):
    split = protocol_split(rows, B, seed)
    tested[split.test] += 1
    validated[split.valid] += 1
  assert tested[20:].sum() == validated[20:].sum() == 0  # nine rows are too few
  # Each is drawn 50 times on average, with a standard deviation of 6.7.
  for times in (tested[:20], validated[:20]):
    assert times.sum() == 1000
    assert 20 < times.min() and times.max() < 80


def test_prepared_uses_the_protocol_and_nothing_else_of_the_config(tmp_path):
  table = tmp_path / "ratings.csv"
  rows = make(3, num_items=40, num_rows=600)
  lines = [f"{u},{i},{r:g},{t}" for u, i, r, t in sorted(triples(rows))]
  table.write_text("\n".join(["user_id,item_id,rating,timestamp", *lines]))
  data = DataConfig(dataset=str(table), split="recbole_b", split_seed=4)
  prepared = prepared_in_memory(data)
  assert prepared.feedback == Feedback(3.0, 2.0)
  assert prepared.interactions.rating.min() == 3.0
  assert triples(prepared.interactions) == {row for row in triples(rows) if row[2] >= 3}
  assert triples(prepared.known) == triples(prepared.train) | triples(prepared.valid)
  assert prepared.facts["ratings below 3 left out"] == (rows.rating < 3).sum()
  ignored = dict(valid_seed=7, valid_share=0.5, test_share=0.5, positive_threshold=5.0)
  other = prepared_in_memory(dataclasses.replace(data, **ignored))
  for part in ("train", "valid", "test"):
    assert triples(getattr(other, part)) == triples(getattr(prepared, part))
  assert other.feedback == Feedback(3.0, 2.0)

  kept = prepare(data, tmp_path / "run", log=SILENT)
  again = load_prepared(tmp_path / "run")
  for loaded in (kept, again):
    assert triples(loaded.test) == triples(prepared.test)
    assert loaded.interactions.item_ids == prepared.interactions.item_ids
    assert loaded.feedback == Feedback(3.0, 2.0)


@pytest.mark.parametrize(
  ("ratings", "message"),
  [
    ([1] * 12, "split=recbole_b: needs ratings, but all are 1 .implicit feedback."),
    ([4] * 12, "split=recbole_b: needs ratings, but all are 4"),
    ([1, 2] * 6, "split=recbole_b: of 12 ratings none is at least 3; use another split"),
    ([1, 1, 1, *[5] * 9], "split=recbole_b: no test rows, since no user has 10 ratings"),
  ],
)
def test_data_that_a_protocol_is_not_defined_for_is_named(ratings, message):
  interactions, _ = build_interactions([0] * 12, range(12), ratings, [0] * 12)
  with pytest.raises(InputError, match=message) as caught:
    protocol_split(filtered(interactions, B)[0], B, split_seed=0)
  assert "\n" not in str(caught.value)


def test_an_empty_core_and_a_negative_seed_are_named():
  with pytest.raises(InputError, match="recbole_a: of 100 .* users and items with 10 of them each"):
    filtered(make(num_rows=100), A)
  with pytest.raises(InputError, match="split_seed=-1"):
    protocol_split(make(), B, split_seed=-1)


def test_metrics_are_those_of_the_published_tables():
  """RecBole's definitions solved by hand: 12 test items against K = 10, and one of two found.

  User 0 has 12 relevant items and hits at ranks 2 and 10, so the ideal has 10 hits and recall
  divides by 12. User 1 has 2, with one hit at rank 3. User 2 has none and does not count; user 3
  has one and misses it.
  """
  num_items = 40
  user = [0] * 12 + [1, 1, 3]
  test, _ = build_interactions(
    user,
    [*range(12), 0, 1, 0],
    [3, *[4] * 14],
    [0] * 15,
    user_ids=range(4),
    item_ids=range(num_items),
  )
  train = dataclasses.replace(
    test.take(np.arange(4)), user=np.arange(4, dtype=np.int32), item=np.full(4, 39, np.int32)
  )
  lists = np.tile(np.arange(20, 30, dtype=np.int32), (4, 1))
  lists[0, [1, 9]] = 5, 0
  lists[1, 2] = 1
  found = full_ranking(
    lists, np.arange(4), train=train, test=test, feedback=B.feedback, ks=(10,), num_bootstrap=0
  )
  ideal_of_10 = sum(1 / math.log2(rank + 1) for rank in range(1, 11))
  ndcg = [(1 / math.log2(3) + 1 / math.log2(11)) / ideal_of_10, 0.5 / (1 + 1 / math.log2(3)), 0.0]
  expected = {
    "ndcg@10": ndcg,
    "mrr@10": [1 / 2, 1 / 3, 0],
    "hit@10": [1, 1, 0],
    "recall@10": [2 / 12, 1 / 2, 0],
    "precision@10": [2 / 10, 1 / 10, 0],
  }
  assert found.users.tolist() == [0, 1, 3]
  for name, values in expected.items():
    np.testing.assert_allclose(found.per_user[name], values, rtol=1e-6, err_msg=name)
    assert found.summary[name].mean == pytest.approx(sum(values) / 3, rel=1e-6), name
