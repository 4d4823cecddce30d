"""Fusion: scores by hand, the base's order without evidence, and gains with it."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.metrics import ndcg
from gatrec_jax.rerank.fusion.fuse import apply_fusion, contributions, cross_fit, fit_fusion
from gatrec_jax.rerank.fusion.linear import fit_linear
from gatrec_jax.rerank.fusion.rules import (
  Rule,
  ScaledScores,
  fuse_scores,
  order_of,
  reciprocal_ranks,
  scale_scores,
  z_scores,
)
from gatrec_jax.rerank.fusion.selection import METHODS, WEIGHTS

NAN = float("nan")
SINGLE = ("zscore", "reciprocal", "linear")  # "auto" learns all three of them
CANDIDATES = 20


def lists(seed, *, users=300, helps=0.0):
  """Candidates whose probability of relevance falls with the rank, and scores of another ranker.

  Args: helps: how much the ranker knows about relevance.
  Returns: base, llm, relevant [m, K] and num_relevant [m]; a few relevant items are no candidates.
  """
  rng = np.random.default_rng(seed)
  chance = 0.45 * np.exp(-np.arange(CANDIDATES) / 9) + 0.05
  relevant = rng.random((users, CANDIDATES)) < chance
  llm = rng.normal(size=relevant.shape) + helps * relevant
  base = np.broadcast_to(np.linspace(3, -1, CANDIDATES), relevant.shape).astype(np.float32)
  return base, llm.astype(np.float32), relevant, relevant.sum(axis=1) + rng.integers(0, 3, users)


def gain_of(scores, base, relevant, num_relevant):
  """Mean NDCG@10 of the scores minus that of the base, over users with relevant items."""

  def value(table):
    hits = np.take_along_axis(relevant, order_of(np.asarray(table, np.float64)), axis=1)
    return np.asarray(ndcg(hits, num_relevant, k=10))[num_relevant > 0].mean()

  return value(scores) - value(base)


def test_z_scores_by_hand():
  values = np.array([[1.0, 3.0, NAN, 50.0], [0.1, 0.1, 0.1, 0.1], [NAN, 7.0, NAN, NAN]])
  valid = np.array([[True, True, True, False], [True] * 4, [True] * 4])
  # 1 and 3 have mean 2 and deviation 1. Absent and invalid items get 0, as do equal values and a
  # single one.
  expected = [[-1.0, 1.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4]
  assert z_scores(values, valid).tolist() == expected
  assert z_scores(np.full((1, 3), 0.1, np.float32), np.ones((1, 3), bool)).tolist() == [[0.0] * 3]


def test_reciprocal_ranks_by_hand():
  values = np.array([[0.5, 9.0, NAN, 0.5, 99.0]])
  valid = np.array([[True, True, True, True, False]])
  # Rank 1 for 9; the other two share ranks 2 and 3.
  expected = [[1 / 62.5, 1 / 61, 0.0, 1 / 62.5, 0.0]]
  assert reciprocal_ranks(values, valid) == pytest.approx(np.array(expected))
  assert not reciprocal_ranks(np.full((2, 3), NAN), np.ones((2, 3), bool)).any()


def test_fused_scores_by_hand():
  base, valid = np.array([[3.0, 1.0, 0.0]]), np.array([[True, True, False]])
  llm = {"llm": np.array([[2.0, 4.0, 9.0]])}

  def score(rule):
    return fuse_scores(
      scale_scores(rule.method, base, llm, names=["llm"], valid=valid),
      rule,
      names=["llm"],
      valid=valid,
    ).tolist()

  assert score(Rule("zscore", {"llm": 0.5})) == [[0.5, -0.5, -np.inf]]
  expected = [1 / 61 + 3 / 62, 1 / 62 + 3 / 61]
  assert score(Rule("reciprocal", {"llm": 3.0}))[0][:2] == pytest.approx(expected)
  # −log 1 and −log 2 are one deviation from their mean, like the scores.
  assert score(Rule("linear", {"llm": -1.0}, 0.25))[0][:2] == pytest.approx([2.0, -2.0])


def test_base_items_with_equal_scores_keep_their_order_in_every_method():
  base = np.zeros((1, 4))
  for method in ("zscore", "reciprocal", "linear"):
    valid = np.ones((1, 4), bool)
    scaled = scale_scores(method, base, {"llm": base}, names=["llm"], valid=valid)
    scores = fuse_scores(scaled, Rule(method, {"llm": 1.0}), names=["llm"], valid=valid)
    assert order_of(scores).tolist() == [[0, 1, 2, 3]]


def test_linear_weights_minimize_the_loss():
  base, llm, relevant, _ = lists(0, helps=0.8)
  valid = np.random.default_rng(1).random(relevant.shape) < 0.9
  scaled = scale_scores("linear", base, {"llm": llm}, names=["llm"], valid=valid)
  rows = np.arange(len(base)) % 3 > 0
  (weight,), share = fit_linear(scaled, relevant, valid=valid, rows=rows)
  teaches = rows & (relevant & valid).any(axis=1)
  target = (relevant & valid)[teaches] / (relevant & valid)[teaches].sum(axis=1, keepdims=True)

  def entropy(base_weight, weight):
    mixed = (1 - share) * scaled.base + share * scaled.log_ranks
    scores = np.where(valid, base_weight * mixed + weight * scaled.features[0], -np.inf)[teaches]
    log = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return -(target * np.where(target > 0, log, 0.0)).sum(axis=1).mean()

  grid = np.linspace(0.05, 2, 79)
  alone = grid[np.argmin([entropy(w, 0.0) for w in grid])]
  ridge = 20 / (2 * teaches.sum())

  def whole(a, w):
    return entropy(a, w) + ridge * ((a - alone) ** 2 + w**2)

  best = min(((a, w) for a in grid for w in np.linspace(0, 1, 41)), key=lambda one: whole(*one))
  assert weight == pytest.approx(best[1] / best[0], abs=0.06)
  assert 0 <= share <= 1 and 0.2 < weight < 2


def test_linear_weights_in_edge_cases():
  base, llm, relevant, _ = lists(0, users=40, helps=1.0)
  valid = np.ones(base.shape, bool)
  scaled = scale_scores("linear", base, {"llm": llm}, names=["llm"], valid=valid)
  everyone = np.ones(40, bool)
  nobody = fit_linear(scaled, relevant, valid=valid, rows=~everyone)
  assert nobody[0].tolist() == [0.0] and nobody[1] == 0.0
  assert fit_linear(scaled, ~valid, valid=valid, rows=everyone)[0].tolist() == [0.0]
  # A constant ranker gets weight 0, and a reversed one a negative weight.
  silent = ScaledScores(scaled.base, scaled.log_ranks, 0 * scaled.features)
  assert fit_linear(silent, relevant, valid=valid, rows=everyone)[0].tolist() == [0.0]
  turned = ScaledScores(scaled.base, scaled.log_ranks, -scaled.features)
  forth, back = (fit_linear(p, relevant, valid=valid, rows=everyone)[0] for p in (scaled, turned))
  assert forth == pytest.approx(-back, rel=1e-3) and forth[0] > 0
  # If the base is reversed, the weight of a feature is limited to ten times that of the base.
  upside = scale_scores("linear", -base, {"llm": llm}, names=["llm"], valid=valid)
  weights, share = fit_linear(upside, relevant, valid=valid, rows=everyone)
  assert weights == pytest.approx([10.0]) and share == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_an_uninformative_ranker_leaves_scores_and_order_unchanged(method):
  base, llm, relevant, num_relevant = lists(3)
  # Equal scores and short lists must stay unchanged, too.
  base = np.round(base, 0)
  valid = np.arange(CANDIDATES) < np.random.default_rng(0).integers(11, 21, len(base))[:, None]
  fusion = fit_fusion(
    base, {"llm": llm}, relevant & valid, num_relevant, valid=valid, method=method
  )
  assert fusion.keeps_base and fusion.weights == {"all": {"llm": 0.0}}
  assert fusion.gain.lo <= 0 and fusion.gain.n == (num_relevant > 0).sum()
  scores = apply_fusion(fusion, base, {"llm": llm}, valid=valid)
  assert scores[valid].tobytes() == base[valid].astype(np.float64).tobytes()
  assert (scores[~valid] == -np.inf).all()
  assert (order_of(scores) == np.arange(CANDIDATES)).all()
  line = fusion.says()
  assert line.startswith("the LLM does not help on validation (gain ") and "\n" not in line
  assert line.endswith(f"over {fusion.gain.n} users): the order of the GAT is kept")


@pytest.mark.parametrize("method", METHODS)
def test_an_informative_ranker_gains_on_other_users(method):
  base, llm, relevant, num_relevant = lists(4, helps=0.7)
  fusion = fit_fusion(base, {"llm": llm}, relevant, num_relevant, method=method)
  weight = fusion.weights["all"]["llm"]
  assert weight > 0 and fusion.gain.lo > 0 and fusion.tried > 1
  assert fusion.method == method and (method == "linear" or weight in WEIGHTS or method == "auto")
  other = lists(5, users=2000, helps=0.7)
  scores = apply_fusion(fusion, other[0], {"llm": other[1]})
  found = gain_of(scores, other[0], *other[2:])
  assert found > 0.02
  # The cross-fitted gain agrees with the gain on new users up to chance.
  assert fusion.gain.lo - 0.01 < found < fusion.gain.hi + 0.01
  assert fusion.says().startswith(f"the LLM with the GAT: {fusion.rules['all'].method}, llm ×")


@pytest.mark.parametrize("method", SINGLE)
def test_contributions_sum_to_the_fused_scores(method):
  rng = np.random.default_rng(4)
  base, llm = rng.normal(size=(2, 100, 6))
  relevant = llm > 1
  fusion = fit_fusion(base, {"llm": llm}, relevant, relevant.sum(axis=1), method=method)
  added = contributions(fusion, base, {"llm": llm})
  assert not fusion.keeps_base and list(added) == ["base", "llm"] and added["llm"].any()
  scaled = scale_scores(method, base, {"llm": llm}, names=("llm",), valid=np.ones(base.shape, bool))
  rule = fusion.rules["all"]
  own = fuse_scores(scaled, rule, names=("llm",), valid=np.ones(base.shape, bool))
  np.testing.assert_allclose(added["base"] + added["llm"], own, rtol=1e-12)
  np.testing.assert_array_equal(apply_fusion(fusion, base, {"llm": llm}), sum(added.values()))


def test_noise_is_rarely_accepted_and_costs_little():
  accepted, effects = 0, []
  # 60 rounds of a longer simulation (launch/benchmarks/RESULTS.md), as an alarm.
  for seed in range(60):
    base, llm, relevant, num_relevant = lists(100 + seed, users=150)
    for method in ("zscore", "reciprocal"):
      fusion = fit_fusion(base, {"llm": llm}, relevant, num_relevant, method=method, seed=seed)
      if not fusion.keeps_base:
        accepted += 1
        other = lists(10_000 + seed, users=1000)
        scores = apply_fusion(fusion, other[0], {"llm": other[1]})
        effects.append(gain_of(scores, other[0], *other[2:]))
  # At most 2.5 % are expected: 3 ± 1.7 of 120.
  assert accepted <= 9
  assert sum(effects) / 120 > -0.0005


def test_the_gain_is_cross_fitted_and_not_the_best_in_sample():
  # The in-sample maximum over weights is never below 0; the cross-fitted gain of noise often is.
  below = sum(
    fit_fusion(base, {"llm": llm}, relevant, n, method="zscore", seed=seed).gain.mean < 0
    for seed in range(12)
    for base, llm, relevant, n in [lists(seed, users=100)]
  )
  assert below >= 5


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from(["zscore", "reciprocal"]))
def test_scale_and_order_of_users_do_not_matter(seed, method):
  base, llm, relevant, num_relevant = lists(seed, users=60, helps=1.0)

  def fit(base, llm):
    return fit_fusion(base, {"llm": llm}, relevant, num_relevant, method=method)

  plain, scaled = fit(base, llm), fit(base * 2 + 5, llm * 4 - 3)
  assert plain.weights == scaled.weights
  one = apply_fusion(plain, base, {"llm": llm})
  shuffled = np.random.default_rng(seed).permutation(60)
  other = apply_fusion(plain, base[shuffled], {"llm": llm[shuffled]})
  assert np.array_equal(one[shuffled], other)


def test_users_without_a_relevant_item_are_ignored():
  base, llm, relevant, num_relevant = lists(6, helps=0.7)
  silent = np.arange(len(base)) % 2 == 0
  relevant[silent], num_relevant[silent] = False, 0
  fusion = fit_fusion(base, {"llm": llm}, relevant, num_relevant, method="zscore")
  assert fusion.gain.n == (num_relevant > 0).sum() <= 150


@pytest.mark.parametrize("users", [0, 1, 20])
def test_weights_are_zero_with_few_users(users):
  base, llm, relevant, num_relevant = lists(7, users=users, helps=5.0)
  fusion = fit_fusion(base, {"llm": llm}, relevant, num_relevant, method="auto")
  assert fusion.keeps_base
  counted = (num_relevant > 0).sum()
  assert f"(only {counted} users with a relevant item, at least 30 are needed)" in fusion.says()
  assert apply_fusion(fusion, base, {"llm": llm}).shape == base.shape


def test_an_absent_or_constant_ranker_leaves_the_order():
  base, llm, relevant, num_relevant = lists(8)
  for values in (np.full_like(llm, NAN), np.zeros_like(llm)):
    for method in SINGLE:
      fusion = fit_fusion(base, {"llm": values}, relevant, num_relevant, method=method)
      assert fusion.keeps_base and fusion.gain.mean == 0.0 and fusion.gain.p_value == 1.0


def test_the_ranker_may_lack_scores_of_some_items():
  base, llm, relevant, num_relevant = lists(9, helps=1.0)
  llm[:, 10:] = NAN
  for method in SINGLE:
    fusion = fit_fusion(base, {"llm": llm}, relevant, num_relevant, method=method)
    scores = apply_fusion(fusion, base, {"llm": llm})
    assert fusion.gain.lo > 0 and np.isfinite(scores).all()


def test_several_features_find_the_one_that_helps():
  base, llm, relevant, num_relevant = lists(10, helps=0.8)
  noise = np.random.default_rng(0).normal(size=llm.shape)
  for method in SINGLE:
    fusion = fit_fusion(base, {"recency": noise, "llm": llm}, relevant, num_relevant, method=method)
    weights = fusion.weights["all"]
    assert list(weights) == ["recency", "llm"] and weights["llm"] > 4 * abs(weights["recency"])
    # Unknown features are ignored, in any order.
    known = apply_fusion(fusion, base, {"recency": noise, "llm": llm})
    more = apply_fusion(fusion, base, {"llm": llm, "text": noise, "recency": noise})
    assert np.array_equal(known, more)
  useless = {"recency": noise, "llm": noise[::-1]}
  nothing = fit_fusion(base, useless, relevant, num_relevant, method="linear")
  assert nothing.says().startswith("recency and the LLM do not help on validation")


def test_a_segment_gets_its_own_rule_if_validation_supports_it():
  base, llm, relevant, num_relevant = lists(11, users=700)
  cold = np.arange(700) % 3 == 0
  llm = llm + 1.5 * relevant * cold[:, None]
  segments = np.where(cold, "cold", "warm")

  def fit(segments):
    return fit_fusion(
      base, {"llm": llm}, relevant, num_relevant, method="zscore", segments=segments
    )

  fusion = fit(segments)
  general, own = fusion.rules["all"].weights["llm"], fusion.rules["cold"].weights["llm"]
  assert own > general and fusion.segment_gains["cold"].lo > 0
  assert "cold users: zscore, llm × " in fusion.says()
  scores = apply_fusion(fusion, base, {"llm": llm}, segments=segments)
  unknown = apply_fusion(fusion, base, {"llm": llm}, segments=np.full(700, "new"))
  plain = apply_fusion(fusion, base, {"llm": llm})
  assert np.array_equal(unknown, plain)
  warm_too = "warm" in fusion.rules
  assert np.array_equal(scores[~cold], plain[~cold]) != warm_too
  assert not np.array_equal(scores[cold], plain[cold])
  # Small segments, and segments like the others, use the rule for all.
  assert list(fit(np.where(np.arange(700) < 20, "cold", "warm")).segment_gains) == ["warm"]
  assert list(fit(np.arange(700) % 2).rules) == ["all"]


def test_cross_fitted_scores_do_not_depend_on_their_own_users():
  base, llm, relevant, num_relevant = lists(12, helps=0.7)
  settings = {"method": "zscore", "parts": 3, "seed": 4}
  scores, fusions = cross_fit(base, {"llm": llm}, relevant, num_relevant, **settings)
  assert len(fusions) == 3 and all(not fusion.keeps_base for fusion in fusions)
  assert gain_of(scores, base, relevant, num_relevant) > 0.02
  # Changing the relevant items of a user can only change scores of users in other scaled.
  turned = relevant.copy()
  turned[0] = ~turned[0]
  counts = np.maximum(num_relevant, turned.sum(axis=1))
  other, _ = cross_fit(base, {"llm": llm}, turned, counts, **settings)
  assert np.array_equal(scores[0], other[0])
  again, _ = cross_fit(base, {"llm": llm}, relevant, num_relevant, **settings)
  assert np.array_equal(scores, again)
  with pytest.raises(InputError, match="parts=1"):
    cross_fit(base, {"llm": llm}, relevant, num_relevant, method="zscore", parts=1)


def test_a_fusion_is_written_as_plain_values():
  base, llm, relevant, num_relevant = lists(13, helps=0.7)
  fusion = fit_fusion(
    base, {"llm": llm}, relevant, num_relevant, method="linear", segments=np.arange(300) % 2
  )
  tree = fusion.to_json()
  assert json.loads(json.dumps(tree)) == tree
  assert tree["rules"]["all"]["weights"] == fusion.weights["all"]
  assert tree["gain"]["lo"] == fusion.gain.lo and set(tree["segment_gains"]) == {"0", "1"}


def test_invalid_input_is_named():
  base, llm, relevant, num_relevant = lists(14, users=40)

  def fit(base=base, llm=llm, relevant=relevant, num=num_relevant, **more):
    return fit_fusion(base, {"llm": llm}, relevant, num, **more)

  cases = [
    ("'borda': not one of zscore, reciprocal, linear, auto", {"method": "borda"}),
    ("folds=1", {"folds": 1}),
    ("llm has shape", {"llm": llm[:, 1:]}),
    ("llm has non-finite values", {"llm": np.where(llm > 1, np.inf, llm)}),
    ("base has non-finite values", {"base": np.where(base > 1, NAN, base)}),
    ("num_relevant is less than", {"num": num_relevant * 0}),
    ("relevant .* must be", {"relevant": relevant[:-1]}),
    ("valid", {"valid": np.ones((3, 3), bool)}),
    ("segments have shape", {"segments": np.arange(3)}),
    ("no segment may be named 'all'", {"segments": np.full(40, "all")}),
  ]
  for words, given in cases:
    with pytest.raises(InputError, match=words):
      fit(**given)
  with pytest.raises(InputError, match="at least one feature"):
    fit_fusion(base, {}, relevant, num_relevant)
  with pytest.raises(InputError, match="llm, which is missing"):
    apply_fusion(fit(), base, {"popularity": llm})
