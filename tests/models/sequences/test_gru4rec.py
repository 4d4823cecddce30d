"""GRU4Rec: recurrence and states against a loop in numpy."""

import jax
import numpy as np
import pytest
from helpers.next_events import HISTORIES, params_of, setup, unit, vectors_of

from gatrec_jax.config.sequences import Gru4RecConfig
from gatrec_jax.models.sequences.gru import gated_states


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def loop(read, kernel, bias):
  """The states of one sequence. Args: read: [T, 3 D]."""
  width = len(kernel)
  state, states = np.zeros(width), []
  for place in read:
    update, reset, new = np.split(place, 3)
    of_update, of_reset, of_new = np.split(state @ kernel, 3)
    keep, reset = sigmoid(update + of_update), sigmoid(reset + of_reset)
    state = (1 - keep) * np.tanh(new + reset * (of_new + bias)) + keep * state
    states.append(state)
  return np.stack(states)


def test_the_recurrence_equals_a_loop_and_begins_anew_where_it_is_told():
  rng = np.random.default_rng(0)
  read, kernel, bias = (
    rng.normal(size=shape).astype(np.float32) for shape in ((2, 7, 9), (3, 9), (3,))
  )
  continues = np.ones((2, 7), bool)
  continues[:, 0] = continues[1, 3] = False
  got = jax.jit(gated_states)(read, continues, kernel=kernel, bias=bias)
  np.testing.assert_allclose(got[0], loop(read[0], kernel, bias), rtol=1e-4, atol=1e-5)
  parts = [loop(read[1, :3], kernel, bias), loop(read[1, 3:], kernel, bias)]
  np.testing.assert_allclose(got[1], np.concatenate(parts), rtol=1e-4, atol=1e-5)


def test_the_gradient_does_not_pass_the_begin_of_a_sequence():
  rng = np.random.default_rng(1)
  read, kernel = rng.normal(size=(1, 5, 6)), rng.normal(size=(2, 6))
  continues = np.array([[False, True, False, True, True]])

  @jax.grad
  def gradient(read):
    return gated_states(read, continues, kernel=kernel, bias=np.zeros(2))[0, 4].sum()

  found = np.abs(gradient(read)[0]).sum(axis=1)
  assert (found[:2] == 0).all() and (found[2:] > 1e-6).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_states_of_users_equal_a_loop(layers):
  settings = Gru4RecConfig(width=4, layers=layers, length=4, dropout=0.0)
  recommender, inputs = setup(settings=settings)
  params = params_of(recommender, inputs)
  users, items = vectors_of(recommender, inputs, params)
  network = jax.tree.map(np.asarray, params["network"])
  for user, history in enumerate(HISTORIES):
    if not history:
      assert not users[user].any()
      continue
    vectors = 2 * items[history[-4:]]  # the latest four, times the root of the width
    for number in range(layers):
      read = network[f"read_{number}"]
      kernel, bias = network[f"state_{number}"], network[f"candidate_bias_{number}"]
      vectors = loop(vectors @ read["kernel"] + read["bias"], kernel, bias)
    want = unit(vectors[-1] @ network["output"]["kernel"] + network["output"]["bias"])
    np.testing.assert_allclose(users[user], want, rtol=1e-3, atol=1e-4)
