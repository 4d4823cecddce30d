"""What recommenders declare that they can do is what they can do."""

import jax
import numpy as np
import pytest
from helpers.programs import toy_ratings

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.models import MODELS, LightGcnConfig
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender, recommender_class
from gatrec_jax.ops.scores import dot_product_scores

USERS, ITEMS = 12, 9
# The channels beside it are of interest, and this layer compiles soonest.
LIGHT = dict(convolution="light", layers=1, attention="none", feature_width=4)
ORDERED = dict(history="ordered", graph="next", loss="softmax", history_length=3)
SMALL = {
  "gat": [
    dict(layer_widths=(4,), heads=(1,)),
    LIGHT | dict(linear_weight=0.5),
    LIGHT | dict(unrated_l2=1.0),
    LIGHT | dict(prior_weight=1.0),
    LIGHT | dict(loss="softmax", popularity_weight=0.5),
    LIGHT | dict(loss="softmax", popularity_weight=0.5, linear_weight=0.5),
    LIGHT | ORDERED,
    LIGHT | ORDERED | dict(popularity_weight=0.5, linear_weight=0.5, score="cosine"),
  ],
  "sasrec": [dict(width=4, blocks=1, length=4)],
  "gru4rec": [dict(width=4, length=4)],
  "multi_vae": [dict(hidden_widths=(4,), latent_width=2)],
  "text_ridge": [dict(factors="ease"), dict(factors="ials", width=2, iterations=1)],
  "ials": [dict(width=2, iterations=1)],
  "slim": [dict(iterations=2)],
  "admm_slim": [dict(iterations=2)],
}
CASES = [
  replaced(cls(), fields)
  for cls in (ModelConfig, *MODELS.values())
  for fields in SMALL.get(cls.kind, [{}])
]


@pytest.mark.parametrize("settings", CASES, ids=lambda settings: settings.kind)
def test_declarations_are_complete_and_true(settings):
  recommender = make_recommender(settings, num_users=USERS, num_items=ITEMS)
  cls = recommender_class(settings.kind)
  assert isinstance(recommender, cls)
  # Methods are there or absent, as declared.
  learned = recommender.learned
  assert cls.learned is learned is settings.learned
  for name in ("init", "loss", "num_rows"):
    assert hasattr(cls, name) == learned
  assert hasattr(cls, "fit") != learned
  assert hasattr(cls, "score_new") == recommender.serves_new_users
  assert hasattr(cls, "grown") == (learned and recommender.takes_new_ratings)
  assert recommender.takes_new_ratings or learned
  assert cls.explainable is (settings.kind == "gat")
  # Vectors are a pair whose dot products are the scores.
  text = np.random.default_rng(0).normal(size=(USERS + ITEMS, 3))
  inputs = make_inputs(recommender, toy_ratings(USERS, ITEMS), text=text)
  make = recommender.init if learned else recommender.fit
  shapes = jax.eval_shape(make, inputs, jax.random.key(0))
  state = jax.eval_shape(recommender.serving_state, shapes, inputs)
  assert (recommender.scores_by == "vectors") == (recommender.score is dot_product_scores)
  if recommender.scores_by == "vectors":
    users, items = state
    assert (users.shape[0], items.shape[0]) == (USERS, ITEMS)
    assert users.shape[1:] == items.shape[1:] and len(users.shape) == 2
  else:
    assert recommender.scores_by == "scores"
    everyone = np.arange(USERS)

    @jax.jit
    def served(inputs):
      state = recommender.serving_state(make(inputs, jax.random.key(0)), inputs)
      users = recommender.vectors_of_users(state, everyone)
      return users, recommender.vectors_of_items(state), recommender.score(state, everyone)

    users, items, scores = map(np.asarray, served(inputs))
    np.testing.assert_allclose(users @ items.T, scores, rtol=1e-4, atol=1e-4)
  # Another seed gives other parameters, or the same.
  if learned:
    assert recommender.seeded
    return
  params = jax.jit(jax.vmap(make, in_axes=(None, 0)))(inputs, jax.random.split(jax.random.key(1)))
  differ = any(not np.array_equal(leaf[0], leaf[1]) for leaf in jax.tree.leaves(params))
  assert differ == recommender.seeded


def test_a_light_gcn_without_layers_serves_nobody_new():
  recommender = make_recommender(LightGcnConfig(layers=0), num_users=2, num_items=3)
  assert not recommender.serves_new_users
