"""Settings of a run: one frozen dataclass per stage, and the named presets.

Field names are unique over all stages, so that `--set field=value` needs no prefix.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Mapping
from typing import Any

from gatrec_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which interactions, and how they are divided.

  Attributes:
    dataset: `demo`, a MovieLens name, or a path to the user's own table.
    data_dir: folder with archives or unpacked folders ("" = $GATREC_DATA, then the user's cache).
    user_column, item_column, rating_column, time_column: names in the user's own table.
    item_metadata: file with `item_id` and any text fields ("" = none).
    max_bad_share: largest share of unreadable rows in the user's files, in [0, 1].
    fold: `u1`…`u5`, `ua`, `ub` (ml-100k), or the 1-based part of `--split=kfold`.
    split: how test rows are chosen where no shipped fold is given.
    test_share, split_seed: share of rows (users, items) held out, and the seed that chooses them.
    valid_share, valid_seed: share of the *training* rows set aside for choosing, and its seed.
    positive_threshold: ratings at or above it are positives.
    negative_threshold: ratings at or below it are explicit negatives.
  """

  dataset: str = "demo"
  data_dir: str = ""
  user_column: str = "user_id"
  item_column: str = "item_id"
  rating_column: str = "rating"
  time_column: str = "timestamp"
  item_metadata: str = ""
  max_bad_share: float = 0.01
  fold: str = ""
  split: str = "random"
  test_share: float = 0.2
  split_seed: int = 0
  valid_share: float = 0.1
  valid_seed: int = 0
  positive_threshold: float = 4.0
  negative_threshold: float = 2.0


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Texts of users and items, and the encoder that turns them into vectors.

  Attributes:
    item_profiles, user_profiles: JSONL files of given profiles ("" = built without an LLM).
    profile_style: `unified` (the paper's Markdown schema) or `integrated` (one paragraph).
    encoder: folder, hub id, `minilm`, `lexical`, or `auto`.
    encoder_max_tokens: longer texts are cut there, and counted.
    encoder_dtype: `float32` or `bfloat16`, the encoder's arithmetic.
    encoder_prompt: an instruction put before every text ("" = what the encoder's folder says).
    max_missing_share: largest share of users, or of items, without any text.
  """

  item_profiles: str = ""
  user_profiles: str = ""
  profile_style: str = "unified"
  encoder: str = "auto"
  encoder_max_tokens: int = 256
  encoder_dtype: str = "float32"
  encoder_prompt: str = ""
  max_missing_share: float = 0.5


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The graph attention network.

  Attributes:
    node_features: `table` (trainable, initialised from text), `projected` (text through a linear
      map), `ids` (trainable, initialised at random), or `sum` (projected + ids).
    feature_width: width of `ids`, `projected` and `sum` features.
    layer_widths: units per head, one entry a layer; empty = no graph, the features are scored.
    heads: heads per layer, concatenated.
    attention: `v2` (Brody et al. 2022) or `v1` (Veličković et al. 2018).
    edge_features: columns of the edge features: `rating`, `time`.
    self_loops: add an edge from each node to itself, with the mean of its incoming features.
    attention_slope, activation_slope: LeakyReLU slopes inside attention and after LayerNorm.
    feature_dropout, attention_dropout, edge_dropout: shares dropped in training.
    score: `dot` or `cosine` of the final user and item vectors.
    edge_chunk: edges handled at once by the attention; 0 = chosen for the device.
  """

  node_features: str = "table"
  feature_width: int = 64
  layer_widths: tuple[int, ...] = (64, 64, 64)
  heads: tuple[int, ...] = (4, 4, 1)
  attention: str = "v2"
  edge_features: tuple[str, ...] = ("rating",)
  self_loops: bool = False
  attention_slope: float = 0.2
  activation_slope: float = 0.01
  feature_dropout: float = 0.0
  attention_dropout: float = 0.0
  edge_dropout: float = 0.0
  score: str = "dot"
  edge_chunk: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The objective, the optimiser and when to stop.

  Attributes:
    seed: of parameters, negatives, dropout and the order of positives.
    bpr_weight, cosine_weight, l2_weight: of the parts of the objective.
    negatives: `uniform`, `popularity`, `explicit` (dislikes) or `mixed`.
    negatives_per_positive: how many are drawn for each positive.
    popularity_power: β of `popularity` (weight = training count of positives to the power β).
    explicit_share: of `mixed`, the probability that a negative is one of the user's dislikes.
    batch_size: positives per step; 0 = all of them in one step.
    epochs: at most.
    learning_rate, weight_decay: of AdamW.
    schedule: `constant`, `cosine` (to zero over `epochs`) or `plateau` (on the training loss).
    warmup_steps: linear warm-up from zero.
    plateau_factor, plateau_patience, plateau_window: of `plateau`: the rate is multiplied by the
      factor when the mean loss of a window of epochs has not fallen for more than `patience`
      epochs, rounded up to windows.
    gradient_clip: global norm; 0 = none.
    select_on: `valid` (NDCG@10 on the validation part) or `train_loss` (its mean since the last
      look); chooses the checkpoint.
    evaluate_every: epochs between two looks at `select_on` (and two checkpoints).
    patience: epochs without a better value of `select_on` after which training stops.
  """

  seed: int = 0
  bpr_weight: float = 1.0
  cosine_weight: float = 1.0
  l2_weight: float = 0.0
  negatives: str = "uniform"
  negatives_per_positive: int = 1
  popularity_power: float = 0.75
  explicit_share: float = 0.25
  batch_size: int = 0
  epochs: int = 300
  learning_rate: float = 1e-3
  weight_decay: float = 1e-5
  schedule: str = "plateau"
  warmup_steps: int = 0
  plateau_factor: float = 0.4
  plateau_patience: int = 5
  plateau_window: int = 1
  gradient_clip: float = 0.0
  select_on: str = "valid"
  evaluate_every: int = 5
  patience: int = 15


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """How results are computed; changing it never changes what was trained.

  Attributes:
    protocol: `full`, `judged` or `both`.
    ks: cut-offs.
    bootstrap: resamples of users behind the 95 % intervals.
    evaluate_memory_mb: bound on the score block held at once.
  """

  protocol: str = "full"
  ks: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
  bootstrap: int = 1000
  evaluate_memory_mb: int = 512


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that a run depends on. `preset` only records where the values came from."""

  preset: str = "paper"
  data: DataConfig = DataConfig()
  text: TextConfig = TextConfig()
  model: ModelConfig = ModelConfig()
  train: TrainConfig = TrainConfig()
  evaluate: EvaluateConfig = EvaluateConfig()


STAGES = ("data", "text", "model", "train", "evaluate")

_CHOICES: Mapping[str, tuple[str, ...]] = {
  "profile_style": ("unified", "integrated"),
  "encoder_dtype": ("float32", "bfloat16"),
  "node_features": ("table", "projected", "ids", "sum"),
  "attention": ("v1", "v2"),
  "score": ("dot", "cosine"),
  "negatives": ("uniform", "popularity", "explicit", "mixed"),
  "schedule": ("constant", "cosine", "plateau"),
  "select_on": ("valid", "train_loss"),
  "protocol": ("full", "judged", "both"),
}
# field -> (lowest, highest) allowed value; None = no bound.
_RANGES: Mapping[str, tuple[float | None, float | None]] = {
  "max_bad_share": (0, 1), "test_share": (0, 0.95), "valid_share": (0, 0.95),
  "max_missing_share": (0, 1), "encoder_max_tokens": (2, None), "feature_width": (1, None),
  "feature_dropout": (0, 0.99), "attention_dropout": (0, 0.99), "edge_dropout": (0, 0.99),
  "bpr_weight": (0, None), "cosine_weight": (0, None), "l2_weight": (0, None),
  "negatives_per_positive": (1, None), "popularity_power": (0, None), "explicit_share": (0, 1),
  "batch_size": (0, None), "epochs": (1, None), "learning_rate": (0, None),
  "weight_decay": (0, None), "warmup_steps": (0, None), "plateau_factor": (0.01, 0.99),
  "plateau_patience": (0, None), "plateau_window": (1, None), "gradient_clip": (0, None),
  "evaluate_every": (1, None),
  "patience": (1, None), "bootstrap": (0, None), "evaluate_memory_mb": (1, None),
  "edge_chunk": (0, None), "seed": (0, 2**32 - 1), "split_seed": (0, 2**32 - 1),
  "valid_seed": (0, 2**32 - 1),
}  # fmt: skip


def paper() -> Config:
  """The published configuration (Ebrat et al. 2025), trained on all of the training fold.

  python -m launch.train --preset=paper --dataset=ml-100k --fold=u1 --encoder=minilm, with the
  published profiles: 2 CPU cores, 4 minutes (2 more to embed), NDCG@10 .427 ± .004 under full
  ranking and .535 ± .005 judged-only (3 seeds). BUILD_NOTES.md, "The paper preset".
  """
  return Config(
    preset="paper",
    data=DataConfig(valid_share=0.0),
    train=TrainConfig(
      select_on="train_loss", evaluate_every=5, plateau_window=5, plateau_patience=4
    ),
  )


def tiny() -> Config:
  """Small and quick, chosen on validation: python -m launch.train --preset=tiny, 2 CPU cores.

  10 seconds on `demo`, NDCG@10 .152 (1 seed, lexical encoder). BUILD_NOTES.md, "Quickstart".
  """
  return Config(
    preset="tiny",
    model=ModelConfig(
      node_features="sum", feature_width=64, layer_widths=(32, 32), heads=(2, 2),
      feature_dropout=0.1, edge_dropout=0.1,
    ),
    train=TrainConfig(
      batch_size=8192, epochs=60, learning_rate=5e-3, schedule="cosine", cosine_weight=0.3,
      negatives_per_positive=4, evaluate_every=2, patience=12,
    ),
  )  # fmt: skip


PRESETS: Mapping[str, Callable[[], Config]] = {"paper": paper, "tiny": tiny}


def get_preset(name: str) -> Config:
  """The preset called `name`. Raises InputError for an unknown one, naming those that exist."""
  if name not in PRESETS:
    raise InputError(f"--preset={name}: unknown; there are {', '.join(sorted(PRESETS))}")
  return PRESETS[name]()


def field_types() -> dict[str, tuple[str, Any]]:
  """Maps every settable field to its stage and type."""
  out = {}
  for stage in STAGES:
    cls = {f.name: f for f in dataclasses.fields(Config)}[stage].default.__class__
    for name, kind in typing.get_type_hints(cls).items():
      out[name] = (stage, kind)
  return out


def with_fields(config: Config, values: Mapping[str, Any]) -> Config:
  """A copy of `config` with the named fields replaced, then checked.

  Args:
    config: where the other fields come from.
    values: field name -> value, as the field's type or as text to be read as that type.
  Raises:
    InputError: unknown field (the nearest ones are named), unreadable or impossible value.
  """
  known = field_types()
  by_stage: dict[str, dict[str, Any]] = {}
  for name, value in values.items():
    if name not in known:
      near = difflib.get_close_matches(name, known, n=3) or sorted(known)
      raise InputError(f"no setting is called '{name}'; did you mean {', '.join(near)}?")
    stage, kind = known[name]
    by_stage.setdefault(stage, {})[name] = _parse(name, value, kind)
  stages = {s: dataclasses.replace(getattr(config, s), **v) for s, v in by_stage.items()}
  return validated(dataclasses.replace(config, **stages))


def parse_assignments(texts: list[str]) -> dict[str, str]:
  """Reads `--set` values, "field=value" each. Raises InputError where there is no `=`."""
  out = {}
  for text in texts:
    name, equals, value = text.partition("=")
    if not equals:
      raise InputError(f"--set {text}: write it as field=value")
    out[name.strip()] = value.strip()
  return out


def validated(config: Config) -> Config:
  """Returns `config` after checking choices, ranges and combinations. Raises InputError."""
  flat = {k: v for s in STAGES for k, v in dataclasses.asdict(getattr(config, s)).items()}
  for name, allowed in _CHOICES.items():
    if flat[name] not in allowed:
      raise InputError(f"{name}={flat[name]}: must be one of {', '.join(allowed)}")
  for name, (low, high) in _RANGES.items():
    value = flat[name]
    if not ((low is None or value >= low) and (high is None or value <= high)):
      raise InputError(f"{name}={value}: must lie in [{low}, {'∞' if high is None else high}]")
  model, train, data = config.model, config.train, config.data
  if len(model.layer_widths) != len(model.heads):
    raise InputError(
      f"layer_widths={model.layer_widths} and heads={model.heads}: one entry a layer in each"
    )
  if any(n < 1 for n in model.layer_widths + model.heads):
    raise InputError("layer_widths and heads: every entry must be at least 1")
  if unknown := set(model.edge_features) - {"rating", "time"}:
    raise InputError(f"edge_features={sorted(unknown)}: only rating and time exist")
  if not config.evaluate.ks or any(k < 1 for k in config.evaluate.ks):
    raise InputError(f"ks={config.evaluate.ks}: give positive cut-offs, such as 5,10,20")
  if train.select_on == "valid" and data.valid_share == 0:
    raise InputError("select_on=valid needs a validation part: set valid_share above 0")
  if not train.bpr_weight and not train.cosine_weight:
    raise InputError("bpr_weight=0 and cosine_weight=0 leave nothing to learn from")
  if data.negative_threshold >= data.positive_threshold:
    raise InputError(
      f"negative_threshold={data.negative_threshold}: must lie below "
      f"positive_threshold={data.positive_threshold}"
    )
  return config


def to_json(config: Config) -> dict[str, Any]:
  """`config` as nested dictionaries of plain values (tuples as lists)."""

  def plain(value: Any) -> Any:
    if isinstance(value, dict):
      return {k: plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value

  return plain(dataclasses.asdict(config))


def from_json(tree: Mapping[str, Any]) -> Config:
  """The inverse of `to_json`. Raises InputError for fields that this version does not know."""
  flat = {name: value for stage in STAGES for name, value in tree.get(stage, {}).items()}
  base = Config(preset=tree.get("preset", "paper"))
  return with_fields(base, flat)


def differences(a: Config, b: Config, *, stages: tuple[str, ...] = STAGES) -> list[str]:
  """Readable lines for the fields in which `a` and `b` differ, e.g. "seed: 0 → 1".

  Where the files of a named data set lie (`data_dir`) makes no difference.
  """
  lines = []
  for stage in stages:
    left, right = (dataclasses.asdict(getattr(c, stage)) for c in (a, b))
    changed = [k for k in left if left[k] != right[k] and k != "data_dir"]
    lines += [f"{k}: {left[k]} → {right[k]}" for k in changed]
  return lines


def _parse(name: str, value: Any, kind: Any) -> Any:
  """`value` as `kind`; text is read, lists become tuples."""
  if typing.get_origin(kind) is tuple:
    (item, _) = typing.get_args(kind)
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
      parts = [parts]
    return tuple(_parse(name, p.strip() if isinstance(p, str) else p, item)
                 for p in parts if p != "")  # fmt: skip
  if kind is bool:
    word = str(value).lower()
    if word in ("true", "1", "yes"):
      return True
    if word in ("false", "0", "no"):
      return False
    raise InputError(f"{name}={value}: must be true or false")
  try:
    if kind is int and isinstance(value, float):
      raise ValueError
    number = kind(value)
  except (TypeError, ValueError):
    label = {int: "a whole number", float: "a number"}.get(kind, str(kind))
    raise InputError(f"{name}={value}: must be {label}") from None
  if kind is float and number != number:
    raise InputError(f"{name}={value}: must be a number")
  return number
