"""GF-CF: against numpy, both forms, invariances, new users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.models import GfCfConfig
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.models.registry import make_recommender


def ratings(users=50, items=14, seed=0):
  """[U, I] int, 0 where nothing is rated; user 3 has none, the last item neither."""
  rng = np.random.default_rng(seed)
  table = rng.integers(1, 6, (users, items)) * (rng.random((users, items)) < 0.6)
  table[3] = 0
  table[:, -1] = 0
  return table


def made(table, **fields):
  user, item = np.nonzero(table)
  rows = Interactions.from_indices(
    user, item, table[user, item], num_users=table.shape[0], num_items=table.shape[1]
  )
  settings = GfCfConfig(**fields)
  recommender = make_recommender(settings, num_users=table.shape[0], num_items=table.shape[1])
  inputs = make_inputs(recommender, rows)
  params = jax.jit(recommender.fit)(inputs, jax.random.key(0))
  return recommender, inputs, params, recommender.serving_state(params, inputs)


def scores_of(table, **fields):
  recommender, _, _, state = made(table, **fields)
  return np.asarray(recommender.score(state, jnp.arange(len(table))))


def filtered(values, *, rank, weight):
  """The paper's two filters of the rows of `values` [U, I]."""
  values = values.astype(np.float64)
  of_user, of_item = (np.maximum(values.sum(axis=axis), 1e-12) ** -0.5 for axis in (1, 0))
  normalized = np.where(values > 0, of_user[:, None] * values * of_item, 0)
  vectors = np.linalg.svd(normalized, full_matrices=False)[2][:rank].T
  of_item = np.where(values.any(axis=0), of_item, 1)
  low_pass = (values * of_item) @ vectors @ vectors.T / of_item
  return values @ normalized.T @ normalized + weight * low_pass


@pytest.mark.parametrize(("rank", "weight"), [(3, 0.3), (9, 2.0), (5, 0.0)])
def test_scores_are_those_of_the_paper(rank, weight):
  table = ratings()
  got = scores_of(table, rank=rank, low_pass_weight=weight)
  want = filtered(table >= 4, rank=rank, weight=weight)
  np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)
  assert (got[3] == 0).all() and np.abs(got[:, -1]).max() < 1e-5


def test_relevance_counts_where_it_is_graded():
  table = ratings()
  relevance = np.where(table > 0, Feedback().judge(table.ravel()).relevance.reshape(table.shape), 0)
  got = scores_of(table, rank=4, relevance="graded")
  np.testing.assert_allclose(got, filtered(relevance, rank=4, weight=0.3), rtol=2e-3, atol=2e-3)


def test_by_hand():
  """Two users, two items, R̃ = [[√½, ½], [0, √½]], and all singular vectors pass."""
  table = np.array([[5, 5], [0, 5]])
  linear = np.array([[1, 1], [0, 1]]) @ np.array([[1 / 2, 8**-0.5], [8**-0.5, 3 / 4]])
  want = linear + 0.5 * (table > 0)
  np.testing.assert_allclose(scores_of(table, rank=2, low_pass_weight=0.5), want, rtol=1e-5)


@pytest.mark.parametrize("rank", [2, 6, 200])
def test_the_spectral_form_with_all_neighbors_is_exact_but_for_what_is_rated(rank):
  table = ratings()
  exact = scores_of(table, rank=rank, form="exact")
  recommender, inputs, params, state = made(table, rank=rank, form="spectral")
  terms = np.asarray(recommender.score(state, jnp.arange(50)))
  unseen = table < 4
  np.testing.assert_allclose(terms[unseen], exact[unseen], rtol=1e-3, atol=1e-4)
  assert params["weights"].dropped == 0
  few = made(table, rank=2, form="spectral", neighbors=1)
  assert 0 < few[2]["weights"].dropped < 1
  users = np.asarray(recommender.vectors_of_users(state, jnp.arange(50)))
  items = np.asarray(recommender.vectors_of_items(state))
  np.testing.assert_allclose(users @ items.T, terms, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["exact", "spectral"])
def test_new_users_are_scored_like_those_of_training(form):
  table = ratings()
  recommender, inputs, params, state = made(table, rank=5, form=form)
  liked = [np.flatnonzero(row >= 4) for row in table[[0, 3, 7]]]
  new = NewUsers(liked, [np.zeros(0, np.int64)] * 3, np.zeros((3, 1), np.float32), 5.0, 2.0)
  np.testing.assert_allclose(
    recommender.score_new(params, inputs, state, new),
    recommender.score(state, jnp.array([0, 3, 7])),
    rtol=1e-4,
    atol=1e-5,
  )


def test_the_order_of_items_does_not_matter():
  table = ratings()
  order = np.random.default_rng(1).permutation(table.shape[1])
  first, second = scores_of(table, rank=13), scores_of(table[:, order], rank=13)
  np.testing.assert_allclose(second, first[:, order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ("users", "items", "rank", "width"),
  [(943, 1682, 0, 66), (29_858, 40_981, 0, 256), (3, 9, 0, 1), (50, 40, 99, 40), (50, 40, 7, 7)],
)
def test_the_rank_follows_from_the_smaller_side(users, items, rank, width):
  assert make_recommender(GfCfConfig(rank=rank), num_users=users, num_items=items).width == width
