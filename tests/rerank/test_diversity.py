"""Maximal marginal relevance: by hand, against a direct implementation, and at its limits."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.metrics import intra_list_diversity
from gatrec_jax.rerank.diversity import mmr


def naive(scores, vectors, valid, trade_off, k):
  """The order of one list, directly by the formula."""
  present = np.flatnonzero(valid).tolist()
  low, high = min(scores[present], default=0), max(scores[present], default=0)
  worth = {i: (scores[i] - low) / (high - low) if high > low else 0.0 for i in present}

  def cosine(i, j):
    norms = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
    return vectors[i] @ vectors[j] / norms if norms else 0.0

  chosen = []
  while present and len(chosen) < k:

    def value(i):
      return trade_off * worth[i] - (1 - trade_off) * max(
        (cosine(i, j) for j in chosen), default=0.0
      )

    best = max(sorted(present, key=lambda i: -scores[i]), key=value)
    chosen.append(best)
    present.remove(best)
  return chosen + [-1] * (k - len(chosen))


def random_lists(seed, *, users=5, candidates=7, width=3):
  rng = np.random.default_rng(seed)
  scores = rng.normal(size=(users, candidates)).astype(np.float32)
  vectors = rng.normal(size=(users, candidates, width)).astype(np.float32)
  return scores, vectors, rng.random(scores.shape) < 0.8


def test_by_hand():
  # B repeats A; C is orthogonal to both. Scores in [0, 1]: 1, .8, 0.
  scores = np.array([[3.0, 2.6, 1.0]])
  vectors = np.array([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])

  def order(trade_off):
    return mmr(scores, vectors, trade_off=trade_off, k=3).tolist()

  # Second place: λ · .8 − (1 − λ) against 0, which is the same at λ = 5/9.
  assert order(0.6) == [[0, 1, 2]]
  assert order(0.5) == [[0, 2, 1]]
  assert order(0.0) == [[0, 2, 1]]


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_orders_equal_those_of_the_formula(seed, trade_off):
  scores, vectors, valid = random_lists(seed)
  found = mmr(scores, vectors, trade_off=trade_off, k=6, valid=valid)
  assert found.dtype == np.int32
  if trade_off:
    expected = [naive(s, v, ok, trade_off, 6) for s, v, ok in zip(scores, vectors, valid)]
    assert found.tolist() == expected
  for row, ok in zip(found, valid):
    kept = row[row >= 0]
    assert len(set(kept.tolist())) == len(kept) == min(6, ok.sum()) and ok[kept].all()
    assert (row[len(kept) :] == -1).all()


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([1e-30, 1.0, 1e12]))
def test_a_trade_off_of_one_gives_the_order_of_the_scores(seed, scale):
  scores, vectors, valid = random_lists(seed)
  # Many equal scores, and some that differ by rounding.
  scores = (np.round(scores * 2) * (1 + 1e-7 * (scores > 0))).astype(np.float64) * scale
  found = mmr(scores, vectors, trade_off=1.0, k=7, valid=valid)
  for row, s, ok in zip(found, scores, valid):
    expected = sorted(np.flatnonzero(ok).tolist(), key=lambda i: -s[i])
    assert row[: len(expected)].tolist() == expected


def test_vectors_of_all_items_and_several_batches_give_the_same_order():
  scores, _, valid = random_lists(1, users=1100)
  catalog = np.random.default_rng(2).normal(size=(30, 4)).astype(np.float32)
  items = np.random.default_rng(3).integers(0, 30, scores.shape)
  by_items = mmr(scores, catalog, trade_off=0.5, k=4, valid=valid, items=np.where(valid, items, -1))
  assert np.array_equal(by_items, mmr(scores, catalog[items], trade_off=0.5, k=4, valid=valid))
  alone = mmr(scores[1050:], catalog[items][1050:], trade_off=0.5, k=4, valid=valid[1050:])
  assert np.array_equal(by_items[1050:], alone)


def test_equal_scores_opposite_and_missing_vectors():
  vectors = np.array([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]])
  # The opposite vector is further from the first item than an item without a vector.
  assert mmr(np.zeros((1, 3)), vectors, trade_off=0.5, k=3).tolist() == [[0, 1, 2]]
  assert mmr(np.zeros((0, 3)), np.zeros((0, 3, 2)), trade_off=0.5, k=2).shape == (0, 2)
  nothing = np.zeros((1, 3), bool)
  assert mmr(np.zeros((1, 3)), vectors, trade_off=0.5, k=2, valid=nothing).tolist() == [[-1, -1]]


def test_lower_trade_offs_give_more_diverse_lists():
  rng = np.random.default_rng(4)
  scores = -np.arange(20.0) + np.zeros((200, 1))
  themes = rng.normal(size=(8, 6))[:, None] + 0.3 * rng.normal(size=(8, 25, 6))
  vectors = themes.reshape(200, 6)[np.sort(rng.integers(0, 200, (200, 20)), axis=1)]
  means = []
  for trade_off in (1.0, 0.8, 0.5):
    order = mmr(scores, vectors, trade_off=trade_off, k=10)
    chosen = np.take_along_axis(vectors, order[..., None], axis=1)
    means.append(float(intra_list_diversity(chosen, order >= 0, k=10).mean()))
  assert means[0] < means[1] < means[2] and means[2] > means[0] + 0.05


def test_invalid_input_is_named():
  scores, vectors = np.zeros((2, 3)), np.zeros((2, 3, 4))

  def call(scores=scores, vectors=vectors, trade_off=0.5, k=2, **more):
    return mmr(scores, vectors, trade_off=trade_off, k=k, **more)

  cases = [
    ("trade_off=1.5", {"trade_off": 1.5}),
    ("k=4", {"k": 4}),
    ("k=0", {"k": 0}),
    ("finite", {"scores": np.full((2, 3), np.nan)}),
    ("finite", {"vectors": vectors + np.inf}),
    ("vectors .2, 4. must be", {"vectors": vectors[:, 0]}),
    ("valid", {"valid": np.ones(2, bool)}),
    ("with items", {"items": np.zeros((2, 3), int)}),
    ("items must lie in 0…3", {"vectors": np.zeros((4, 2)), "items": np.full((2, 3), 4)}),
  ]
  for words, given in cases:
    with pytest.raises(InputError, match=words):
      call(**given)
