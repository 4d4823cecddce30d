"""The Markov chain by hand and against naive numpy; recent popularity by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.models import PopularityConfig
from gatrec_jax.config.sequences import RecentPopularityConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.fitted import fit
from gatrec_jax.models.inputs import NewUsers

# 0 → 1 twice, 1 → 2 twice, 0 → 2 once; user 3 has no like.
HISTORIES = ([0, 1, 2], [0, 1], [1, 2], [], [0, 2])


def fitted(histories=HISTORIES, rating=None, num_items=4, **settings):
  user = np.repeat(np.arange(len(histories)), [len(one) for one in histories])
  item = np.concatenate(histories).astype(int)
  rows = Interactions.from_indices(
    user, item, rating, np.arange(len(item)), num_users=len(histories), num_items=num_items
  )
  return fit(
    "markov", rows, feedback=Feedback() if rating is not None else Feedback(1.0, 0.0), **settings
  )


def weights_of(model):
  """[I, I], from an item to what follows."""
  return np.asarray(model.recommender.vectors_of_items(model.serving_state)).T


def test_transitions_by_hand():
  expected = np.zeros((4, 4))
  expected[0, 1], expected[0, 2], expected[1, 2] = 2 / 3, 1 / 3, 2 / 2
  np.testing.assert_allclose(weights_of(fitted()), expected, rtol=1e-6)
  expected[0, 1], expected[0, 2], expected[1, 2] = 2 / 4, 1 / 4, 2 / 3
  np.testing.assert_allclose(weights_of(fitted(shrinkage=1.0)), expected, rtol=1e-6)
  # Items 1 and 2 followed others 2 and 3 times.
  expected[0, 1], expected[0, 2], expected[1, 2] = 1 / 3, 1 / 9, 1 / 3
  np.testing.assert_allclose(weights_of(fitted(popularity_power=1.0)), expected, rtol=1e-6)
  # Two apart counts half: 0 → 2 in the history of user 0.
  expected[0, 1], expected[0, 2], expected[1, 2] = 2 / 3.5, 1.5 / 3.5, 1
  np.testing.assert_allclose(weights_of(fitted(window=2)), expected, rtol=1e-6)
  expected[0, 2] = 0
  np.testing.assert_allclose(weights_of(fitted(window=2, neighbors=1)), expected, rtol=1e-6)


def test_scores_are_decayed_sums_over_the_latest_events():
  weights = weights_of(fitted())
  for decay, expected in (
    (0.0, weights[1]),
    (0.5, weights[1] + 0.5 * weights[0]),
    (1.0, weights[1] + weights[0]),
  ):
    model = fitted(decay=decay)
    scores = np.asarray(model.score(np.arange(5)))
    np.testing.assert_allclose(scores[1], expected, rtol=1e-6)
    assert (scores[3] == 0).all()
  # Of user 0 the latest event alone leads nowhere.
  assert (np.asarray(fitted(decay=1.0, length=1).score([0])) == 0).all()
  np.testing.assert_allclose(fitted(decay=1.0, length=2).score([0])[0], weights[1], rtol=1e-6)


def test_graded_ratings_count_by_their_relevance():
  rating = [5, 1, 5, 5, 5, 5, 5, 5, 5]  # user 0 did not like item 1
  likes = weights_of(fitted(rating=rating))
  np.testing.assert_allclose(likes[0], [0, 1 / 3, 2 / 3, 0], rtol=1e-6)
  low = Feedback().judge(np.float32(rating)).relevance[1]
  graded = fitted(rating=rating, relevance="graded")
  np.testing.assert_allclose(
    weights_of(graded)[0], np.array([0, 1 + low, 1, 0]) / (2 + low), rtol=1e-6
  )
  followed = weights_of(graded)
  np.testing.assert_allclose(
    graded.score([0])[0], 0.5 * low * followed[1] + 0.25 * followed[0], rtol=1e-6
  )


@pytest.mark.parametrize("neighbors", [3, 100])
def test_scores_equal_naive_sums(neighbors):
  rng = np.random.default_rng(0)
  histories = [rng.permutation(12)[: rng.integers(0, 9)].tolist() for _ in range(40)]
  settings = dict(window=3, shrinkage=0.7, popularity_power=0.4, decay=0.6, length=4)
  model = fitted(histories, num_items=12, neighbors=neighbors, **settings)
  counts = np.zeros((12, 12))
  for one in histories:
    for place, source in enumerate(one):
      for distance, target in enumerate(one[place + 1 : place + 4], 1):
        counts[source, target] += 1 / distance
  weights = counts / (counts.sum(1, keepdims=True) + 0.7) / counts.sum(0) ** 0.4
  for row in weights:
    row[np.argsort(-row, kind="stable")[neighbors:]] = 0
  expected = np.zeros((40, 12))
  for user, one in enumerate(histories):
    for back, item in enumerate(one[::-1][:4]):
      expected[user] += 0.6**back * weights[item]
  users = jnp.arange(40)
  recommender, state = model.recommender, model.serving_state
  np.testing.assert_allclose(model.score(users), expected, rtol=1e-4, atol=1e-6)
  products = recommender.vectors_of_users(state, users) @ recommender.vectors_of_items(state).T
  np.testing.assert_allclose(products, expected, rtol=1e-4, atol=1e-6)
  new = NewUsers([np.array(one, np.int64) for one in histories], [], None, 1.0, 1.0)
  scores = recommender.score_new(model.params, model.inputs, state, new)
  np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_without_a_transition_all_scores_are_0():
  assert (np.asarray(fitted([[0], [1]]).score([0, 1])) == 0).all()


def recent(time, **settings):
  rows = Interactions.from_indices(
    [0, 1, 2, 2], [0, 0, 1, 2], [5, 5, 5, 1], time, num_users=3, num_items=3
  )
  return np.asarray(fit("recent_popularity", rows, **settings).score([0, 1]))


def test_recent_popularity_by_hand():
  # Ages 1, ½ and 0 of the span; item 2 is not liked, so that its time does not count either.
  scores = recent([0, 50, 100, 900], half_life=0.5)
  np.testing.assert_allclose(scores, [[0.25 + 0.5, 1, 0]] * 2, rtol=1e-6)
  np.testing.assert_allclose(recent([0, 50, 100, 0], half_life=1.0)[0, 0], 0.5 + 0.5**0.5)


def test_without_times_recent_popularity_is_popularity():
  assert recent([7, 7, 7, 7]).tolist() == [[2, 1, 0]] * 2
  rows = Interactions.from_indices([0, 1, 1], [0, 0, 1], None, num_users=2, num_items=2)
  likes = Feedback(1.0, 0.0)
  recently = fit(RecentPopularityConfig(), rows, feedback=likes).score([0])
  assert jax.device_get(recently).tolist() == [[2, 1]]
  np.testing.assert_array_equal(recently, fit(PopularityConfig(), rows, feedback=likes).score([0]))
