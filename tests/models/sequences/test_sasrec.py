"""SASRec: attention and loss by hand."""

import jax
import numpy as np
from helpers.next_events import loss_of, normalized, params_of, setup, unit, vectors_of

from gatrec_jax.config.sequences import SasRecConfig
from gatrec_jax.models.sequences.transformer import Attention


def test_attention_equals_a_loop():
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(1, 5, 6)).astype(np.float32)
  visible = np.tril(rng.random((1, 5, 5)) < 0.7) | np.eye(5, dtype=bool)
  network = Attention(heads=2)
  params = network.init(jax.random.key(0), vectors, visible)["params"]
  params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
  query, key, value = (
    np.einsum("td,dhe->the", vectors[0], params[name]["kernel"]) + params[name]["bias"]
    for name in ("query", "key", "value")
  )
  expected = np.zeros((5, 6))
  for place in range(5):
    for head in range(2):
      seen = np.flatnonzero(visible[0, place])
      weights = np.exp([query[place, head] @ key[other, head] / np.sqrt(3) for other in seen])
      read = weights @ value[seen, head] / weights.sum()
      expected[place] += read @ params["output"]["kernel"][head]
  expected += params["output"]["bias"]
  got = network.apply({"params": params}, vectors, visible)[0]
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_loss_by_hand():
  """Without blocks a state is that of the latest event and its position alone."""
  settings = SasRecConfig(width=4, blocks=0, length=2, dropout=0.0, temperature=0.5)
  recommender, inputs = setup([[0, 1, 2], [3, 1]], settings, num_items=5)
  params = params_of(recommender, inputs)
  items, position = unit(np.asarray(params["item"])), np.asarray(params["position"])
  norm = params["network"]["norm"]

  def state(item, place):
    return unit(normalized(2 * items[item] + position[place]) * norm["scale"] + norm["bias"])

  losses = []
  # The event before the last one has position 0, and the one before it position 1.
  for read, place, wanted in ((0, 1, 1), (1, 0, 2), (3, 0, 1)):
    scores = state(read, place) @ items[:4].T / 0.5  # nobody has rated item 4
    losses.append(np.log(np.exp(scores).sum()) - scores[wanted])
  np.testing.assert_allclose(loss_of(recommender, inputs, params), np.mean(losses), rtol=1e-5)
  users, _ = vectors_of(recommender, inputs, params)
  for user, last in ((0, 2), (1, 1)):
    np.testing.assert_allclose(users[user], state(last, 0), rtol=1e-4, atol=1e-5)
