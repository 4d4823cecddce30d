"""Settings of a run: one frozen dataclass per stage (the presets are in presets.py).

Field names are unique over all stages, so that `--set field=value` needs no prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from gatrec_jax.config.models import PAIRWISE, LogUniform, ModelSettings, Range, Uniform


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
    split: how test rows are chosen where no shipped fold is given; `recbole_a` and `recbole_b` are
      whole protocols, which fix the shares, the thresholds and `select_metric`.
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
class ModelConfig(ModelSettings):
  """The graph attention network.

  Attributes:
    node_features: `table` (trainable, initialized from text), `projected` (text through a linear
      map), `ids` (trainable, initialized at random), or `sum` (projected + ids).
    feature_width: width of `ids`, `projected` and `sum` features.
    layer_widths: units per head, one entry a layer; empty = no graph, the features are scored.
    heads: heads per layer, concatenated.
    convolution: `full` (the paper's layer) or `light` (attention alone, without weight matrices;
      one head, as wide as the features).
    attention: `v2` (Brody et al. 2022; not of `light` layers), `v1` (Veličković et al. 2018), or
      `none` (the mean; of `light` layers weighted by the edges' relevance).
    combine: the `last` layer's vectors, or the `mean` over the features and all layers.
    graph: its edges: all that is `rated` in training, or what is `liked`.
    edge_features: columns of the edge features: `rating`, `time`, `relevance` (its
      logarithm; gatrec_jax/data/feedback.py).
    self_loops: add an edge from each node to itself, with the mean of its incoming features.
    attention_slope, activation_slope: LeakyReLU slopes inside attention and after LayerNorm.
    feature_dropout, attention_dropout, edge_dropout: shares dropped in training.
    score: `dot` or `cosine` of the final user and item vectors.
    loss: `pairwise` (BPR and cosine over drawn negatives) or `softmax` over all items (a batch is
      then counted in users).
    temperature: of `softmax`.
    relevance: what `softmax` should give: `binary` (all positives alike) or `graded` (every rating,
      by its relevance).
    user_power: a user weighs (the sum of their relevance)^−user_power in the `softmax`.
    linear_weight: of a linear item–item channel in the score (EASE with two relations, in closed
      form from the training ratings); 0 = none. Each channel's scores are divided by their standard
      deviation over the items, user by user.
    linear_l2, linear_rated_l2: its penalties.
    unrated_l2: items without training ratings get the scores that a ridge regression with this
      penalty predicts from texts, genres, tags, people and years
      (gatrec_jax/models/gat/unrated_items.py); 0 = those of the network.
    unrated_shift: added to these, in standard deviations of the user's scores, but not for items
      that are new: nobody having rated an item that could be rated speaks against it.
    prior_weight: of the items' popularity (the logarithm of their likes) beside the scores of users
      who came after training, both in standard deviations; 0 = none. It falls with the number n of
      a user's ratings as (1 − n ÷ prior_ratings)².
    prior_ratings: from so many on such a user's scores stand alone.
    attention_impl: `segment`, `dense`, `pallas` (row kernels for GPUs), or `auto`: the former two,
      whichever is quicker by the cost model of this device and graph; the result is the same.
    edge_chunk: edges that `segment` handles at once; 0 = chosen for the device.
    compute_dtype: `float32`, or `bfloat16` for the linear maps and what attention gathers; softmax,
      sums, norms, loss and parameters stay in float32.
  """

  kind: ClassVar[str] = "gat"
  trains_with: ClassVar[tuple[str, ...]] = (*PAIRWISE, "bpr_weight", "cosine_weight", "fanouts")
  searched_training: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 3e-2),
    "cosine_weight": Uniform(0.0, 2.0),
    "weight_decay": LogUniform(1e-6, 1e-2),
  }
  node_features: str = "table"
  feature_width: int = 64
  layer_widths: tuple[int, ...] = (64, 64, 64)
  heads: tuple[int, ...] = (4, 4, 1)
  convolution: str = "full"
  attention: str = "v2"
  combine: str = "last"
  graph: str = "rated"
  edge_features: tuple[str, ...] = ("rating",)
  self_loops: bool = False
  attention_slope: float = 0.2
  activation_slope: float = 0.01
  feature_dropout: float = 0.0
  attention_dropout: float = 0.0
  edge_dropout: float = 0.0
  score: str = "dot"
  loss: str = "pairwise"
  temperature: float = 0.25
  relevance: str = "binary"
  user_power: float = 0.0
  linear_weight: float = 0.0
  linear_l2: float = 300.0
  linear_rated_l2: float = 600.0
  unrated_l2: float = 0.0
  unrated_shift: float = -1.0
  prior_weight: float = 0.0
  prior_ratings: int = 15
  attention_impl: str = "auto"
  edge_chunk: int = 0
  compute_dtype: str = "float32"

  @property
  def reads_text(self) -> bool:
    return self.node_features != "ids"

  @property
  def reads_attributes(self) -> bool:
    return self.unrated_l2 > 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The objective, the optimizer and when to stop.

  Attributes:
    seed: of parameters, negatives, dropout and the order of positives.
    bpr_weight, cosine_weight, l2_weight: of the parts of the objective.
    negatives: `uniform`, `popularity`, `unliked` (uniform, dislikes included), `explicit` (dislikes
      alone) or `mixed`.
    negatives_per_positive: how many are drawn for each positive.
    popularity_power: β of `popularity` (weight = training count of positives to the power β).
    explicit_share: of `mixed`, the probability that a negative is one of the user's dislikes.
    batch_size: positives (for some models users) per step; 0 = all of them in one step.
    fanouts: edges drawn for each node of a batch, and for each of those that they lead to, nearest
      layer first; empty = the whole graph in every step.
    epochs: at most.
    learning_rate, weight_decay: of AdamW.
    schedule: `constant`, `cosine` (to zero over `epochs`) or `plateau` (on the training loss).
    decay_epochs: over which `cosine` goes to zero; 0 = `epochs`.
    warmup_steps: linear warm-up from zero.
    plateau_factor, plateau_patience, plateau_window: of `plateau`: the rate is multiplied by the
      factor when the mean loss of a window of epochs has not fallen for more than `patience`
      epochs, rounded up to windows.
    gradient_clip: global norm; 0 = none.
    select_on: `valid` (`select_metric` on the validation part), `train_loss` (its mean since the
      last look) or `last` (the last epoch, whatever it is); chooses the checkpoint.
    select_metric: any metric of full ranking, such as `ndcg@10` or `mrr@10`.
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
  fanouts: tuple[int, ...] = ()
  epochs: int = 300
  learning_rate: float = 1e-3
  weight_decay: float = 1e-5
  schedule: str = "plateau"
  decay_epochs: int = 0
  warmup_steps: int = 0
  plateau_factor: float = 0.4
  plateau_patience: int = 5
  plateau_window: int = 1
  gradient_clip: float = 0.0
  select_on: str = "valid"
  select_metric: str = "ndcg@10"
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
  model: ModelSettings = ModelConfig()
  train: TrainConfig = TrainConfig()
  evaluate: EvaluateConfig = EvaluateConfig()


STAGES = ("data", "text", "model", "train", "evaluate")
