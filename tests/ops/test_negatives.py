"""Negatives: never forbidden, in the promised proportions, also where almost nothing is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.ops.negatives import below, draw_negatives, make_sampler

USERS, ITEMS, NUM = 6, 12, 20_000
# A sampler has arrays as long as its forbidden items; padded to one length they share a program.
PADDED = {"allowed_before": 100, "forbidden_through": 100, "dislikes": 100}
_below = jax.jit(below)
_drawn = jax.jit(draw_negatives, static_argnames="num")


def interactions(ratings):
  """From a [U, I] table, 0 = not rated."""
  user, item = np.nonzero(ratings)
  return Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=ratings[user, item].astype(np.float32),
    timestamp=np.zeros(len(user), np.int64),
    user_ids=tuple(map(str, range(ratings.shape[0]))),
    item_ids=tuple(map(str, range(ratings.shape[1]))),
  )


def table():
  """[USERS, ITEMS] without any rating."""
  return np.zeros((USERS, ITEMS))


def draws(ratings, mode, *, seed=0, **options):
  """Draws for every user of a [USERS, ITEMS] table: [USERS, NUM] items, and which are possible."""
  sampler = make_sampler(interactions(ratings), mode=mode, **options)
  arrays = {name: np.asarray(getattr(sampler, name)) for name in PADDED}
  sampler = sampler._replace(
    **{name: np.pad(one, (0, PADDED[name] - len(one))) for name, one in arrays.items()}
  )
  users = jnp.arange(ratings.shape[0], dtype=jnp.int32)
  return tuple(map(np.asarray, _drawn(jax.random.key(seed), sampler, users, num=NUM)))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["uniform", "popularity"]))
def test_no_forbidden_item_is_ever_drawn(seed, mode):
  rng = np.random.default_rng(seed)
  ratings = rng.integers(0, 6, (6, ITEMS)) * (rng.random((6, ITEMS)) < rng.random((6, 1)))
  ratings[0] = 5  # has liked everything
  ratings[1] = 5
  ratings[1, rng.integers(ITEMS)] = 3  # everything but one, which is neutral
  items, possible = draws(ratings, mode, seed=seed % 1000)
  forbidden = (ratings >= 4) | ((ratings > 0) & (ratings <= 2))
  assert not possible[0].any()
  assert possible[1:][~forbidden[1:].all(axis=1)].all()
  chosen = np.take_along_axis(forbidden, items, axis=1)
  assert not chosen[possible].any()
  assert (items >= 0).all() and (items < ITEMS).all()


def test_uniform_reaches_every_allowed_item_equally():
  ratings = table()
  ratings[0, [0, 3, 4, 11]] = [5, 1, 4, 2]
  ratings[0, 7] = 3  # neutral: may be drawn
  items, _ = draws(ratings, "uniform")
  count = np.bincount(items[0], minlength=ITEMS)
  allowed = np.setdiff1d(np.arange(ITEMS), [0, 3, 4, 11])
  assert count[[0, 3, 4, 11]].sum() == 0
  assert chisquare(count[allowed]).pvalue > 1e-3


def test_popularity_follows_the_power_of_the_count():
  ratings = np.zeros((40, 4))
  ratings[:27, 1], ratings[:8, 2], ratings[:1, 3] = 5, 5, 5
  ratings[39] = [0, 0, 0, 4]  # this user likes item 3; draws among 0, 1, 2
  items, _ = draws(ratings, "popularity", popularity_power=1 / 3)
  count = np.bincount(items[39], minlength=4)
  weight = np.array([0.5, 27, 8]) ** (1 / 3)
  assert count[3] == 0
  assert chisquare(count[:3], weight / weight.sum() * count.sum()).pvalue > 1e-3


def test_explicit_draws_dislikes_and_falls_back_to_uniform():
  ratings = table()
  ratings[0, [1, 5]], ratings[0, 2] = 1, 5
  ratings[1, 4] = 5
  items, possible = draws(ratings, "explicit")
  assert set(items[0]) == {1, 5} and possible.all()
  assert 4 not in items[1] and len(set(items[1])) == ITEMS - 1


def test_unliked_draws_dislikes_like_any_other_item():
  ratings = table()
  ratings[0, [0, 3, 4, 11]] = [5, 1, 4, 2]
  items, _ = draws(ratings, "unliked")
  count = np.bincount(items[0], minlength=ITEMS)
  assert not count[[0, 4]].any()
  assert chisquare(count[np.setdiff1d(np.arange(ITEMS), [0, 4])]).pvalue > 1e-3


def test_mixed_share():
  ratings = table()
  ratings[0, 1], ratings[0, 2] = 1, 5
  items, _ = draws(ratings, "mixed", explicit_share=0.3)
  assert abs((items[0] == 1).mean() - 0.3) < 0.02 and not (items[0] == 2).any()


def test_explicit_serves_a_user_who_has_nothing_else_left():
  ratings = table() + 5
  ratings[:, 3] = 1
  items, possible = draws(ratings, "explicit")
  assert possible.all() and (items == 3).all()


def test_fresh_from_the_key_and_reproducible():
  ratings = table()
  ratings[:, 0] = 5
  first, again, other = (draws(ratings, "uniform", seed=s)[0] for s in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
def test_scaling_of_random_bits_is_exact(bits, limit):
  assert int(_below(jnp.uint32(bits), jnp.int32(limit))) == bits * limit >> 32


def test_unknown_mode():
  with pytest.raises(InputError, match="sometimes"):
    draws(table() + 1, "sometimes")


def test_catalog_of_millions_keeps_its_tail_and_its_mass():
  rng = np.random.default_rng(0)
  num_items = 1_000_000
  rows = Interactions(
    user=np.zeros(1000, np.int32),
    item=rng.choice(num_items, 1000, replace=False).astype(np.int32),
    rating=np.full(1000, 5, np.float32),
    timestamp=np.zeros(1000, np.int64),
    user_ids=("0",),
    item_ids=tuple(map(str, range(num_items))),
  )
  sampler = make_sampler(rows, mode="popularity", popularity_power=1.0)
  assert int(sampler.mass_before[-1]) < 2**31 - 1 and (np.diff(sampler.mass_before) >= 1).all()
  items, _ = _drawn(jax.random.key(0), sampler, jnp.zeros(1, jnp.int32), num=5000)
  assert not np.isin(items, rows.item).any()
