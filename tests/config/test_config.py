"""Settings: presets, assignments, checks, JSON."""

import dataclasses

import pytest

from gatrec_jax.config.checks import validated
from gatrec_jax.config.overrides import (
  differences,
  field_types,
  from_json,
  parse_assignments,
  to_json,
  with_fields,
)
from gatrec_jax.config.presets import PRESETS, get_preset
from gatrec_jax.config.schema import STAGES, Config
from gatrec_jax.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name):
  config = get_preset(name)
  assert validated(config) == config and config.preset == name
  assert from_json(to_json(config)) == config
  assert "python" in PRESETS[name].__doc__


@pytest.mark.parametrize("preset", PRESETS)
def test_field_names_are_unique_over_the_stages(preset):
  config = get_preset(preset)
  names = [f.name for s in STAGES for f in dataclasses.fields(getattr(config, s))]
  assert len(names) == len(set(names)) and set(field_types(config)) <= set(names)
  unused = set(names) - set(field_types(config))
  assert unused <= {f.name for f in dataclasses.fields(config.train)}


def test_settings_that_a_model_has_not_are_refused():
  with pytest.raises(InputError, match="learning_rate: ease has no such setting"):
    with_fields(get_preset("ease"), {"learning_rate": 1})
  with pytest.raises(InputError, match="l2=-1.0: must lie in"):
    with_fields(get_preset("ease"), {"l2": -1})
  with pytest.raises(InputError, match="loss=mse: must be one of bpr, softmax"):
    with_fields(get_preset("lightgcn"), {"loss": "mse"})
  assert with_fields(get_preset("lightgcn"), {"learning_rate": "0.5"}).train.learning_rate == 0.5


def test_a_protocol_by_name_fixes_thresholds_shares_and_metric():
  config = with_fields(get_preset("ease"), {"split": "recbole_b"})
  assert (config.data.positive_threshold, config.data.valid_share) == (3.0, 0.1)
  assert config.train.select_metric == "mrr@10"
  with pytest.raises(InputError, match="positive_threshold=4.0: protocol recbole_a fixes it"):
    with_fields(get_preset("ease"), {"split": "recbole_a", "positive_threshold": 4})
  with pytest.raises(InputError, match="fold=u1: protocol recbole_a makes its own split"):
    with_fields(get_preset("paper"), {"split": "recbole_a", "fold": "u1"})


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "auc@10", "coverage@10"])
def test_metrics_that_cannot_choose_are_refused(metric):
  with pytest.raises(InputError, match="select_metric"):
    with_fields(get_preset("paper"), {"select_metric": metric})


def test_an_unknown_preset_names_the_nearest():
  with pytest.raises(InputError, match=r"model=eaze: unknown; did you mean ease"):
    get_preset("eaze", field="model")


def test_text_is_read_as_the_field_s_type():
  config = with_fields(
    Config(),
    parse_assignments(
      [
        "layer_widths=8,4",
        "heads=2,1",
        "self_loops=false",
        "learning_rate=1e-2",
        "epochs=7",
        "edge_features=rating,time",
        "valid_share=0.2",
      ]
    ),
  )
  assert config.model.layer_widths == (8, 4) and config.model.heads == (2, 1)
  assert config.model.self_loops is False and config.train.learning_rate == 0.01
  assert config.train.epochs == 7 and config.model.edge_features == ("rating", "time")
  drawn = with_fields(config, parse_assignments(["fanouts=10,5", "batch_size=64"]))
  assert drawn.train.fanouts == (10, 5) and from_json(to_json(drawn)) == drawn
  none = with_fields(config, {"layer_widths": "", "heads": ""})
  assert none.model.layer_widths == ()


@pytest.mark.parametrize(
  ("values", "words"),
  [
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
    ({"convolution": "light", "attention": "v1"}, "one head each"),
    ({"convolution": "light", "heads": "1,1", "layer_widths": "64,64"}, "attention=v2"),
    ({"convolution": "light", "heads": "1,1", "attention": "v1"}, "as wide as the features"),
    ({"combine": "mean", "node_features": "table"}, "node_features=table"),
    ({"linear_weight": "-1"}, "linear_weight"),
    ({"loss": "mse"}, "pairwise, softmax"),
    ({"fanouts": "10"}, "one entry a layer"),
    ({"fanouts": "10,0"}, "every entry must be at least 1"),
    ({"fanouts": "10,10", "batch_size": "0"}, "set batch_size above 0"),
    ({"attention_impl": "fast"}, "auto, segment, dense, pallas"),
    ({"compute_dtype": "float16"}, "float32, bfloat16"),
  ],
)
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
