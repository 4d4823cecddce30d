"""Strategies as algorithms, over an oracle with known answers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.rerank.prompting.queries import log_softmax
from gatrec_jax.rerank.strategies.batchwise import batchwise
from gatrec_jax.rerank.strategies.label import cyclic_shifts, label, pointwise
from gatrec_jax.rerank.strategies.listwise import listwise
from gatrec_jax.rerank.strategies.pairwise import all_pairs, insertion_tree
from gatrec_jax.rerank.strategies.rank_aggregation import borda, true_skill
from gatrec_jax.rerank.strategies.registry import Options, make_strategy, unrelated_order
from gatrec_jax.rerank.strategies.relevancy import relevancy

TITLES = [f"Film {letter}" for letter in "abcdefghijklmnopqrst"]


class Oracle:
  """Answers queries from the known worth of each title to each user.

  Args: worth: for each user {title: number}. bias: [K], added to the logit of each letter.
  """

  def __init__(self, worth, bias=()):
    self.worth, self.bias = worth, np.zeros(60)
    self.bias[: len(bias)] = bias
    self.queried = []  # (user, titles) of all choices
    self.rounds = 0

  def choices(self, users, lists):
    self.rounds += 1
    found = []
    for user, several in zip(users, lists, strict=True):
      self.queried += [(user, tuple(titles)) for titles in several]
      logits = [[self.worth[user][title] for title in titles] for titles in several]
      logits = np.array(logits, np.float32).reshape(len(several), -1)
      found.append(log_softmax(logits + self.bias[: logits.shape[1]].astype(np.float32)))
    return found

  def own_labels(self, titles):
    return None

  def empty_choice(self, count):
    return log_softmax(self.bias[:count].astype(np.float32))

  def fits(self, users, lists):
    return [
      np.array([self.worth[user][title] for title in titles], np.float32)
      for user, titles in zip(users, lists, strict=True)
    ]

  def orders_of_titles(self, users, lists):
    return [np.argsort(-np.array(one)).tolist() for one in self.fits(users, lists)]

  def orders_of_letters(self, users, lists):
    return [
      self.orders_of_titles([user] * len(several), several)
      for user, several in zip(users, lists, strict=True)
    ]

  def ratings(self, users, lists):
    return [
      [[self.worth[user][title] for title in titles] for titles in several]
      for user, several in zip(users, lists, strict=True)
    ]


def two_users(count=20, seed=0):
  random = np.random.default_rng(seed)
  worth = [dict(zip(TITLES, random.permutation(20) * 1.5, strict=True)) for _ in range(2)]
  return worth, [TITLES[:count], TITLES[: count - 3][::-1]]


def order_of(scores):
  return np.argsort(-scores, kind="stable").tolist()


def true_order(worth, titles):
  return sorted(range(len(titles)), key=lambda place: -worth[titles[place]])


def test_shifts_by_hand():
  assert cyclic_shifts(5, 1).tolist() == [[0, 1, 2, 3, 4]]
  assert cyclic_shifts(5, 2).tolist() == [[0, 1, 2, 3, 4], [2, 3, 4, 0, 1]]
  assert cyclic_shifts(3, 7).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_label_by_hand():
  # Two titles, two shifts. Logits as given (2, 0) + bias (1, 0): ±3; turned (0, 2) + bias: ∓1.
  oracle = Oracle([{"x": 2.0, "y": 0.0}], bias=[1.0])
  (scores,) = label(oracle, [["x", "y"]], permutations=2)

  def log(d):
    return -math.log1p(math.exp(-d))  # log-probability of the one that is d ahead

  empty = [log(1), log(-1)]
  x = (log(3) - empty[0] + log(1) - empty[1]) / 2
  y = (log(-3) - empty[1] + log(-1) - empty[0]) / 2
  np.testing.assert_allclose(scores, [x, y], atol=1e-6)
  assert oracle.queried == [(0, ("x", "y")), (0, ("y", "x"))]


def test_the_bias_of_letters_is_removed():
  worth, candidates = two_users()
  bias = np.random.default_rng(1).normal(size=20) * 5
  plain = label(Oracle(worth), candidates, permutations=1)
  biased = label(Oracle(worth, bias), candidates, permutations=1)
  for one, other in zip(plain, biased, strict=True):
    # Equal up to a constant, the logarithm of the sum over letters.
    np.testing.assert_allclose(one - one.mean(), other - other.mean(), atol=1e-4)


def test_with_all_shifts_the_starting_position_does_not_matter():
  worth, candidates = two_users()
  bias = np.random.default_rng(1).normal(size=20)
  first = label(Oracle(worth, bias), candidates, permutations=20)
  rolled = label(Oracle(worth, bias), [one[7:] + one[:7] for one in candidates], permutations=20)
  for one, other in zip(first, rolled, strict=True):
    np.testing.assert_allclose(one, np.roll(other, 7), atol=1e-4)


@pytest.mark.parametrize(
  "rank",
  (
    pointwise,
    listwise,
    insertion_tree,
    all_pairs,
    relevancy,
    lambda oracle, candidates: label(oracle, candidates, permutations=3),
    lambda oracle, candidates: batchwise(oracle, candidates, merge=borda, size=20, stride=3),
    lambda oracle, candidates: batchwise(oracle, candidates, merge=true_skill, size=20, stride=3),
  ),
)
def test_scores_follow_the_order_of_the_oracle(rank):
  worth, candidates = two_users()
  scores = rank(Oracle(worth), candidates)
  for one, user, titles in zip(scores, worth, candidates, strict=True):
    assert one.dtype == np.float32 and one.shape == (len(titles),)
    assert order_of(one) == true_order(user, titles)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(20)), st.booleans())
def test_a_search_tree_sorts_and_compares_no_pair_twice(values, both_orders):
  worth = dict(zip(TITLES, map(float, values), strict=True))
  oracle = Oracle([worth], bias=[0.4] if both_orders else [])
  (scores,) = insertion_tree(oracle, [TITLES], both_orders=both_orders)
  assert order_of(scores) == true_order(worth, TITLES)
  np.testing.assert_allclose(sorted(scores), 1 / np.arange(20, 0, -1), rtol=1e-6)
  compared = [frozenset(titles) for _, titles in oracle.queried]
  each = 2 if both_orders else 1
  assert all(compared.count(pair) == each for pair in set(compared))
  # The comparisons are those of sequential insertion.
  tree, expected = [], set()
  for title in TITLES:
    expected |= {frozenset((title, root)) for root in path(tree, title, worth)}
    tree.append(title)
  assert set(compared) == expected


def path(inserted, title, worth):
  """The titles that `title` passes on its way down a tree of `inserted`, by definition."""
  met, low, high = [], -math.inf, math.inf
  for root in inserted:
    if low < worth[root] < high:  # a root on the way: nothing inserted lies between them yet
      met.append(root)
      if worth[title] < worth[root]:
        high = worth[root]
      else:
        low = worth[root]
  return met


def test_a_search_tree_takes_n_log_n_comparisons_in_few_rounds():
  counts, rounds = [], []
  for seed in range(30):
    oracle = Oracle([dict(zip(TITLES, np.random.default_rng(seed).permutation(20), strict=True))])
    insertion_tree(oracle, [TITLES], both_orders=False)
    counts.append(len(oracle.queried))
    rounds.append(oracle.rounds)
  # Expected comparisons of a tree of 20: 2·21·H(20) - 80 = 71.1 (Knuth, vol. 3, §6.2.2).
  assert np.mean(counts) == pytest.approx(71.1, abs=4) and max(rounds) <= 14
  # The trees of all users grow in the same rounds.
  both = Oracle([dict(zip(TITLES, sign * np.arange(20), strict=True)) for sign in (1, -1)])
  insertion_tree(both, [TITLES, TITLES], both_orders=False)
  assert both.rounds == 19 and len(both.queried) == 2 * 190


def test_ties_keep_the_order_of_insertion_and_both_orders_cancel_the_bias():
  equal = [dict.fromkeys(TITLES[:5], 1.0)]
  (scores,) = insertion_tree(Oracle(equal, bias=[3.0]), [TITLES[:5]])
  assert order_of(scores) == [0, 1, 2, 3, 4]
  # With one order only, letter A always wins, which puts later candidates first.
  (scores,) = insertion_tree(Oracle(equal, bias=[3.0]), [TITLES[:5]], both_orders=False)
  assert order_of(scores) != [0, 1, 2, 3, 4]


def test_all_pairs_by_hand():
  # Log-odds are differences of worth: 3·2 - (0 + 5) = 1, 3·0 - 7 = -7, …
  oracle = Oracle([{"x": 2.0, "y": 0.0, "z": 5.0}], bias=[0.7])
  (scores,) = all_pairs(oracle, [["x", "y", "z"]])
  np.testing.assert_allclose(scores, [-1, -7, 8], atol=1e-5)
  assert len(oracle.queried) == 6 and oracle.rounds == 1
  (scores,) = all_pairs(oracle, [["x", "y", "z"]], both_orders=False)
  np.testing.assert_allclose(scores, [-1 + 1.4, -7, 8 - 1.4], atol=1e-5)


def test_batchwise_by_hand():
  worth = dict(zip("abcdef", (5, 4, 3, 2, 1, 0), strict=True))
  (scores,) = batchwise(Oracle([worth]), [list("abcdef")], merge=borda, size=4, stride=2)
  # abcd and cdef: c is third of the first and first of the second, (1/3 + 1) / 2.
  np.testing.assert_allclose(scores, [1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)


def test_relevancy_is_a_mean():
  oracle = Oracle([{}])
  oracle.ratings = lambda users, lists: [[[10, 20, 30], [50, 70, 90]]]
  (scores,) = relevancy(oracle, [list("abcd")], size=3, stride=1)
  np.testing.assert_allclose(scores, [10, 35, 50, 90])


def test_the_order_depends_only_on_the_titles():
  shuffled = np.random.default_rng(0).permutation(20)
  first = [TITLES[place] for place in unrelated_order(TITLES)]
  other = [TITLES[place] for place in shuffled]
  assert [other[place] for place in unrelated_order(other)] == first
  assert first != TITLES and sorted(first) == TITLES
  places = [unrelated_order([f"{n} {title}" for title in TITLES])[0] for n in range(40)]
  assert len(set(places)) > 10  # not always the same place first


def test_options_are_checked():
  for fields, message in (
    ({"permutations": 0}, "permutations=0"),
    ({"form": "tree"}, "form=tree: not one of bst, all"),
    ({"merge": "mean"}, "merge=mean: not one of borda, trueskill"),
    ({"batch": 1}, "batch=1: must be at least 2"),
    ({"stride": 5}, "stride=5: must be at least 1 and below `batch=5`"),
  ):
    with pytest.raises(InputError, match=message):
      Options(**fields)
  with pytest.raises(InputError, match="strategy=best: not one of label, pointwise, listwise"):
    make_strategy("best", None)
