"""Choices for the linear channel: what is clearly better, and nothing else."""

import json
import shutil

import numpy as np
import pytest
from helpers.rerank_table import in_table_folder
from helpers.served import QUICK, TEXTS, trained

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment import linear_choices
from gatrec_jax.experiment.grid import train_alike
from gatrec_jax.experiment.linear_choices import MULTIPLES, OTHER_POWERS, choose
from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.serve.kept import CHOICES
from gatrec_jax.serve.run import load_run

OTHERS = [0.25 * multiple for multiple in MULTIPLES]


def values_with(gain_of):
  rng = np.random.default_rng(0)
  base, noise = rng.random(400), rng.normal(size=400)
  return lambda weight: base + gain_of(weight) + 0.1 * noise * (weight != 0.25)


def test_a_clearly_better_weight_is_chosen():
  weight, means = choose(0.25, OTHERS, values_with(lambda w: {1.0: 0.05, 2.0: 0.08}.get(w, 0.0)))
  assert weight == 2.0
  assert means[2.0] - means[0.25] > 0.07
  assert set(means) == {0.25, 0.0, 0.0625, 0.125, 0.5, 1.0, 2.0, 4.0, 16.0}


def test_what_may_be_chance_is_not():
  assert choose(0.25, OTHERS, values_with(lambda w: 0.005 * (w == 1.0)))[0] == 0.25


def test_equal_values_keep_the_configured_weight():
  assert choose(3.0, OTHERS, lambda w: np.ones(5))[0] == 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


def favor_others(patch):
  """Validation users favor the other powers, and twice the weight. Returns: what was asked."""
  asked = []

  def choose_last(configured, others, values_of):
    asked.append(configured)
    for option in (configured, *others):
      assert len(values_of(option)) > 1
    other = others[0] if isinstance(configured, tuple) else 2 * configured
    return other, {configured: 0.1, other: 0.2}

  patch.setattr(linear_choices, "choose", choose_last)
  return asked


@pytest.fixture
def favored(monkeypatch):
  return favor_others(monkeypatch)


CONFIG = with_fields(get_preset("best"), {**QUICK, **TEXTS, "layers": 1})


@pytest.fixture(scope="module")
def chosen(folder):
  """A run for which the others were favored, what it said, and what was asked."""
  lines = []
  with pytest.MonkeyPatch.context() as patch:
    asked = favor_others(patch)
    run, _ = train_and_evaluate(CONFIG, folder / "favored", log=Recorder(lines))
  return run, lines, asked


def test_what_is_favored_is_trained_kept_and_served(chosen):
  run, lines, asked = chosen
  model = run.config.model
  powers = model.linear_user_power, model.linear_item_power, model.linear_score_power
  assert powers == OTHER_POWERS
  assert model.linear_weight == 0.5 and run.recommender.settings.linear_weight == 0.5
  assert asked == [(0.0, 0.0, 0.0), 0.25]
  assert any("powers 0.25, 0.25, 0.15 of" in line for line in lines)
  scale = run.inputs.own.linear[1].user_scale
  assert np.unique(np.asarray(scale)).size > 1  # with powers of 0 all are 1
  again = load_run(run.workdir)
  assert again.config.model == model
  users = np.arange(4, dtype=np.int32)
  np.testing.assert_array_equal(
    again.recommender.score(again.serving_state, users),
    run.recommender.score(run.serving_state, users),
  )


def test_it_is_chosen_once_and_damage_is_made_again(folder, chosen, favored):
  place, lines = folder / "once", []
  shutil.copytree(chosen[0].workdir, place)
  kept = (place / CHOICES).read_bytes()
  train_and_evaluate(CONFIG, place, log=SILENT)
  assert favored == []
  (place / CHOICES).write_bytes(kept.replace(b"0.25", b"0.75"))
  run, _ = train_and_evaluate(CONFIG, place, log=Recorder(lines))
  assert favored == [(0.0, 0.0, 0.0), 0.25]
  assert (place / CHOICES).read_bytes() == kept
  assert run.config.model.linear_user_power == OTHER_POWERS[0]
  assert any(line.startswith("choices: made again") for line in lines)


def test_a_refit_takes_what_was_chosen_and_damage_of_it_is_found(folder, favored):
  place, lines = folder / "refit", []
  train_alike(CONFIG, place, refit=True, log=SILENT)
  model = load_run(place).config.model
  assert (model.linear_user_power, model.linear_weight) == (OTHER_POWERS[0], 0.5)
  assert favored == [(0.0, 0.0, 0.0), 0.25] and not (place / CHOICES).exists()
  record = place / "choosing" / CHOICES
  chosen = record.read_bytes()
  record.write_bytes(b"{}")
  train_alike(CONFIG, place, refit=True, log=Recorder(lines))
  assert json.loads(record.read_bytes()) == json.loads(chosen)
  assert any("choices.json" in line for line in lines)


def test_nothing_is_chosen_where_nothing_is_held_out_for_it(folder, favored):
  for name, fields in {
    "last": {"select_on": "last", "valid_share": 0.0},
    "fixed": {"linear_choice": "fixed"},
    "without": {"linear_weight": 0.0},
  }.items():
    run = trained("best", folder / name, **{**QUICK, **TEXTS, "layers": 1, **fields})
    assert not (run.workdir / CHOICES).exists()
  assert favored == []
