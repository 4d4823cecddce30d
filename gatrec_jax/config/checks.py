"""Rules over several settings; each setting's own range is declared on its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gatrec_jax.config.convolutions import (
  Convolution,
  FullConvolution,
  LightConvolution,
  NoConvolution,
)
from gatrec_jax.config.fields import check_values, value_of
from gatrec_jax.config.histories import HISTORY_FEATURES, OrderedHistory
from gatrec_jax.config.objectives import PairwiseObjective
from gatrec_jax.config.schema import (
  STAGES,
  Config,
  DataConfig,
  ModelConfig,
  TextConfig,
  TrainConfig,
)
from gatrec_jax.config.sequences import SasRecConfig
from gatrec_jax.errors import InputError

_SELECTABLE = ("precision", "recall", "ndcg", "map", "mrr", "hit")
_NOUN = re.compile(r"[^\W\d_][^\W_]*(?:[ '-][^\W_]+){0,3}")
_EDGE_FEATURES = ("rating", "time", "relevance")

FIXED_BY_SPLIT: Mapping[str, Mapping[str, Any]] = {
  name: {
    "positive_threshold": 3.0,
    "negative_threshold": 2.0,
    "test_share": 0.1,
    "valid_share": 0.1,
    "valid_seed": 0,
    "select_metric": metric,
  }
  for name, metric in (("recbole_a", "ndcg@10"), ("recbole_b", "mrr@10"))
}
"""Settings that a protocol fixes (gatrec_jax/data/protocols.py)."""


def validated(config: Config) -> Config:
  """Returns `config` after checking all values and combinations. Raises InputError."""
  for stage in STAGES:
    check_values(getattr(config, stage))
  _check_data(config.data, config.train)
  _check_text(config.text)
  _check_selection(config.train, config.data)
  if not config.evaluate.ks or any(k < 1 for k in config.evaluate.ks):
    raise InputError(
      "give positive cut-offs, such as 5,10,20",
      field="ks",
      value=",".join(map(str, config.evaluate.ks)),
    )
  objective = getattr(config.model, "objective", None)
  if isinstance(objective, PairwiseObjective):
    if not objective.bpr_weight and not objective.cosine_weight:
      raise InputError("`bpr_weight=0` and `cosine_weight=0` leave nothing to learn from")
  if isinstance(config.model, ModelConfig):
    _check_convolution(config.model.convolution, config.model)
    _check_fanouts(config.model.convolution, config.train)
    _check_history(config.model, config.train)
  if isinstance(config.model, SasRecConfig) and config.model.width % config.model.heads:
    raise InputError(
      f"must divide `width={config.model.width}`", field="heads", value=config.model.heads
    )
  return config


def _check_history(model: ModelConfig, train: TrainConfig) -> None:
  history = model.history
  if not isinstance(history, OrderedHistory):
    if model.graph == "next":
      raise InputError("needs `history=ordered`", field="graph", value="next")
    return
  if unknown := set(history.history_features) - set(HISTORY_FEATURES):
    raise InputError(
      f"there are only {', '.join(HISTORY_FEATURES)}",
      field="history_features",
      value=",".join(sorted(unknown)),
    )
  convolution = model.convolution
  if not isinstance(convolution, NoConvolution) and model.graph != "next":
    raise InputError(
      "`history=ordered` needs `graph=next`: other graphs would show an event before it happens",
      field="graph",
      value=model.graph,
    )
  if not train.batch_size:
    raise InputError(
      "with `history=ordered` a step hides what comes after its events, so it must not have all of "
      "them; give a number of events, such as 1024",
      field="batch_size",
      value=0,
    )
  if convolution.fanouts or getattr(convolution, "drawn_edges", 0):
    name = "fanouts" if convolution.fanouts else "drawn_edges"
    raise InputError("`history=ordered` reads all edges; leave it out", field=name)
  if isinstance(convolution, FullConvolution) and convolution.combine == "last":
    width = convolution.layer_widths[-1] * convolution.heads[-1]
  else:
    width = model.feature_width
  if width % history.history_heads:
    raise InputError(
      f"must divide the width of the vectors, {width}",
      field="history_heads",
      value=history.history_heads,
    )
  if isinstance(model.objective, PairwiseObjective):
    raise InputError("`history=ordered` needs softmax", field="loss", value="pairwise")
  if model.objective.l2_weight:
    raise InputError("has no effect with `history=ordered`", field="l2_weight")


def _check_text(text: TextConfig) -> None:
  if text.encoder == "lexical":
    for name in ("encoder_prompt", "encoder_pooling"):
      if (value := getattr(text, name)) != getattr(TextConfig, name):
        raise InputError("has no effect with `encoder=lexical`", field=name, value=value)


def _check_data(data: DataConfig, train: TrainConfig) -> None:
  fixed = FIXED_BY_SPLIT.get(data.split, {})
  for name, value in fixed.items():
    own = value_of(train if name == "select_metric" else data, name)
    if own != value:
      raise InputError(
        f"protocol {data.split} fixes it at {value}; leave it out", field=name, value=own
      )
  if fixed and data.fold:
    raise InputError(
      f"protocol {data.split} makes its own split; leave it out", field="fold", value=data.fold
    )
  if data.fold and data.split not in ("random", "kfold", "shipped"):
    raise InputError(f"and `split={data.split}` exclude each other", field="fold", value=data.fold)
  if data.item_noun and not _NOUN.fullmatch(data.item_noun):
    raise InputError(
      "must be a noun in the singular, such as book", field="item_noun", value=data.item_noun
    )
  if data.test_file and (data.fold or data.split != "random"):
    raise InputError(
      "files that are split already leave nothing to `split` and `fold`",
      field="test_file",
      value=data.test_file,
    )
  low, high = data.negative_threshold, data.positive_threshold
  if low is not None and high is not None and low >= high:
    raise InputError(
      f"must lie below `positive_threshold={data.positive_threshold}`",
      field="negative_threshold",
      value=data.negative_threshold,
    )


def _check_selection(train: TrainConfig, data: DataConfig) -> None:
  name, at, k = train.select_metric.partition("@")
  if not at or not k.isdigit() or not int(k) or name not in _SELECTABLE:
    raise InputError(
      f"write one of {', '.join(_SELECTABLE)} and a cut-off, such as ndcg@10",
      field="select_metric",
      value=train.select_metric,
    )
  if train.select_on == "valid" and data.valid_share == 0:
    raise InputError(
      "needs a validation part: set `valid_share` above 0", field="select_on", value="valid"
    )


def _check_convolution(convolution: Convolution, model: ModelConfig) -> None:
  if unknown := set(convolution.edge_features) - set(_EDGE_FEATURES):
    raise InputError(
      f"there are only {', '.join(_EDGE_FEATURES)}",
      field="edge_features",
      value=",".join(sorted(unknown)),
    )
  if isinstance(convolution, FullConvolution):
    widths, heads = (
      ",".join(map(str, values)) for values in (convolution.layer_widths, convolution.heads)
    )
    if not convolution.layer_widths:
      raise InputError(
        "give at least one layer; `convolution=none` has none", field="layer_widths", value=""
      )
    if len(convolution.layer_widths) != len(convolution.heads):
      raise InputError(
        f"`heads={heads}`: give one entry a layer in each", field="layer_widths", value=widths
      )
    if any(n < 1 for n in convolution.layer_widths + convolution.heads):
      raise InputError(
        f"`heads={heads}`: every entry must be at least 1", field="layer_widths", value=widths
      )
  light = isinstance(convolution, LightConvolution)
  if not light and convolution.combine == "last":
    return
  kind = "`convolution=light`" if light else "`combine=mean`"
  if model.node_features == "table":
    raise InputError(
      f"{kind} needs features as wide as the layers; use ids, projected or sum",
      field="node_features",
      value="table",
    )
  if not light:
    outputs = {w * h for w, h in zip(convolution.layer_widths, convolution.heads, strict=True)}
    if outputs != {model.feature_width}:
      raise InputError(
        f"`heads={heads}`: {kind} needs layers as wide as the features "
        f"(`feature_width={model.feature_width}`)",
        field="layer_widths",
        value=widths,
      )


def _check_fanouts(convolution: Convolution, train: TrainConfig) -> None:
  fanouts = convolution.fanouts
  if not fanouts:
    return
  shown = ",".join(map(str, fanouts))
  if len(fanouts) != convolution.num_layers:
    raise InputError(
      f"give one entry a layer, {convolution.num_layers} in all", field="fanouts", value=shown
    )
  if min(fanouts) < 1:
    raise InputError("every entry must be at least 1", field="fanouts", value=shown)
  if not train.batch_size:
    raise InputError(
      "edges are drawn around the rows of a batch; set `batch_size` above 0",
      field="fanouts",
      value=shown,
    )
  if getattr(convolution, "drawn_edges", 0):
    raise InputError(
      "edges are drawn around the rows of a batch already; set `drawn_edges=0`",
      field="fanouts",
      value=shown,
    )
