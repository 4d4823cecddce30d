"""The components that an ablation leaves out."""

import pytest

from gatrec_jax.config.overrides import to_json, with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.components import chosen_components, components_of

MODELS = {
  "best": get_preset("best"),
  "best_next_item": get_preset("best", split="next_item"),
  "paper": get_preset("paper"),
  "tiny": get_preset("tiny"),
  "popular": with_fields(get_preset("best"), {"popularity_weight": 0.02}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_component_changes_the_model_in_its_own_way(name):
  config = MODELS[name]
  trees = [to_json(config), *(to_json(one.without(config)) for one in components_of(config))]
  models = [repr(tree["model"]) for tree in trees]
  assert len(set(models)) == len(models) > 4
  for tree in trees[1:]:
    assert {key: tree[key] for key in ("data", "text", "train", "evaluate")} == {
      key: trees[0][key] for key in ("data", "text", "train", "evaluate")
    }


def test_what_each_model_has():
  names = {name: [one.name for one in components_of(config)] for name, config in MODELS.items()}
  graph, text = ["layers", "attention"], ["text", "unrated", "linear", "relevance"]
  assert names["best"] == [*graph, *text, "popularity"]
  history = ["order", "history_attention", "latest", "gap"]
  assert names["best_next_item"] == [*graph, *history, *text]
  assert names["paper"] == names["tiny"] == [*graph, "text", "cosine", "negatives"]


def test_the_flags_say_the_same_as_the_settings():
  for config in MODELS.values():
    for one in components_of(config):
      words = dict(flag.removeprefix("--set=").split("=", 1) for flag in one.flags.split())
      assert with_fields(config, words) == one.without(config)


def test_without_layers_ids_are_kept_and_a_graph_of_events_is_none():
  config = MODELS["best_next_item"]
  [layers] = chosen_components(config, ["layers"])
  model = layers.without(config).model
  assert model.convolution.num_layers == 0 and model.graph == "rated" and model.reads_order


def test_components_are_chosen_by_name_once():
  names = [one.name for one in chosen_components(MODELS["best"], ["text", "layers", "text"])]
  assert names == ["text", "layers"]
  with pytest.raises(InputError, match="components=layer: did you mean layers"):
    chosen_components(MODELS["best"], ["layer"])
  with pytest.raises(InputError, match="components=cosine: is no component of this model; it has"):
    chosen_components(MODELS["best"], ["cosine"])
  with pytest.raises(InputError, match="preset=ease: only the GAT"):
    components_of(get_preset("ease"))
