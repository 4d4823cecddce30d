"""Models that are fitted as a whole, against hand-solved cases, naive numpy and scikit-learn."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.models import (
  AdmmSlimConfig,
  ContentKnnConfig,
  EaseConfig,
  ItemKnnConfig,
  PopularityConfig,
  SlimConfig,
  TextRidgeConfig,
)
from gatrec_jax.config.sequences import MarkovConfig, RecentPopularityConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.baselines import item_item
from gatrec_jax.models.baselines.slim import nonnegative_elastic_net
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.models.registry import make_recommender

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "slim.npz")
KEY = jax.random.key(0)
# Items 0 and 1 stand together twice, 0 and 2 once, 1 and 2 once; user 4 likes nothing.
SMALL = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)


def table(users=40, items=12, seed=0):
  rng = np.random.default_rng(seed)
  liked = rng.random((users, items)) < rng.random(items) * 0.6
  liked[3] = False  # no history
  liked[:, -1] = False  # a cold item
  return liked


def prepare(settings, liked, text=None):
  """The recommender and its inputs; every user also rated something that they did not like."""
  user, item = np.nonzero(np.ones_like(liked))
  rows = Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=np.where(liked, 5, 2).ravel().astype(np.float32),
    timestamp=np.zeros(liked.size, np.int64),
    user_ids=tuple(map(str, range(len(liked)))),
    item_ids=tuple(map(str, range(liked.shape[1]))),
  )
  recommender = make_recommender(settings, num_users=len(liked), num_items=liked.shape[1])
  if text is None:
    text = np.zeros((liked.shape[1], 1), np.float32)
  text = np.concatenate([np.ones((len(liked), text.shape[1])), text])  # users' must not be read
  return recommender, make_inputs(recommender, rows, text=text)


def fitted(settings, liked, text=None):
  recommender, inputs = prepare(settings, liked, text)
  return recommender, inputs, jax.jit(recommender.fit)(inputs, KEY)


def weights_of(settings, liked, text=None):
  return np.asarray(fitted(settings, liked, text)[2]["weights"]).reshape(-1, liked.shape[1])


def all_scores(recommender, inputs, params):
  users = jnp.arange(recommender.num_users)
  return np.asarray(
    jax.jit(lambda p, i: recommender.score(recommender.serving_state(p, i), users))(params, inputs)
  )


def texts(items=12, width=5, seed=1):
  return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


def numpy_ease(liked, l2):
  x = liked.astype(np.float64)
  inverse = np.linalg.inv(x.T @ x + l2 * np.eye(x.shape[1]))
  weights = -inverse / np.diag(inverse)
  np.fill_diagonal(weights, 0)
  return weights


def numpy_ridge(text, targets, warm, l2):
  """Predictions for all items of targets [I, F]."""
  text, targets = text.astype(np.float64), np.asarray(targets, np.float64)
  text = text - text[warm].mean(axis=0)
  mean = targets[warm].mean(axis=0)
  normal = text[warm].T @ text[warm] + l2 * np.eye(text.shape[1])
  return text @ np.linalg.solve(normal, text[warm].T @ (targets[warm] - mean)) + mean


ALL = [
  PopularityConfig(),
  ItemKnnConfig(4, 2.0),
  EaseConfig(5.0),
  SlimConfig(0.05, 0.1),
  AdmmSlimConfig(l1=0.5, l2=3.0, rho=10.0, iterations=20),
  ContentKnnConfig(3, 2.0),
  TextRidgeConfig("ease", text_l2=1.0, ease_l2=5.0),
  TextRidgeConfig("ials", text_l2=1.0, ials_l2=0.01, width=4, iterations=3),
  MarkovConfig(),
  RecentPopularityConfig(),
]


@pytest.mark.parametrize("settings", ALL, ids=lambda s: f"{s.kind}-{getattr(s, 'factors', '')}")
def test_the_interface(settings):
  liked = table()
  recommender, inputs, params = fitted(settings, liked, texts())
  serving_state = jax.jit(recommender.serving_state)(params, inputs)
  score = jax.jit(recommender.score)
  scores = np.asarray(score(serving_state, jnp.arange(len(liked), dtype=jnp.int32)))
  assert scores.shape == liked.shape and scores.dtype == np.float32
  assert np.isfinite(scores).all()
  np.testing.assert_allclose(score(serving_state, jnp.array([6, 5])), scores[[6, 5]], atol=1e-5)
  if settings.kind not in ("popularity", "recent_popularity"):
    assert (scores[3] == 0).all()  # nothing is known of who has no history
    assert np.ptp(scores[0]) > 1e-3
  new = NewUsers(
    [np.flatnonzero(row) for row in liked[[0, 3, 7]]],
    [np.zeros(0, np.int64)] * 3,
    np.zeros((3, 5), np.float32),
    5.0,
    2.0,
  )
  np.testing.assert_allclose(
    recommender.score_new(params, inputs, serving_state, new),
    scores[[0, 3, 7]],
    rtol=2e-3,
    atol=2e-4,
  )
  if "weights" in params:
    weights = np.asarray(params["weights"], np.float64).reshape(-1, liked.shape[1])
    np.testing.assert_allclose(scores, liked @ weights, rtol=1e-4, atol=1e-5)
    assert (np.diag(weights) == 0).all()
  shapes = jax.eval_shape(recommender.fit, inputs, KEY)
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, params)


def test_gram_is_the_same_in_chunks(monkeypatch):
  liked = table(users=41)
  _, inputs = prepare(EaseConfig(), liked)
  expected = liked.T.astype(int) @ liked.astype(int)
  for values, chunks in ((2**25, 1), (12 * 7, 6), (1, 41)):
    monkeypatch.setattr(item_item, "CHUNK_VALUES", values)
    assert item_item.user_chunks(41, 12).shape[0] == chunks
    np.testing.assert_array_equal(item_item.gram(inputs, num_items=12), expected)


def test_popularity_counts_positives():
  _, _, params = fitted(PopularityConfig(), SMALL)
  assert params["count"].tolist() == [3, 2, 2]


def test_item_knn_by_hand():
  # Norms are √3, √2, √2.
  pairs = {(0, 1): 2 / (6**0.5 + 1), (0, 2): 1 / (6**0.5 + 1), (1, 2): 1 / 3}
  expected = np.zeros((3, 3))
  for (i, j), value in pairs.items():
    expected[i, j] = expected[j, i] = value
  np.testing.assert_allclose(weights_of(ItemKnnConfig(9, 1.0), SMALL), expected, rtol=1e-6)
  # The nearest of 0 is 1, of 1 is 0, of 2 is 1 (.333 > .290): each column keeps one.
  best = np.zeros((3, 3))
  for row, column in ((1, 0), (0, 1), (1, 2)):
    best[row, column] = expected[row, column]
  np.testing.assert_allclose(weights_of(ItemKnnConfig(1, 1.0), SMALL), best, rtol=1e-6)


def test_item_knn_without_shrinkage_survives_a_cold_item():
  weights = weights_of(ItemKnnConfig(4), table())
  assert np.isfinite(weights).all() and (weights[:, -1] == 0).all() and (weights[-1] == 0).all()
  assert (weights > 0).sum(axis=0).max() == 4


def test_ease_by_hand():
  # G + I = [[4, 2, 1], [2, 3, 1], [1, 1, 3]]; adjugate [[8, −5, −1], [−5, 11, −2], [−1, −2, 8]].
  expected = [[0, 5 / 11, 1 / 8], [5 / 8, 0, 2 / 8], [1 / 8, 2 / 11, 0]]
  np.testing.assert_allclose(weights_of(EaseConfig(1.0), SMALL), expected, rtol=1e-5)


@pytest.mark.parametrize("l2", [0.5, 30.0])
def test_ease_is_the_inverse(l2):
  liked = table(80, 30)
  np.testing.assert_allclose(weights_of(EaseConfig(l2), liked), numpy_ease(liked, l2), atol=2e-5)


def test_a_sweep_over_penalties_equals_single_fits():
  liked = table()
  _, inputs = prepare(EaseConfig(), liked)

  for settings_of, values in (
    (EaseConfig, (1.0, 10.0, 100.0)),
    (lambda alpha: SlimConfig(alpha, 0.1), (0.02, 0.2)),
  ):

    def fit(value, settings_of=settings_of):
      recommender = make_recommender(settings_of(value), num_users=40, num_items=12)
      return recommender.fit(inputs, KEY)["weights"]

    single = jax.jit(fit)
    for value, weights in zip(values, jax.jit(jax.vmap(fit))(jnp.array(values)), strict=True):
      np.testing.assert_allclose(weights, single(value), atol=2e-6)


def test_slim_equals_scikit_learn():
  liked = GOLDEN["liked"]
  _, inputs = prepare(SlimConfig(), liked)

  @jax.jit
  def fit(alpha, l1_ratio, tolerance):
    settings = SlimConfig(alpha, l1_ratio, iterations=2000, tolerance=tolerance)
    recommender = make_recommender(settings, num_users=liked.shape[0], num_items=liked.shape[1])
    return recommender.fit(inputs, KEY)["weights"]

  for penalties, expected in zip(GOLDEN["penalties"], GOLDEN["weights"], strict=True):
    weights = np.asarray(fit(*penalties, 1e-7))
    np.testing.assert_allclose(weights, expected, atol=5e-6)
    sure = expected > 1e-4
    assert sure.any() and (weights[sure] > 0).all() and (weights[expected == 0] < 1e-5).all()
    # With the default tolerance it ends earlier, and near.
    np.testing.assert_allclose(fit(*penalties, SlimConfig().tolerance), expected, atol=2e-3)


def slack(liked, weights, l1, l2):
  """By how much the conditions of the optimum are missed, relative to the item counts."""
  x, w = liked.astype(np.float64), weights.astype(np.float64)
  gradient = x.T @ (x @ w - x) + l2 * w + l1
  free = ~np.eye(len(w), dtype=bool)
  missed = np.where(w > 0, np.abs(gradient), np.maximum(-gradient, 0))
  return (missed / np.maximum(x.sum(axis=0), 1))[free].max()


def test_slim_meets_the_conditions_of_the_optimum():
  liked = table(80, 30)
  together = np.float32(liked.T.astype(int) @ liked.astype(int))
  options = {"l1": 0.5, "l2": 3.0, "tolerance": 1e-7}
  weights = np.asarray(nonnegative_elastic_net(together, iterations=2000, **options))
  assert (weights >= 0).all() and (np.diag(weights) == 0).all() and (weights > 0).mean() > 0.1
  assert slack(liked, weights, 0.5, 3.0) < 2e-5
  early = np.asarray(nonnegative_elastic_net(together, iterations=3, **options))
  assert slack(liked, early, 0.5, 3.0) > 1e-2


@pytest.mark.parametrize("nonnegative", [True, False])
def test_admm_slim_equals_a_plain_loop(nonnegative):
  liked = table(80, 30)
  settings = AdmmSlimConfig(0.7, 20.0, 0.5, 12.0, 15, nonnegative)
  x = liked.astype(np.float64)
  together, rho = x.T @ x, settings.rho
  inverse = np.linalg.inv(
    together + np.diag(settings.l2 * x.mean(axis=0) ** settings.item_power + rho)
  )
  sparse, multipliers = np.zeros_like(together), np.zeros_like(together)
  for _ in range(settings.iterations):
    dense = inverse @ (together + rho * sparse - multipliers)
    dense -= inverse * (np.diag(dense) / np.diag(inverse))
    target = dense + multipliers / rho
    sparse = np.sign(target) * np.maximum(np.abs(target) - settings.l1 / rho, 0)
    if nonnegative:
      sparse = np.maximum(sparse, 0)
    multipliers += rho * (dense - sparse)
  np.testing.assert_allclose(weights_of(settings, liked), sparse, atol=2e-5)
  assert (sparse < 0).any() != nonnegative


def test_admm_slim_comes_to_the_optimum_of_slim():
  liked = table(80, 30)
  missed = [
    slack(liked, weights_of(AdmmSlimConfig(0.5, 3.0, 0.0, 20.0, steps), liked), 0.5, 3.0)
    for steps in (5, 30, 400)
  ]
  assert missed[0] > missed[1] > missed[2] and missed[2] < 1e-3


def test_content_knn():
  text = np.float32([[2, 0], [3, 4], [0, 1], [-1, 0], [0, 0]])
  liked = np.ones((2, 5), bool)
  expected = np.zeros((5, 5))
  expected[0, 1] = expected[1, 0] = 0.6**2
  expected[1, 2] = expected[2, 1] = 0.8**2
  np.testing.assert_allclose(weights_of(ContentKnnConfig(0, 2.0), liked, text), expected, atol=1e-6)
  expected[0, 1] = 0  # item 1 keeps the nearer one of its two
  np.testing.assert_allclose(weights_of(ContentKnnConfig(1, 2.0), liked, text), expected, atol=1e-6)


def test_text_ridge_of_ease_equals_naive_predictions():
  liked, text = table(), texts()
  warm = liked.any(axis=0)
  recommender, inputs, params = fitted(
    TextRidgeConfig("ease", text_l2=2.0, ease_l2=5.0), liked, text
  )
  weights = numpy_ridge(text, numpy_ease(liked, 5.0).T, warm, 2.0).T
  scores = all_scores(recommender, inputs, params)
  np.testing.assert_allclose(scores, liked @ weights, atol=2e-4)
  assert not warm[-1] and np.ptp(scores[:, -1]) > 1e-3  # the cold item is served


def test_text_ridge_of_ials_equals_naive_predictions():
  liked, text = table(), texts()
  settings = TextRidgeConfig("ials", text_l2=2.0, ials_l2=0.01, width=4, iterations=3)
  recommender, inputs, params = fitted(settings, liked, text)
  items = numpy_ridge(text, params["item"], liked.any(axis=0), 2.0)
  scores = all_scores(recommender, inputs, params)
  np.testing.assert_allclose(scores, np.asarray(params["user"]) @ items.T, atol=2e-4)


def test_text_ridge_finds_planted_tastes_of_cold_items():
  """Two groups of items, two of users; the text says the group, and a cold item has only text."""
  rng = np.random.default_rng(3)
  group, taste = np.arange(20) % 2, np.arange(60) % 2
  liked = (rng.random((60, 20)) < 0.6) & (taste[:, None] == group)
  liked[:, -2:] = False
  text = np.float32(rng.normal(size=(20, 4)) * 0.1)
  text[:, 0] += group
  settings = TextRidgeConfig("ease", text_l2=0.1, ease_l2=5.0)
  scores = all_scores(*fitted(settings, liked, text))
  known = liked.any(axis=1)
  right, wrong = (scores[np.arange(60), 18 + side] for side in (taste, 1 - taste))
  assert known.sum() > 50 and (right > wrong)[known].all()
