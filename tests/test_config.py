"""Settings: presets, assignments, checks, JSON."""

import dataclasses

import pytest

from gatrec_jax.config import (
  PRESETS,
  STAGES,
  Config,
  differences,
  field_types,
  from_json,
  get_preset,
  parse_assignments,
  to_json,
  validated,
  with_fields,
)
from gatrec_jax.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name):
  config = get_preset(name)
  assert validated(config) == config and config.preset == name
  assert from_json(to_json(config)) == config
  assert "python" in PRESETS[name].__doc__


def test_field_names_are_unique_over_the_stages():
  names = [f.name for s in STAGES for f in dataclasses.fields(getattr(Config(), s))]
  assert len(names) == len(set(names)) == len(field_types())


def test_text_is_read_as_the_field_s_type():
  config = with_fields(Config(), parse_assignments(
    ["layer_widths=8,4", "heads=2,1", "self_loops=false", "learning_rate=1e-2", "epochs=7",
     "edge_features=rating,time", "valid_share=0.2"]
  ))
  assert config.model.layer_widths == (8, 4) and config.model.heads == (2, 1)
  assert config.model.self_loops is False and config.train.learning_rate == 0.01
  assert config.train.epochs == 7 and config.model.edge_features == ("rating", "time")
  none = with_fields(config, {"layer_widths": "", "heads": ""})
  assert none.model.layer_widths == ()


@pytest.mark.parametrize(("values", "words"), [
  ({"learning_rates": "1"}, "learning_rate"),
  ({"epochs": "many"}, "whole number"),
  ({"epochs": "0"}, "epochs=0"),
  ({"learning_rate": "nan"}, "number"),
  ({"self_loops": "maybe"}, "true or false"),
  ({"score": "euclid"}, "dot, cosine"),
  ({"heads": "1"}, "one entry a layer"),
  ({"layer_widths": "0", "heads": "1"}, "at least 1"),
  ({"edge_features": "mood"}, "mood"),
  ({"ks": "0"}, "cut-offs"),
  ({"negative_threshold": "4"}, "positive_threshold"),
  ({"valid_share": "0"}, "valid_share above 0"),
  ({"bpr_weight": "0", "cosine_weight": "0"}, "nothing to learn"),
  ({"test_share": "1.5"}, "0.95"),
])
def test_impossible_values_are_named(values, words):
  with pytest.raises(InputError, match=words):
    with_fields(get_preset("tiny"), values)


def test_differences_name_fields_and_both_values():
  changed = with_fields(get_preset("tiny"), {"seed": 3, "ks": "10"})
  assert differences(get_preset("tiny"), changed, stages=("train",)) == ["seed: 0 → 3"]
  assert len(differences(get_preset("tiny"), changed)) == 2


def test_a_setting_from_a_later_version_is_refused():
  tree = to_json(Config())
  tree["train"]["warp"] = 9
  with pytest.raises(InputError, match="warp"):
    from_json(tree)
