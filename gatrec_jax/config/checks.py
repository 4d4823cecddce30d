"""What values the settings may have, alone and together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  from gatrec_jax.config.schema import Config, ModelConfig, TrainConfig

_CHOICES: Mapping[str, tuple[str, ...]] = {
  "profile_style": ("unified", "integrated"),
  "encoder_dtype": ("float32", "bfloat16"),
  "node_features": ("table", "projected", "ids", "sum"),
  "convolution": ("full", "light"),
  "attention": ("v1", "v2", "none"),
  "combine": ("last", "mean"),
  "attention_impl": ("auto", "segment", "dense", "pallas"),
  "compute_dtype": ("float32", "bfloat16"),
  "graph": ("rated", "liked"),
  "score": ("dot", "cosine"),
  "loss": ("pairwise", "softmax"),
  "relevance": ("binary", "graded"),
  "negatives": ("uniform", "popularity", "unliked", "explicit", "mixed"),
  "schedule": ("constant", "cosine", "plateau"),
  "select_on": ("valid", "train_loss", "last"),
  "protocol": ("full", "judged", "both"),
}
_SELECTABLE = ("precision", "recall", "ndcg", "map", "mrr", "hit")
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
"""What a protocol by name leaves no choice in (gatrec_jax/data/protocols.py)."""

# field -> (lowest, highest) allowed value; None = no bound.
_RANGES: Mapping[str, tuple[float | None, float | None]] = {
  "max_bad_share": (0, 1),
  "test_share": (0, 0.95),
  "valid_share": (0, 0.95),
  "max_missing_share": (0, 1),
  "encoder_max_tokens": (2, None),
  "feature_width": (1, None),
  "feature_dropout": (0, 0.99),
  "attention_dropout": (0, 0.99),
  "edge_dropout": (0, 0.99),
  "bpr_weight": (0, None),
  "cosine_weight": (0, None),
  "l2_weight": (0, None),
  "negatives_per_positive": (1, None),
  "popularity_power": (0, None),
  "explicit_share": (0, 1),
  "batch_size": (0, None),
  "epochs": (1, None),
  "learning_rate": (0, None),
  "weight_decay": (0, None),
  "warmup_steps": (0, None),
  "decay_epochs": (0, None),
  "plateau_factor": (0.01, 0.99),
  "plateau_patience": (0, None),
  "plateau_window": (1, None),
  "gradient_clip": (0, None),
  "evaluate_every": (1, None),
  "patience": (1, None),
  "bootstrap": (0, None),
  "evaluate_memory_mb": (1, None),
  "temperature": (1e-3, None),
  "user_power": (0, 1),
  "linear_weight": (0, None),
  "linear_l2": (1e-6, None),
  "linear_rated_l2": (1e-6, None),
  "unrated_l2": (0.0, None),
  "unrated_shift": (-10, 10),
  "prior_weight": (0, None),
  "prior_ratings": (1, None),
  "edge_chunk": (0, None),
  "seed": (0, 2**32 - 1),
  "split_seed": (0, 2**32 - 1),
  "valid_seed": (0, 2**32 - 1),
}


def validated(config: Config) -> Config:
  """Returns `config` after checking choices, ranges and combinations. Raises InputError."""
  stages = (stage for stage in dataclasses.asdict(config).values() if isinstance(stage, dict))
  flat = {name: value for stage in stages for name, value in stage.items()}
  choices, ranges = dict(_CHOICES), dict(_RANGES)
  for field in dataclasses.fields(config.model):
    if field.metadata:
      choices[field.name] = field.metadata["choices"] or None
      ranges[field.name] = field.metadata["range"]
  for name, allowed in choices.items():
    if allowed and name in flat and flat[name] not in allowed:
      raise InputError(f"{name}={flat[name]}: must be one of {', '.join(allowed)}")
  for name, (low, high) in ranges.items():
    value = flat.get(name)
    if isinstance(value, int | float) and not (
      (low is None or value >= low) and (high is None or value <= high)
    ):
      raise InputError(f"{name}={value}: must lie in [{low}, {'∞' if high is None else high}]")
  train, data = config.train, config.data
  if config.model.kind == "gat":
    _check_gat(config.model, train)
  fixed = FIXED_BY_SPLIT.get(data.split, {})
  for name, value in fixed.items():
    if flat[name] != value:
      raise InputError(
        f"--{name}={flat[name]}: protocol {data.split} fixes it at {value}; leave it out"
      )
  if fixed and data.fold:
    raise InputError(
      f"protocol {data.split} makes its own split; leave it out", field="fold", value=data.fold
    )
  name, at, k = train.select_metric.partition("@")
  if not at or not k.isdigit() or not int(k) or name not in _SELECTABLE:
    raise InputError(
      f"select_metric={train.select_metric}: write one of {', '.join(_SELECTABLE)} and a cut-off, "
      "such as ndcg@10"
    )
  if not config.evaluate.ks or any(k < 1 for k in config.evaluate.ks):
    raise InputError(f"ks={config.evaluate.ks}: give positive cut-offs, such as 5,10,20")
  if train.select_on == "valid" and data.valid_share == 0:
    raise InputError("select_on=valid needs a validation part: set valid_share above 0")
  if data.negative_threshold >= data.positive_threshold:
    raise InputError(
      f"negative_threshold={data.negative_threshold}: must lie below "
      f"positive_threshold={data.positive_threshold}"
    )
  return config


def _check_gat(model: ModelConfig, train: TrainConfig) -> None:
  if len(model.layer_widths) != len(model.heads):
    raise InputError(
      f"layer_widths={model.layer_widths} and heads={model.heads}: one entry a layer in each"
    )
  if any(n < 1 for n in model.layer_widths + model.heads):
    raise InputError("layer_widths and heads: every entry must be at least 1")
  if unknown := set(model.edge_features) - {"rating", "time", "relevance"}:
    raise InputError(f"edge_features={sorted(unknown)}: only rating, time and relevance exist")
  light = model.convolution == "light"
  if light and set(model.heads) - {1}:
    raise InputError(f"heads={model.heads}: light layers have one head each")
  if light and model.attention == "v2":
    raise InputError("attention=v2: light layers have v1 or none")
  if (light or model.combine == "mean") and model.node_features == "table":
    raise InputError(
      "node_features=table: light layers and combine=mean need features as wide as the layers; use "
      "ids, projected or sum"
    )
  widths = {w * h for w, h in zip(model.layer_widths, model.heads, strict=True)}
  if (light or model.combine == "mean") and widths - {model.feature_width}:
    raise InputError(
      f"layer_widths={model.layer_widths}, heads={model.heads}: light layers and combine=mean need "
      f"layers as wide as the features (feature_width={model.feature_width})"
    )
  if train.fanouts:
    if len(train.fanouts) != len(model.layer_widths):
      raise InputError(
        f"fanouts={train.fanouts}: one entry a layer (layer_widths={model.layer_widths})"
      )
    if min(train.fanouts) < 1:
      raise InputError(f"fanouts={train.fanouts}: every entry must be at least 1")
    if not train.batch_size:
      raise InputError(
        f"fanouts={train.fanouts}: drawn for the rows of a batch; set batch_size above 0"
      )
  if not train.bpr_weight and not train.cosine_weight:
    raise InputError("bpr_weight=0 and cosine_weight=0 leave nothing to learn from")
