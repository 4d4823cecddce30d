"""Settings: presets, assignments, checks, JSON."""

import dataclasses

import pytest

from gatrec_jax.config.checks import validated
from gatrec_jax.config.convolutions import FullConvolution, LightConvolution, NoConvolution
from gatrec_jax.config.fields import entries, options_of, unmet_need
from gatrec_jax.config.models import MODELS
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.overrides import (
  differences,
  field_types,
  from_json,
  is_field,
  parse_assignments,
  setting_of,
  to_json,
  with_fields,
)
from gatrec_jax.config.presets import PRESETS, get_preset
from gatrec_jax.config.schema import STAGES, Config, ModelConfig
from gatrec_jax.errors import InputError

BEST, PAPER, TINY, EASE, LIGHTGCN = (
  get_preset(name) for name in ("best", "paper", "tiny", "ease", "lightgcn")
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name):
  config = get_preset(name)
  assert validated(config) == config and config.preset == name
  assert from_json(to_json(config)) == config
  assert {n for stage in STAGES for n in to_json(config)[stage]} - {"kind"} == set(
    field_types(config)
  )
  assert "python" in PRESETS[name].__doc__ and hash(config) == hash(get_preset(name))


@pytest.mark.parametrize("cls", [ModelConfig, *MODELS.values()], ids=lambda cls: cls.kind)
def test_names_are_unique_over_the_stages_whatever_is_chosen(cls):
  rest = [n for s in STAGES if s != "model" for n in entries(getattr(Config(), s))]
  assert len(rest) == len(set(rest))
  choices = [options for _, _, options in options_of(cls())]
  own = {f.name for f in dataclasses.fields(cls) if "options" not in f.metadata}
  assert not own & set(rest)
  for options in choices:
    for option in options:
      names = {option.selector, *entries(option)}
      assert not names & (own | set(rest))
  assert not choices or len({one[0].selector for one in choices}) == len(choices)


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_has_an_effect_or_is_refused(name):
  """A setting without effect cannot be changed; the message says what it needs."""
  config, refused = get_preset(name), 0
  for field, (stage, kind) in field_types(config).items():
    unmet = unmet_need(getattr(config, stage), field)
    if unmet is None:
      continue
    own = setting_of(config, field)
    assert with_fields(config, {field: own}) == config
    if isinstance(own, str):
      choices = entries(getattr(config, stage))[field].metadata["choices"]
      other = next(word for word in choices if word != own)
    elif isinstance(own, tuple):
      other = ("time",)
    else:
      other = (own / 2 or 0.5) if kind is float else own + 1
    with pytest.raises(InputError, match=rf"{field}=.*: has no effect with `{unmet}`"):
      with_fields(config, {field: other})
    refused += 1
  assert refused or not (config.model.learned or name == "text_ridge")


@pytest.mark.parametrize(
  ("config", "values", "words"),
  [
    (
      BEST,
      {"cosine_weight": "1"},
      "cosine_weight: not a setting of the softmax objective; the pairwise objective has it "
      "(`loss=pairwise`)",
    ),
    (PAPER, {"temperature": "1"}, "not a setting of the pairwise objective; the softmax objective"),
    (BEST, {"activation_slope": "1"}, "the full convolution has it (`convolution=full`)"),
    (PAPER, {"layers": "1"}, "not a setting of the full convolution; the light convolution has it"),
    (
      PAPER,
      {"convolution": "none", "edge_dropout": "0.1"},
      "not a setting of the none convolution; the full and light convolutions have it "
      "(`convolution=full` or `convolution=light`)",
    ),
    (LIGHTGCN, {"user_power": "1"}, "the softmax objective has it (`loss=softmax`)"),
    (
      get_preset("bpr_mf"),
      {"temperature": "1"},
      "bpr_mf has no such setting (gat, lightgcn, sasrec, gru4rec have",
    ),
    (get_preset("bpr_mf"), {"loss": "softmax"}, "bpr_mf has no such setting (gat, lightgcn have"),
    (get_preset("sasrec"), {"heads": "3"}, "heads=3: must divide `width="),
    (get_preset("multi_vae"), {"l2_weight": "1"}, "multi_vae has no such setting"),
    (EASE, {"learning_rate": "1"}, "learning_rate: ease has no such setting (gat, bpr_mf"),
    (
      EASE,
      {"heads": "1"},
      "heads: ease has no such setting (gat, sasrec have it); ease has form, item_power, l2, "
      "neighbors, rank, relevance",
    ),
    (EASE, {"l2": "-1"}, "l2=-1.0: must lie in"),
    (LIGHTGCN, {"loss": "mse"}, "loss=mse: must be one of pairwise, softmax"),
    (BEST, {"convolution": "odd"}, "convolution=odd: must be one of full, light, none"),
    (PAPER, {"linear_l2": "9"}, "linear_l2=9: has no effect with `linear_weight=0.0`"),
    (TINY, {"explicit_share": "0.5"}, "has no effect with `negatives=uniform`"),
    (BEST, {"linear_weight": "0", "linear_l2": "9"}, "has no effect with `linear_weight=0.0`"),
    (BEST, {"schedule": "cosine", "plateau_window": "2"}, "no effect with `schedule=cosine`"),
  ],
)
def test_settings_that_something_else_has_or_needs_are_refused(config, values, words):
  with pytest.raises(InputError) as caught:
    with_fields(config, values)
  assert words in str(caught.value)
  assert caught.value.field in values


def test_a_word_chooses_settings_which_start_from_its_defaults():
  changed = with_fields(BEST, {"loss": "pairwise", "cosine_weight": "0.5"})
  assert changed.model.objective == PairwiseObjective(cosine_weight=0.5)
  assert with_fields(changed, {"loss": "softmax"}).model.objective == SoftmaxObjective()
  assert with_fields(BEST, {"loss": "softmax"}) == BEST  # the preset's values stay
  assert with_fields(BEST, {"convolution": "none"}).model.convolution == NoConvolution()
  full = with_fields(BEST, {"heads": "8,8", "convolution": "full", "layer_widths": "8,8"})
  assert full.model.convolution == FullConvolution(layer_widths=(8, 8), heads=(8, 8))
  light = with_fields(full, {"convolution": "light", "layers": 1})
  assert light.model.convolution == LightConvolution(layers=1)
  # LightGCN's losses are what was published: no cosine term.
  softmax = with_fields(LIGHTGCN, {"loss": "softmax"})
  assert softmax.model.objective == SoftmaxObjective(temperature=0.2)
  back = with_fields(softmax, {"loss": "pairwise"})
  assert back.model.objective == PairwiseObjective(cosine_weight=0.0)
  for config in (changed, full, light, softmax, back):
    assert from_json(to_json(config)) == config
  assert with_fields(LIGHTGCN, {"learning_rate": "0.5"}).train.learning_rate == 0.5


def test_auto_is_a_word_where_a_setting_allows_it():
  softmax = get_preset("lightgcn_softmax")
  assert softmax.model.objective.popularity_weight is None
  fixed = with_fields(softmax, {"popularity_weight": "0.5"})
  assert with_fields(fixed, {"popularity_weight": "auto"}) == softmax
  with pytest.raises(InputError, match=r"popularity_weight=-1.0: must lie in \[0, 1\]"):
    with_fields(softmax, {"popularity_weight": -1})


def test_names_of_all_settings_are_known():
  names = ("loss", "temperature", "bpr_weight", "heads", "layers", "kl_weight", "epochs", "fold")
  assert all(map(is_field, names)) and not is_field("objective") and not is_field("kind")


def test_a_protocol_by_name_fixes_thresholds_shares_and_metric():
  config = with_fields(EASE, {"split": "recbole_b"})
  assert (config.data.positive_threshold, config.data.valid_share) == (3.0, 0.1)
  assert config.train.select_metric == "mrr@10"
  with pytest.raises(InputError, match="positive_threshold=4.0: protocol recbole_a fixes it"):
    with_fields(EASE, {"split": "recbole_a", "positive_threshold": 4})
  with pytest.raises(InputError, match="fold=u1: protocol recbole_a makes its own split"):
    with_fields(PAPER, {"split": "recbole_a", "fold": "u1"})


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "auc@10", "coverage@10"])
def test_metrics_that_cannot_choose_are_refused(metric):
  with pytest.raises(InputError, match="select_metric"):
    with_fields(PAPER, {"select_metric": metric})


def test_an_unknown_preset_names_the_nearest():
  with pytest.raises(InputError, match=r"model=eaze: unknown; did you mean ease"):
    get_preset("eaze", field="model")


def test_text_is_read_as_the_type_of_the_setting():
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
  convolution = config.model.convolution
  assert convolution.layer_widths == (8, 4) and convolution.heads == (2, 1)
  assert convolution.self_loops is False and config.train.learning_rate == 0.01
  assert config.train.epochs == 7 and convolution.edge_features == ("rating", "time")
  drawn = with_fields(config, parse_assignments(["fanouts=10,5", "batch_size=64"]))
  assert setting_of(drawn, "fanouts") == (10, 5) and from_json(to_json(drawn)) == drawn
  assert with_fields(config, {"edge_features": ""}).model.convolution.edge_features == ()


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ({"learning_rates": "1"}, "no such setting; did you mean learning_rate"),
    ({"epochs": "many"}, "epochs=many: must be a whole number"),
    ({"epochs": "0"}, "epochs=0: must lie in [1, ∞]"),
    ({"learning_rate": "nan"}, "must be a number"),
    ({"self_loops": "maybe"}, "true or false"),
    ({"score": "euclid"}, "score=euclid: must be one of dot, cosine"),
    ({"heads": "1"}, "layer_widths=32,32: `heads=1`: give one entry a layer"),
    ({"layer_widths": "0", "heads": "1"}, "at least 1"),
    ({"layer_widths": "", "heads": ""}, "at least one layer; `convolution=none`"),
    ({"edge_features": "mood"}, "edge_features=mood: there are only rating"),
    ({"ks": "0"}, "cut-offs"),
    (
      {"negative_threshold": "4", "positive_threshold": "4"},
      "must lie below `positive_threshold=4.0`",
    ),
    ({"valid_share": "0"}, "`valid_share` above 0"),
    ({"bpr_weight": "0", "cosine_weight": "0"}, "nothing to learn"),
    ({"test_share": "1.5"}, "0.95"),
    ({"convolution": "light", "attention": "v2"}, "attention=v2: must be one of v1, none"),
    ({"convolution": "light", "node_features": "table"}, "`convolution=light` needs features"),
    ({"combine": "mean", "node_features": "table"}, "node_features=table"),
    ({"combine": "mean", "heads": "2,1"}, "`combine=mean` needs layers as wide"),
    ({"linear_weight": "-1"}, "linear_weight"),
    ({"fanouts": "10"}, "one entry a layer, 2 in all"),
    ({"fanouts": "10,0"}, "every entry must be at least 1"),
    ({"fanouts": "10,10", "batch_size": "0"}, "set `batch_size` above 0"),
    (
      {
        "convolution": "light",
        "node_features": "sum",
        "fanouts": "10,10",
        "drawn_edges": "5",
        "batch_size": "64",
      },
      "set `drawn_edges=0`",
    ),
    ({"attention_impl": "fast"}, "auto, segment, dense, pallas"),
    ({"compute_dtype": "float16"}, "float32, bfloat16"),
  ],
)
def test_impossible_values_are_named(values, words):
  with pytest.raises(InputError) as caught:
    with_fields(TINY, values)
  assert words in str(caught.value)


def test_differences_name_fields_and_both_values():
  changed = with_fields(TINY, {"seed": 3, "ks": "10"})
  assert differences(TINY, changed, stages=("train",)) == ["seed: 0 → 3"]
  assert len(differences(TINY, changed)) == 2
  other = with_fields(TINY, {"loss": "softmax", "l2_weight": 0.1})
  assert differences(TINY, other) == ["loss: pairwise → softmax", "l2_weight: 0.0 → 0.1"]
  assert differences(EASE, LIGHTGCN, stages=("model",)) == ["model: ease → lightgcn"]


@pytest.mark.parametrize(
  ("stage", "name"), [("train", "warp"), ("train", "cosine_weight"), ("model", "kind")]
)
def test_settings_of_another_version_are_refused(stage, name):
  tree = to_json(BEST)
  tree[stage][name] = 9
  with pytest.raises(InputError, match=f"{name}|model=9"):
    from_json(tree)


@pytest.mark.parametrize(
  "tree",
  [
    None,
    [],
    {"model": []},
    {"model": {"kind": []}},
    {"train": {"epochs": float("inf")}},
    {"train": {"a\nb" * 900: 1}},
  ],
)
def test_settings_that_are_damaged_are_one_line(tree):
  with pytest.raises(InputError) as error:
    from_json(tree)
  assert "\n" not in str(error.value) and len(str(error.value)) < 2000
