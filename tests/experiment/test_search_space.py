"""Search spaces: declared and given ranges, draws from them, where an optimum lies in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax._src.interpreters.partial_eval import dce_jaxpr

from gatrec_jax.config.fields import Choice, LogUniform, Uniform
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import PRESETS, get_preset
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.search_space import (
  Draws,
  own_settings,
  place_of,
  search_space,
  value_at,
  where_it_lies,
)
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.train.epochs import new_state, run_epochs
from gatrec_jax.train.hyperparameters import dynamic_names, with_dynamic

EASE, BPR, LIGHTGCN, BEST, TINY = (
  get_preset(name) for name in ("ease", "bpr_mf", "lightgcn", "best", "tiny")
)


@given(
  st.sampled_from(
    [LogUniform(0.01, 50.0), Uniform(-1.0, 3.0), LogUniform(4, 400, True), Uniform(1, 9, True)]
  ),
  st.floats(0, 1),
)
def test_values_lie_in_their_range_and_places_lead_back(range_, place):
  value = value_at(range_, place)
  assert range_.low <= value <= range_.high
  assert isinstance(value, int if range_.whole else float)
  if not range_.whole:
    assert place_of(range_, value) == pytest.approx(place, abs=1e-4)


def test_scales():
  assert value_at(LogUniform(10, 1000), 0.5) == 100.0
  assert value_at(LogUniform(10, 1000), 1.5) == 10_000.0
  assert value_at(Uniform(0.0, 4.0), -0.25) == -1.0
  assert [value_at(Uniform(1, 3, True), p) for p in (0, 0.34, 0.7, 1)] == [1, 2, 3, 3]
  assert [value_at(Choice(("a", "b")), p) for p in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]
  assert place_of(LogUniform(0.1, 10), 0.0) is None


SEARCHED = [name for name in PRESETS if name != "popularity"]


@pytest.mark.parametrize("name", SEARCHED)
def test_every_preset_declares_ranges_whose_ends_it_may_have(name):
  config, ranges, _ = search_space(get_preset(name))
  for field, range_ in ranges.items():
    for place in (0.0, 1.0):
      with_fields(config, {field: value_at(range_, place)})


def rated():
  """12 users' ratings of 20 items."""
  table = np.random.default_rng(0).integers(1, 6, (12, 20))
  table *= np.arange(240).reshape(12, 20) % 3 > 0
  user, item = (index.astype(np.int32) for index in np.nonzero(table))
  return Interactions(
    user,
    item,
    table[user, item].astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(12))),
    tuple(map(str, range(20))),
  )


def traced(config, dynamic):
  """What training and scoring compute, as the text and the arrays of a program, and which of the
  dynamic settings, its arguments, the scores depend on."""
  recommender = make_recommender(config.model, num_users=12, num_items=20)
  inputs = make_inputs(recommender, rated(), text=np.random.default_rng(1).normal(size=(32, 5)))

  def result(dynamic):
    own, train = with_dynamic(recommender, config.train, dynamic)
    if config.model.learned:
      state = new_state(inputs, recommender=own, config=train)
      one = dict(num_epochs=1, most_epochs=1)  # known numbers, so that unused settings are found
      params = run_epochs(state, inputs, recommender=own, config=train, **one)[0].params
    else:
      params = own.fit(inputs, jax.random.key(0))
    return own.score(own.serving_state(params, inputs), jnp.arange(12))

  program = jax.make_jaxpr(result)(dynamic)
  _, used = dce_jaxpr(program.jaxpr, [True] * len(program.out_avals))
  arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((program.consts, inputs))]
  return (str(program), arrays), {name for name, is_used in zip(sorted(dynamic), used) if is_used}


SMALLER = {
  "ials": {"width": 4},
  "multi_vae": {"hidden_widths": "8", "latent_width": 4},
  "sasrec": {"width": 4, "blocks": 1, "length": 4},
  "gru4rec": {"width": 4, "length": 4},
  "best": {"layers": 1},
  "paper": {"layer_widths": "8", "heads": "1"},
  "tiny": {"layer_widths": "8", "heads": "1"},
}


@pytest.mark.parametrize("name", SEARCHED)
def test_every_searched_setting_of_a_preset_changes_its_scores(name):
  config, ranges, _ = search_space(with_fields(get_preset(name), SMALLER.get(name, {})))
  own = own_settings(config, ranges)
  numbers = {*dynamic_names(config.model), *dynamic_names(config.train)} & set(ranges)
  dynamic = {name: jnp.float32(own[name]) for name in numbers}
  program, used = traced(config, dynamic)
  assert used == numbers
  for name in set(ranges) - numbers:
    values = (value_at(ranges[name], place) for place in (0.1, 0.6))
    other = next(value for value in values if value != own[name])
    assert traced(with_fields(config, {name: other}), dynamic)[0] != program, name


def test_a_setting_that_nothing_reads_is_found():
  assert traced(BPR, {"temperature": jnp.float32(1), "l2_weight": jnp.float32(1)})[1] == {
    "l2_weight"
  }


def test_a_search_of_best_draws_what_its_softmax_and_its_channels_have():
  _, ranges, _ = search_space(BEST)
  assert set(ranges) == {
    "learning_rate",
    "weight_decay",
    "temperature",
    "user_power",
    "linear_weight",
    "linear_l2",
  }
  pairwise = search_space(with_fields(BEST, {"loss": "pairwise"}))[1]
  assert "cosine_weight" in pairwise and "temperature" not in pairwise
  # Without a linear channel none of its settings, nor is it switched on.
  assert set(search_space(TINY)[1]) == {"learning_rate", "cosine_weight", "weight_decay"}


def test_flags_replace_add_and_fix():
  config, ranges, _ = search_space(
    BPR,
    [
      "learning_rate=1e-3:1e-2",
      "l2_weight=0:0.1:linear",
      "width=16|32|64|16",
      "init_stddev=0.05",
      "negatives=uniform|popularity",
      "gradient_clip=0.5:5:log",
      "batch_size=100:200",
    ],
  )
  assert ranges == {
    "learning_rate": LogUniform(1e-3, 1e-2),
    "l2_weight": Uniform(0.0, 0.1),
    "width": Choice((16, 32, 64)),
    "negatives": Choice(("uniform", "popularity")),
    "gradient_clip": LogUniform(0.5, 5.0),
    "batch_size": Uniform(100, 200, True),
  }
  assert config.model.init_stddev == 0.05
  config, ranges, _ = search_space(BPR, ["learning_rate=0.01"])
  assert list(ranges) == ["l2_weight"] and config.train.learning_rate == 0.01


@pytest.mark.parametrize(
  ("config", "text", "words"),
  [
    (EASE, "l2=500:100", ["search_space=l2=500:100", "empty", "low must lie below high"]),
    (EASE, "l2=5:5", ["empty", "write l2=5"]),
    (EASE, "l2=0:5", ["l2=0", "must lie in"]),
    (EASE, "l2=|", ["empty"]),
    (EASE, "l2=", ["empty"]),
    (EASE, "l2", ["field=value"]),
    (EASE, "l3=1:2", ["l3: no such setting", "l2"]),
    (EASE, "learning_rate=1e-3:1", ["ease has no such setting"]),
    (EASE, "l2=1:2:3", ["low:high:log"]),
    (EASE, "l2=1:", ["low:high"]),
    (EASE, "l2=1:inf", ["finite"]),
    (EASE, "l2=a:b", ["l2=a", "a number"]),
    (BPR, "l2_weight=0:1", ["empty on a log scale", "0:1:linear"]),
    (BPR, "width=1.5:3", ["width=1.5", "whole number"]),
    (BPR, "negatives=uniform|odd", ["negatives=odd", "explicit"]),
    (BPR, "epochs=10:20", ["set"]),
    (BPR, "positive_threshold=3:5", ["set"]),
    (get_preset("multi_vae"), "hidden_widths=100|200", ["numbers and words"]),
    (EASE, "l2=300", ["search: ease has nothing to search", "name a setting"]),
    (BEST, "cosine_weight=0:1", ["the pairwise objective has it (`loss=pairwise`)"]),
    (BEST, "loss=softmax|pairwise", ["decides which settings there are", "`set`"]),
    (TINY, "linear_l2=10:100", ["no effect with `linear_weight=0.0`"]),
    (BEST, "linear_weight=0|0.5", ["linear_l2 has no effect with linear_weight=0.0"]),
    (get_preset("popularity"), "ks=10", ["set"]),
  ],
)
def test_bad_ranges_are_refused_in_one_line(config, text, words):
  with pytest.raises(InputError) as caught:
    search_space(config, [text])
  assert all(word in str(caught.value) for word in words), str(caught.value)
  assert "\n" not in str(caught.value)


def test_nothing_to_search():
  message = "popularity has nothing to search; leave `search` out$"
  with pytest.raises(InputError, match=message):
    search_space(get_preset("popularity"))


def test_draws_fill_the_ranges_evenly_and_are_a_function_of_the_seed():
  config, ranges, _ = search_space(BPR)
  drawn = [Draws(config, ranges, seed=3).anywhere() for _ in range(2)]
  assert drawn[0] == drawn[1] != Draws(config, ranges, seed=4).anywhere()
  draws = Draws(config, ranges, seed=0)
  for name in ranges:
    settings = [draws.anywhere()[name] for _ in range(32)]
    places = [place_of(ranges[name], value) for value in settings]
    counts = np.histogram(places, bins=4, range=(0, 1))[0]
    assert counts.sum() == 32 and counts.min() >= 6


def test_draws_beside_the_best_stay_in_the_box_pass_the_range_and_obey_the_field():
  config, ranges, _ = search_space(EASE)
  draws = Draws(config, ranges, seed=0)
  places = [place_of(ranges["l2"], draws.near({"l2": 10_000.0}, 0.25)["l2"]) for _ in range(20)]
  assert all(0.875 <= p <= 1.125 for p in places) and min(places) < 0.95 and max(places) > 1.05
  config, ranges, _ = search_space(get_preset("multi_vae"))
  draws, best = Draws(config, ranges, seed=0), own_settings(config, ranges) | {"kl_weight": 0.0}
  values = [draws.near(best, 0.25)["kl_weight"] for _ in range(20)]
  assert 0 <= min(values) < 0.03 and 0.1 < max(values) <= 0.125
  config, ranges, _ = search_space(get_preset("item_knn"))
  # A shrinkage of 0 is off the scale.
  near = Draws(config, ranges, seed=0).near({"neighbors": 1, "shrinkage": 0.0}, 0.25)
  assert near["neighbors"] >= 1 and 0 < near["shrinkage"] < 1


@pytest.mark.parametrize(
  ("config", "name", "best", "tried", "inside"),
  [
    (EASE, "l2", 100.0, [100.0, 50.0, 200.0], True),
    (EASE, "l2", 100.0, [100.0, 50.0, 101.0], False),  # 101 is the same place
    (EASE, "l2", 100.0, [100.0, 200.0], False),
    (get_preset("item_knn"), "shrinkage", 0.0, [0.0, 3.0], True),  # none is allowed below
    (get_preset("item_knn"), "neighbors", 5, [5, 4, 6], True),
    (get_preset("multi_vae"), "kl_weight", 0.0, [0.0, 0.3], True),
    (LIGHTGCN, "layers", 2, [1, 2, 3], True),
    (LIGHTGCN, "layers", 2, [2, 3], False),
    (LIGHTGCN, "layers", 3, [1, 2, 3], False),
    (get_preset("xsimgcl"), "layers", 1, [1, 2], True),
  ],
)
def test_where_an_optimum_lies(config, name, best, tried, inside):
  assert (
    where_it_lies(config, name, search_space(config)[1][name], best, dict.fromkeys(tried, 0.1))[0]
    is inside
  )


def test_words_must_all_be_tried():
  range_ = Choice(("uniform", "mixed"))
  assert where_it_lies(BPR, "negatives", range_, "mixed", {"mixed": 0.1}) == (
    False,
    "not tried: uniform",
  )
  assert where_it_lies(BPR, "negatives", range_, "mixed", {"mixed": 0.1, "uniform": 0.2})[0]
