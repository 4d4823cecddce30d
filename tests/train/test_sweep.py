"""A sweep gives, setting by setting, what single runs give; groups fit the budget; refusals."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from helpers.programs import arrays_equal

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.models import BprMfConfig, EaseConfig, LightGcnConfig
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.train import epochs, fit, fit_params, fitted, learn, start_training, train_epochs
from gatrec_jax.train.sweep import sweep

USERS, ITEMS = 24, 17
GAT = replaced(
  ModelConfig(), dict(node_features="ids", feature_width=4, layer_widths=(3,), heads=(1,))
)
TRAIN = TrainConfig(
  schedule="constant",
  epochs=4,
  evaluate_every=2,
  patience=2,
  learning_rate=0.02,
  batch_size=64,
  select_on="valid",
)


def rows():
  rng = np.random.default_rng(0)
  user, item = np.nonzero(rng.random((USERS, ITEMS)) < 0.4)
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    rng.integers(1, 6, len(user)).astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(USERS))),
    tuple(map(str, range(ITEMS))),
  )


def setup(settings, config=TRAIN):
  recommender = make_recommender(settings, num_users=USERS, num_items=ITEMS)
  text = np.zeros((USERS + ITEMS, 1), np.float32)
  inputs = make_inputs(recommender, rows(), text=text)
  return recommender, inputs


def some_measure(params):
  """Any number that follows from the parameters, with ups and downs."""
  return float(np.cos(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(params)) / 3))


def run_sweep(recommender, inputs, settings, config=TRAIN, **given):
  given = {"memory_mb": 500, "validate": some_measure, "log": SILENT} | given
  return sweep(inputs, recommender=recommender, config=config, settings=settings, **given)


def single(recommender, inputs, setting, config, workdir):
  own = dict(setting)
  names = {field.name for field in dataclasses.fields(TrainConfig)}
  config = dataclasses.replace(config, **{k: own.pop(k) for k in list(own) if k in names})
  recommender = dataclasses.replace(recommender, settings=replaced(recommender.settings, own))
  params, progress = learn(
    inputs,
    recommender=recommender,
    config=config,
    workdir=workdir,
    validate=some_measure,
    log=SILENT,
  )
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return params, progress, [line["value"] for line in lines if line["name"] == "loss"]


DROPPING = replaced(GAT, dict(feature_dropout=0.1, attention_dropout=0.2))
SWEPT = {
  "gat": (
    DROPPING,
    [
      {"seed": 3, "learning_rate": 0.05, "edge_dropout": 0.3},
      {"seed": 4, "feature_dropout": 0.5, "weight_decay": 0.1, "edge_dropout": 0.1},
    ],
    "map",
  ),
  "bpr_mf": (
    BprMfConfig(width=4),
    [
      {"seed": s, "learning_rate": r, "gradient_clip": c}
      for s, r, c in ((0, 0.02, 0.0), (2**32 - 1, 0.3, 0.0), (0, 0.02, 1e-6))
    ],
    "map",
  ),
  "softmax": (
    replaced(LightGcnConfig(), dict(width=4, loss="softmax")),
    [{"temperature": 0.2, "l2_weight": 0.0}, {"temperature": 0.7, "l2_weight": 0.3}],
    "vmap",
  ),
}


@pytest.mark.parametrize("name", SWEPT)
def test_each_setting_ends_as_a_single_run(name, tmp_path):
  model, settings, spread = SWEPT[name]
  # With 5 epochs the last block is shorter than the others.
  config = dataclasses.replace(TRAIN, epochs=4 if name == "gat" else 5)
  recommender, inputs = setup(model)
  result = run_sweep(recommender, inputs, settings, config, spread=spread)
  for n, (outcome, setting) in enumerate(zip(result.outcomes, settings, strict=True)):
    params, progress, losses = single(recommender, inputs, setting, config, tmp_path / str(n))
    assert outcome.setting == setting and not outcome.diverged
    assert (outcome.best_epoch, outcome.epochs) == (progress.best_epoch, progress.epoch)
    assert outcome.best_value == pytest.approx(progress.best_value, abs=1e-4)
    np.testing.assert_allclose(outcome.losses.mean(axis=1), losses, atol=1e-4)
    for ours, theirs in zip(*map(jax.tree.leaves, (outcome.params, params)), strict=True):
      np.testing.assert_allclose(ours, theirs, atol=1e-4)
  finals = [outcome.losses[-1, -1] for outcome in result.outcomes]
  assert len(set(finals)) == len(finals)  # the settings do matter


def test_fitted_models(tmp_path):
  recommender, inputs = setup(EaseConfig(l2=5.0))
  settings = [{"l2": 1.0}, {"l2": 30.0}, {}]
  result = run_sweep(recommender, inputs, settings)
  for n, (outcome, l2) in enumerate(zip(result.outcomes, (1.0, 30.0, 5.0), strict=True)):
    own = dataclasses.replace(recommender, settings=EaseConfig(l2=l2))
    params, progress = fit(
      inputs, recommender=own, seed=0, workdir=tmp_path / str(n), validate=some_measure, log=SILENT
    )
    np.testing.assert_allclose(outcome.params["weights"], params["weights"], atol=1e-5)
    assert outcome.best_value == pytest.approx(progress.best_value, abs=1e-4)
    assert outcome.losses is None


def test_groups_do_not_matter_but_fit():
  recommender, inputs = setup(replaced(LightGcnConfig(), dict(width=64, layers=1, loss="softmax")))
  settings = [{"seed": seed} for seed in range(5)]
  said = []
  whole = run_sweep(recommender, inputs, settings, spread="vmap", log=Recorder(said))
  assert whole.plan.group_size == 5 and whole.plan.lanes == 1 and "5 a group" in said[0]
  needed = whole.plan.memory_mb
  small = run_sweep(recommender, inputs, settings, spread="vmap", memory_mb=needed * 0.6)
  least = run_sweep(recommender, inputs, settings, spread="map", memory_mb=needed * 0.6)
  with pytest.raises(InputError, match=r"memory_mb=0.01: not even one setting fits; it takes"):
    run_sweep(recommender, inputs, settings, memory_mb=0.01)
  assert 1 <= small.plan.group_size < 5 and small.plan.memory_mb <= needed * 0.6
  for result in (small, least):
    for a, b in zip(whole.outcomes, result.outcomes, strict=True):
      assert a.setting == b.setting
      np.testing.assert_allclose(a.losses, b.losses, atol=1e-5)


def test_patience_is_each_setting_s_own():
  """Of these two the vectors of the first become shorter, those of the second longer."""
  recommender, inputs = setup(BprMfConfig(width=4))
  settings = [{"learning_rate": 0.01}, {"learning_rate": 0.02}]
  config = dataclasses.replace(TRAIN, evaluate_every=1, epochs=6, patience=2)
  seen = []

  def size(params):
    seen.append(float(np.abs(params["user"]).sum()))
    return seen[-1]

  result = run_sweep(recommender, inputs, settings, config, validate=size)
  stopped, other = result.outcomes
  assert stopped.epochs == len(stopped.losses) == 3 and stopped.best_epoch == 1
  assert other.epochs == other.best_epoch == len(other.losses) == 6
  assert len(seen) == 3 + 6  # nobody looks at a setting that has stopped
  for outcome in result.outcomes:
    assert float(np.abs(outcome.params["user"]).sum()) == pytest.approx(outcome.best_value)


def test_one_that_diverges_leaves_the_others_alone():
  recommender, inputs = setup(BprMfConfig(width=4))
  settings = [{"learning_rate": 0.02}, {"learning_rate": 1e38}]
  good, bad = run_sweep(recommender, inputs, settings).outcomes
  assert bad.diverged and not good.diverged
  (alone,) = run_sweep(recommender, inputs, settings[:1]).outcomes
  np.testing.assert_allclose(good.losses, alone.losses, atol=1e-5)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(bad.params))


def test_another_number_compiles_nothing():
  recommender, inputs = setup(replaced(DROPPING, dict(edge_dropout=0.1)))

  def run(**fields):
    config = dataclasses.replace(TRAIN, **fields)
    state = start_training(inputs, recommender=recommender, config=config)
    return train_epochs(state, inputs, recommender=recommender, config=config, num_epochs=1)[1]

  first = run()
  sizes = epochs._run_epochs._cache_size(), epochs._new_state._cache_size()
  recommender = dataclasses.replace(
    recommender, settings=replaced(DROPPING, dict(edge_dropout=0.5))
  )
  assert not arrays_equal([first], [run(seed=7, learning_rate=0.3, weight_decay=0.2)])
  assert sizes == (epochs._run_epochs._cache_size(), epochs._new_state._cache_size())
  ease, inputs = setup(EaseConfig())
  fit_params(inputs, jax.random.key(0), recommender=ease)
  before = fitted._fit_params._cache_size()
  other = dataclasses.replace(ease, settings=EaseConfig(l2=7.0))
  fit_params(inputs, jax.random.key(0), recommender=other)
  assert fitted._fit_params._cache_size() == before


@pytest.mark.parametrize(
  ("setting", "line"),
  [
    ({"width": 8}, "width changes the program; a sweep varies numbers only: seed, learning_rate"),
    ({"epochs": 8}, "epochs changes the program"),
    ({"temperature": 1.0}, "temperature: bpr_mf has no such setting"),
    ({"learning_rat": 1.0}, "did you mean learning_rate"),
    ({"learning_rate": -1.0}, "learning_rate=-1.0: must lie in"),
  ],
)
def test_refusals(setting, line):
  recommender, inputs = setup(BprMfConfig(width=4))
  with pytest.raises(InputError, match=re.escape(line)):
    run_sweep(recommender, inputs, [{"seed": 1}, setting])
  with pytest.raises(InputError, match="at least one setting"):
    run_sweep(recommender, inputs, [])
