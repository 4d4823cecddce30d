"""Models of the next event: causality, packing, draws, a planted cycle, new users and items."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.next_events import (
  HISTORIES,
  TINY,
  batch_of,
  loss_of,
  params_of,
  setup,
  unit,
  vectors_of,
)

from gatrec_jax.config.sequences import Gru4RecConfig, SasRecConfig
from gatrec_jax.models.inputs import NewUsers
from gatrec_jax.train.state import init_state
from gatrec_jax.train.step import train_step

GRU = Gru4RecConfig(width=4, length=4, dropout=0.0, temperature=0.5)


def test_a_draw_of_all_items_gives_the_whole_softmax():
  recommender, inputs = setup()
  params = params_of(recommender, inputs)
  drawing, drawn_inputs = setup(settings=SasRecConfig(**vars(TINY) | {"drawn_items": 16}))
  whole = loss_of(recommender, inputs, params)
  assert loss_of(drawing, drawn_inputs, params) == pytest.approx(whole, rel=1e-5)
  part, part_inputs = setup(settings=SasRecConfig(**vars(TINY) | {"drawn_items": 4}))
  values = [loss_of(part, part_inputs, params, key) for key in range(3)]
  assert np.ptp(values) > 1e-4 and np.mean(values) == pytest.approx(whole, rel=0.3)


def test_the_gradient_is_finite_where_only_the_wanted_item_is_drawn():
  recommender, inputs = setup(settings=SasRecConfig(**vars(TINY) | {"drawn_items": 1}))
  params, batch = params_of(recommender, inputs), batch_of(inputs)

  @jax.jit
  def gradient(key):
    return jax.grad(lambda p: recommender.loss(p, batch, key, inputs=inputs))(params)

  for key in range(4):
    found = jax.tree.leaves(gradient(jax.random.key(key)))
    assert all(np.isfinite(one).all() for one in found) and any(np.any(one) for one in found)


def only_wanted(inputs, user, later):
  """The inputs with one target: the event after the one that `later` events follow."""
  rows = inputs.own.rows
  rows = rows._replace(is_wanted=(rows.user == user) & (rows.later == later))
  return inputs.__class__(**vars(inputs) | {"own": inputs.own._replace(rows=rows)})


@pytest.mark.parametrize(("tiny", "place"), [(TINY, 1), (TINY, 2), (TINY, 3), (GRU, 2)])
def test_later_events_change_nothing_before_them(tiny, place):
  other = [list(one) for one in HISTORIES]
  other[0][place] = 7
  recommender, inputs = setup(settings=tiny)
  changed = setup(other, tiny)[1]
  # The set of known items would differ.
  changed = changed.__class__(
    **vars(changed) | {"own": changed.own._replace(is_known=inputs.own.is_known)}
  )
  params = params_of(recommender, inputs)
  losses = [
    [loss_of(recommender, only_wanted(one, 0, later), params) for later in (3, 2, 1)]
    for one in (inputs, changed)
  ]
  same = np.isclose(*losses, rtol=1e-6)
  assert same[: place - 1].all() and not same[place - 1 :].any()


@pytest.mark.parametrize("tiny", [TINY, GRU], ids=lambda one: one.kind)
def test_histories_in_one_row_do_not_see_each_other(tiny):
  recommender, inputs = setup(settings=tiny)
  assert any(len(set(row.tolist()) - {5}) > 1 for row in np.asarray(inputs.own.rows.user))
  params = params_of(recommender, inputs)
  users, _ = vectors_of(recommender, inputs, params)
  for user in (0, 1, 2, 4):
    alone = [one if number == user else [] for number, one in enumerate(HISTORIES)]
    of_alone, _ = vectors_of(recommender, setup(alone, tiny)[1], params)
    np.testing.assert_allclose(of_alone[user], users[user], atol=1e-5)
  assert (users[3] == 0).all()
  # User 4 has 6 events, of which the latest 4 are read.
  shorter = setup([*HISTORIES[:4], HISTORIES[4][2:]], tiny)[1]
  np.testing.assert_allclose(vectors_of(recommender, shorter, params)[0][4], users[4], atol=1e-5)


def test_chunks_of_rows_give_the_same_states(monkeypatch):
  recommender, inputs = setup([[k % 7, (k + 1) % 7, (k + 3) % 7] for k in range(9)])
  params = params_of(recommender, inputs)
  whole, _ = vectors_of(recommender, inputs, params)
  monkeypatch.setattr("gatrec_jax.models.sequences.next_event.SERVED_PLACES", 20)
  chunked = recommender.serving_state(params, inputs)[0]
  assert (np.linalg.norm(whole, axis=1) > 0.99).all()
  np.testing.assert_allclose(chunked, whole, atol=1e-5)


def test_ratings_that_are_no_likes_are_read_but_not_predicted():
  rating = np.full(15, 5)
  rating[[1, 5]] = 1  # item 1 of user 0, and item 5 of user 1
  recommender, inputs = setup(rating=rating)
  rows = inputs.own.rows
  wanted = {
    (int(u), int(i))
    for u, i in zip(rows.user[rows.is_wanted], np.roll(rows.item, -1, 1)[rows.is_wanted])
  }
  assert wanted == {(0, 2), (0, 3), (2, 1), (2, 0), (4, 5), (4, 6), (4, 0), (4, 1)}
  assert 5 in rows.item[rows.user == 1]


@pytest.mark.parametrize("tiny", [TINY, GRU], ids=lambda one: one.kind)
def test_new_users_are_scored_like_those_of_training(tiny):
  recommender, inputs = setup(settings=tiny)
  params = params_of(recommender, inputs)
  state = recommender.serving_state(params, inputs)
  new = NewUsers(
    [np.array(one, np.int64) for one in HISTORIES],
    [np.zeros(0, np.int64)] * 5,
    np.zeros((5, 1), np.float32),
    1.0,
    1.0,
  )
  scores = recommender.score(state, jnp.arange(5))
  np.testing.assert_allclose(
    recommender.score_new(params, inputs, state, new), scores, rtol=1e-4, atol=1e-5
  )
  assert np.abs(np.asarray(scores)).max() <= 1.0001


def test_new_items_and_users_need_no_training():
  recommender, inputs = setup()
  params = params_of(recommender, inputs)
  larger, later_inputs = setup([*HISTORIES, [8, 2]], num_items=9)
  grown = larger.grown(params, later_inputs, former=inputs, num_users=5, num_items=8)
  known = unit(np.asarray(params["item"])[:7])
  np.testing.assert_allclose(grown["item"][:7], params["item"][:7])
  for new in (7, 8):  # nobody had rated item 7
    np.testing.assert_allclose(grown["item"][new], known.mean(axis=0), rtol=1e-5, atol=1e-6)
  users, items = vectors_of(larger, later_inputs, grown)
  np.testing.assert_allclose(users[:5], vectors_of(recommender, inputs, params)[0], atol=1e-5)
  assert items.shape == (9, 4) and np.linalg.norm(users[5]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
  "settings",
  [
    SasRecConfig(width=16, blocks=1, length=8, dropout=0.1, temperature=0.1),
    SasRecConfig(width=16, blocks=1, length=8, dropout=0.1, temperature=0.1, drawn_items=8),
    Gru4RecConfig(width=16, length=8, dropout=0.1, temperature=0.1, drawn_items=8),
  ],
  ids=lambda one: f"{one.kind}-{one.drawn_items}",
)
def test_it_learns_a_cycle(settings):
  """The next item is always the one with the next number."""
  num_items, rng = 20, np.random.default_rng(0)
  histories = [
    [(begin + k) % num_items for k in range(rng.integers(3, 8))]
    for begin in rng.integers(0, num_items, 80)
  ]
  recommender, inputs = setup(histories, settings, num_items)
  optimizer = optax.adam(2e-2)

  @jax.jit
  def learned(params, inputs):
    step = train_step(lambda p, b, k: recommender.loss(p, b, k, inputs=inputs), optimizer)
    keys = jax.random.split(jax.random.key(0), 150)
    state = init_state(params, optimizer)
    state, _ = jax.lax.scan(lambda s, key: step(s, batch_of(inputs), key), state, keys)
    return recommender.score(
      recommender.serving_state(state.params, inputs), jnp.arange(len(histories))
    )

  scores = learned(recommender.init(inputs, jax.random.key(0)), inputs)
  following = np.array([(one[-1] + 1) % num_items for one in histories])
  assert (np.argmax(scores, axis=1) == following).mean() > 0.97
