"""The components of the GAT that an ablation leaves out, one at a time."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.config.histories import OrderedHistory
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.errors import InputError

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Component:
  """Something that a model can be trained without.

  Attributes:
    name: one word. what: what is left out, and what takes its place.
    settings: of the model without it, where they differ from the whole one's.
  """

  name: str
  what: str
  settings: Settings

  def without(self, config: Config) -> Config:
    """`config` without it."""
    return with_fields(config, self.settings)

  @property
  def flags(self) -> str:
    """The same as flags of `launch.train`."""
    return " ".join(f"--set={name}={_word(value)}" for name, value in self.settings.items())


def components_of(config: Config) -> list[Component]:
  """The components that a model has, whatever the data.

  Returns: those which can be left out one by one; each changes the configuration.
  Raises: InputError for a model that is not a GAT.

  >>> from gatrec_jax.config.presets import get_preset
  >>> [one.name for one in components_of(get_preset("best"))][:4]
  ['layers', 'attention', 'text', 'unrated']
  """
  model = config.model
  if not isinstance(model, ModelConfig):
    raise InputError(
      "only the GAT (best, paper, tiny) has components to leave out",
      field="preset",
      value=config.preset,
    )
  return [*_of_graph(model), *_of_history(model), *_of_text(model), *_of_objective(model)]


def chosen_components(config: Config, names: Sequence[str]) -> list[Component]:
  """The components with these names, or all where there are none.

  Raises: InputError for a name that this model has no component of.
  """
  found = {one.name: one for one in components_of(config)}
  for name in names:
    if name not in found:
      near = difflib.get_close_matches(name, found, n=1)
      hint = f"did you mean {near[0]}?" if near else "is no component of this model; "
      hint += "" if near else f"it has {', '.join(found)}"
      raise InputError(hint, field="components", value=name)
  return [found[name] for name in dict.fromkeys(names)] if names else list(found.values())


def _of_graph(model: ModelConfig) -> list[Component]:
  if not model.convolution.num_layers:
    return []
  layers = {"convolution": "none"} | ({"graph": "rated"} if model.graph == "next" else {})
  found = [Component("layers", "graph layers (ids and texts are scored as they are)", layers)]
  if model.convolution.attention != "none":
    attention = {"attention": "none"}
    found.append(
      Component("attention", "attention of the layers (the mean of neighbors)", attention)
    )
  return found


def _of_history(model: ModelConfig) -> list[Component]:
  history = model.history
  if not isinstance(history, OrderedHistory):
    return []
  features = history.history_features
  unordered = {
    "history_query": "mean",
    "history_latest": False,
    "history_features": tuple(name for name in features if name == "relevance"),
  }
  found = [
    Component("order", "the order of events (attention knows only which they are)", unordered)
  ]
  if history.history_attention != "none":
    mean = {"history_attention": "none"}
    found.append(Component("history_attention", "attention over events (their mean)", mean))
  if history.history_latest:
    latest = {"history_latest": False}
    found.append(Component("latest", "the linear map of the latest event", latest))
  if "gap" in features:
    others = {"history_features": tuple(name for name in features if name != "gap")}
    found.append(Component("gap", "the time between events", others))
  return found


def _of_text(model: ModelConfig) -> list[Component]:
  found, unrated = [], {"unrated_l2": 0.0} if model.unrated_l2 else {}
  if model.reads_text:
    ids = {"node_features": "ids"} | unrated
    found.append(Component("text", "texts and attributes (ids alone)", ids))
  if unrated:
    found.append(Component("unrated", "scores of items without ratings from their texts", unrated))
  return found


def _of_objective(model: ModelConfig) -> list[Component]:
  objective, found = model.objective, []
  if model.linear_weight:
    found.append(Component("linear", "the linear item–item channel", {"linear_weight": 0.0}))
  if isinstance(objective, SoftmaxObjective):
    if objective.relevance == "graded":
      binary = {"relevance": "binary"}
      found.append(Component("relevance", "graded relevance (likes alone, all alike)", binary))
    if objective.popularity_weight != 0:
      plain = {"popularity_weight": 0.0}
      found.append(Component("popularity", "popularity beside cosines", plain))
  if isinstance(objective, PairwiseObjective):
    if objective.cosine_weight and objective.bpr_weight:
      found.append(Component("cosine", "the cosine term", {"cosine_weight": 0.0}))
    if objective.negatives != "unliked":
      alike = {"negatives": "unliked"}
      found.append(Component("negatives", "the choice of negatives (all that is not liked)", alike))
  return found


def _word(value: Any) -> str:
  if isinstance(value, tuple):
    return ",".join(map(str, value))
  return f"{value:g}" if isinstance(value, float) else str(value).lower()
