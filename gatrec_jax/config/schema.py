"""Settings of a run: one frozen dataclass per stage (the presets are in presets.py).

Setting names are unique over all stages, so that `--set name=value` needs no prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

from gatrec_jax.config.convolutions import (
  Convolution,
  FullConvolution,
  LightConvolution,
  NoConvolution,
)
from gatrec_jax.config.fields import LogUniform, Range, Uniform, one_of, setting
from gatrec_jax.config.histories import History, OrderedHistory, WholeHistory
from gatrec_jax.config.objectives import Objective, PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.settings import ModelSettings

_SEED = 2**32 - 1  # the largest


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The interactions, and how they are split.

  Attributes:
    dataset: `demo`, a MovieLens name, or a path to your own table.
    data_dir: folder with archives or unpacked folders ("" = $GATREC_DATA, then the user's cache).
    valid_file, test_file: further files of your own table, where its split is published as files;
      `dataset` is then the training part.
    user_column, item_column, rating_column, time_column, event_column: column names of your own
      table ("" = no such column; of events, "" = found by its name).
    columns: names of the columns of a table that does not begin with them, comma-separated.
    separator, encoding, time_format: of your own table ("" = found out; `time_format` as of
      `strptime`).
    item_metadata: file of items with any text fields ("" = none).
    item_noun: what an item is called, such as `book` ("" = as names of columns and files say).
    max_bad_share: largest tolerated share of unreadable rows in your own files.
    feedback: what the values of your own table are: `stars`, `implicit`, `counts`, `events`, or
      `auto` = found out (data/meaning.py).
    zero_means: `unrated` or `rating`, a 0 beside other values.
    duplicates: which value several rows of a user and an item give together; `auto` = the latest
      star rating, the sum of counts, the strongest event.
    event_weights: `view:1,cart:3`, the weight of each event ("" = those of well-known names).
    fold: `u1`…`u5`, `ua`, `ub` (ml-100k), or the 1-based part of `split=kfold`.
    split: how test rows are chosen when no shipped fold is given; `none` tests nothing; `next_item`
      is the leave-one-out protocol of sequential recommendation, where the validation ratings are
      in the histories that a finished run serves from; `recbole_a` and `recbole_b` are complete
      protocols, which also fix the shares, the thresholds and `select_metric`.
    test_share, split_seed: share of rows (or users, items) held out, and the seed that draws them.
    valid_share, valid_seed: share of the *training* rows set aside for validation, and its seed.
      They are chosen as the test rows are (data/splits.py: carve_validation). With `next_item`
      every share above 0 means the row before the test row of each user.
    positive_threshold: ratings at or above it are positives; None = four fifths of the scale.
    negative_threshold: ratings at or below it are explicit negatives; None = two fifths.
  """

  dataset: str = "demo"
  data_dir: str = ""
  valid_file: str = ""
  test_file: str = ""
  user_column: str = "user_id"
  item_column: str = "item_id"
  rating_column: str = "rating"
  time_column: str = "timestamp"
  event_column: str = ""
  columns: str = ""
  separator: str = ""
  encoding: str = ""
  time_format: str = ""
  item_metadata: str = ""
  item_noun: str = ""
  max_bad_share: float = setting(0.01, low=0, high=1)
  feedback: str = setting("auto", choices=("auto", "stars", "implicit", "counts", "events"))
  zero_means: str = setting("unrated", choices=("unrated", "rating"))
  duplicates: str = setting(
    "auto", choices=("auto", "last", "first", "max", "strongest", "sum", "count", "mean")
  )
  event_weights: str = ""
  fold: str = ""
  split: str = "random"
  test_share: float = setting(0.2, low=0, high=0.95)
  split_seed: int = setting(0, low=0, high=_SEED)
  valid_share: float = setting(0.1, low=0, high=0.95)
  valid_seed: int = setting(0, low=0, high=_SEED)
  positive_threshold: float | None = None
  negative_threshold: float | None = None

  @property
  def split_kind(self) -> str:
    """`split`, or `shipped` where the test rows come with the data."""
    is_shipped = self.test_file or (self.fold and self.split != "kfold")
    return "shipped" if is_shipped else self.split


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Texts of users and items, and the encoder that turns them into vectors.

  Attributes:
    item_profiles, user_profiles: JSONL files of profiles ("" = built without an LLM).
    profile_style: `unified` (the paper's Markdown schema) or `integrated` (one paragraph).
    encoder: folder, hub id, GGUF file, name of a decoder, `minilm`, `lexical`, or `auto`.
    encoder_max_tokens: longer texts are truncated to this length; a run reports how many.
    encoder_dtype: `float32` or `bfloat16`, the encoder's arithmetic.
    encoder_prompt: instruction put before every text ("" = the one in the encoder's folder).
    encoder_pooling: a text's vector is the `mean` of its tokens' or that of its `last` token;
      `auto` = as the encoder's folder says, otherwise the mean.
    max_missing_share: largest tolerated share of users, or of items, without any text.
  """

  item_profiles: str = ""
  user_profiles: str = ""
  profile_style: str = setting("unified", choices=("unified", "integrated"))
  encoder: str = "auto"
  encoder_max_tokens: int = setting(256, low=2)
  encoder_dtype: str = setting("float32", choices=("float32", "bfloat16"))
  encoder_prompt: str = ""
  encoder_pooling: str = setting("auto", choices=("auto", "mean", "last"))
  max_missing_share: float = setting(0.5, low=0, high=1)


@dataclasses.dataclass(frozen=True)
class ModelConfig(ModelSettings):
  """The graph attention network (Ebrat et al. 2025) and its variants.

  Settings of the convolution and of the objective exist only for the chosen one. A number that
  belongs to a channel (`linear_l2` to `linear_weight`, …) can be set only while the channel is on.

  Attributes:
    node_features: `table` (trainable, initialized from text), `projected` (text through a linear
      map), `ids` (trainable, initialized at random), or `sum` (projected + ids). Without any text
      they are ids.
    feature_width: width of `projected`, `ids` and `sum` features.
    text_hidden: width of a hidden layer between text vectors and features, which makes the map of
      texts nonlinear (as in AlphaRec, Sheng et al. 2024, arXiv 2407.05441); 0 = a linear map.
    text_rate: multiple of `learning_rate` with which a model with such a layer is trained; where
      there is no text, it has no layer, and its ids learn at the full rate.
    graph: its edges: everything `rated` in training, only what is `liked`, or edges between items
      from each event to the user's `next` one (with `history=ordered`).
    history: `whole` (users are nodes of the graph) or `ordered` (attention over their events).
    convolution: `full` (the paper's layers), `light` (attention alone, without weight matrices), or
      `none` (the features themselves are scored).
    score: `dot` product or `cosine` of the final user and item vectors.
    objective: chosen by `loss`: `pairwise` or `softmax`.
    linear_weight: weight of a linear item–item channel in the score (EASE on likes and on all
      ratings, in closed form from the training ratings, with the relevance of the objective); 0 =
      none. Each channel's scores are divided by their standard deviation over the items, user by
      user.
    linear_choice: `fixed`, or `valid`: other powers and, after training, a multiple of the weight
      take the place of the configured ones if they are clearly better on the validation part.
    linear_l2, linear_rated_l2: penalties of the linear channel.
    linear_user_power, linear_item_power, linear_score_power, linear_form, linear_rank,
      linear_neighbors: of the linear channel, as in `EaseRatedConfig`.
    unrated_l2: items without training ratings get the scores that a ridge regression with this
      penalty predicts from texts, genres, tags, people and years (models/gat/channels.py); 0 = they
      keep those of the network.
    unrated_shift: added to these predictions, in standard deviations of the user's scores, unless
      the item is new: that nobody rated an item that was there to be rated is evidence against it.
    unrated_likes: weight of a user's likes beside their scores in this regression, both in standard
      deviations.
    prior_weight: weight of the items' popularity (the logarithm of their likes) in the scores of
      users who came after training, in standard deviations of both; 0 = none. It falls with the
      number n of a user's ratings as (1 − n ÷ prior_ratings)².
    prior_ratings: number of ratings from which popularity no longer counts.
    compute_dtype: `float32`, or `bfloat16` for the linear maps and the vectors that attention
      gathers; softmax, sums, norms, loss and parameters stay in float32.
  """

  kind: ClassVar[str] = "gat"
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 3e-2),
    "cosine_weight": Uniform(0.0, 2.0),
    "weight_decay": LogUniform(1e-6, 1e-2),
  }
  node_features: str = setting("table", choices=("table", "projected", "ids", "sum"))
  feature_width: int = setting(64, low=1, needs="node_features=projected|ids|sum")
  text_hidden: int = setting(0, low=0, needs="node_features=projected|sum")
  text_rate: float = setting(1.0, low=0, needs="text_hidden")
  graph: str = setting("rated", choices=("rated", "liked", "next"))
  history: History = one_of(WholeHistory(), OrderedHistory())
  convolution: Convolution = one_of(FullConvolution(), LightConvolution(), NoConvolution())
  score: str = setting("dot", choices=("dot", "cosine"))
  objective: Objective = one_of(PairwiseObjective(), SoftmaxObjective())
  # What scoring reads is not dynamic: parameters alone would no longer say what is recommended.
  linear_weight: float = setting(0.0, low=0, search=LogUniform(0.05, 1.0), dynamic=False)
  linear_choice: str = setting("fixed", choices=("fixed", "valid"), needs="linear_weight")
  linear_l2: float = setting(
    300.0, low=1e-6, search=LogUniform(30, 3000), needs="linear_weight", dynamic=False
  )
  linear_rated_l2: float = setting(600.0, low=1e-6, needs="linear_weight", dynamic=False)
  linear_user_power: float = setting(0.0, low=0, high=1, needs="linear_weight", dynamic=False)
  linear_item_power: float = setting(0.0, low=0, high=1, needs="linear_weight", dynamic=False)
  linear_score_power: float = setting(0.0, low=0, high=1, needs="linear_weight", dynamic=False)
  linear_form: str = setting("auto", choices=("auto", "exact", "spectral"), needs="linear_weight")
  linear_rank: int = setting(256, low=1, needs="linear_weight")
  linear_neighbors: int = setting(32, low=0, needs="linear_weight")
  unrated_l2: float = setting(0.0, low=0, dynamic=False)
  unrated_shift: float = setting(-1.0, low=-10, high=10, needs="unrated_l2", dynamic=False)
  unrated_likes: float = setting(0.0, low=0, needs="unrated_l2", dynamic=False)
  prior_weight: float = setting(0.0, low=0, dynamic=False)
  prior_ratings: int = setting(15, low=1, needs="prior_weight")
  compute_dtype: str = setting("float32", choices=("float32", "bfloat16"))

  @property
  def reads_order(self) -> bool:
    """Whether users are attention over their events in the order of time."""
    return isinstance(self.history, OrderedHistory)

  @property
  def rate_multiple(self) -> float:
    return self.text_rate if self.hidden_of_text else 1.0

  @property
  def hidden_of_text(self) -> int:
    """Width of the hidden layer behind text vectors; 0 where there is none."""
    return self.text_hidden if self.node_features in ("projected", "sum") else 0

  @property
  def reads_text(self) -> bool:
    return self.node_features != "ids"

  def without_text(self) -> Self:
    return dataclasses.replace(self, node_features="ids")

  @property
  def reads_attributes(self) -> bool:
    return self.unrated_l2 > 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The optimizer, and when training stops.

  Every model that learns by gradient steps uses all of these; a model that is fitted as a whole has
  only `seed` and `select_metric` (by which a search compares its trials). `decay_epochs` belongs to
  the `cosine` schedule, `plateau_*` to `plateau`, and `patience` to `valid` and `train_loss`.

  Attributes:
    seed: of parameters, negatives, dropout and the order of the rows.
    batch_size: rows per step: positives, users under a softmax and for Mult-VAE, or packed
      histories for SASRec; 0 = all rows in one step.
    epochs: at most.
    learning_rate, weight_decay: of AdamW.
    schedule: `constant`, `cosine` (to zero over `epochs`) or `plateau` (on the training loss).
    decay_epochs: over which `cosine` goes to zero; 0 = `epochs`.
    warmup_steps: linear warm-up from zero.
    plateau_factor, plateau_patience, plateau_window: of `plateau`: the rate is multiplied by the
      factor when the mean loss of a window of epochs has not fallen for more than
      `plateau_patience` epochs, rounded up to windows.
    gradient_clip: largest global norm of the gradient; 0 = no clipping.
    select_on: how the checkpoint is chosen: `valid` (`select_metric` on the validation part),
      `train_loss` (its mean since the last evaluation) or `last` (the last epoch).
    select_metric: any metric of full ranking, such as `ndcg@10` or `mrr@10`.
    evaluate_every: epochs between two evaluations of `select_on`, each with a checkpoint.
    patience: training stops after this many epochs without a better value of `select_on`.
  """

  seed: int = setting(0, low=0, high=_SEED, dynamic=True)
  batch_size: int = setting(0, low=0)
  epochs: int = setting(300, low=1)
  learning_rate: float = setting(1e-3, low=0)
  weight_decay: float = setting(1e-5, low=0)
  schedule: str = setting("plateau", choices=("constant", "cosine", "plateau"))
  decay_epochs: int = setting(0, low=0, needs="schedule=cosine")
  warmup_steps: int = setting(0, low=0)
  plateau_factor: float = setting(0.4, low=0.01, high=0.99, needs="schedule=plateau", dynamic=False)
  plateau_patience: int = setting(5, low=0, needs="schedule=plateau")
  plateau_window: int = setting(1, low=1, needs="schedule=plateau")
  gradient_clip: float = setting(0.0, low=0)
  select_on: str = setting("valid", choices=("valid", "train_loss", "last"))
  select_metric: str = setting("ndcg@10")
  evaluate_every: int = setting(5, low=1)
  patience: int = setting(15, low=1, needs="select_on=valid|train_loss")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """How results are computed; changing it never changes what was trained.

  Attributes:
    protocol: `full`, `judged` or `both`.
    ks: cut-offs.
    bootstrap: resamples of the users for the 95 % intervals.
    evaluate_memory_mb: bound on the blocks of scores in memory at a time.
  """

  protocol: str = setting("full", choices=("full", "judged", "both"))
  ks: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
  bootstrap: int = setting(1000, low=0)
  evaluate_memory_mb: int = setting(512, low=1)


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run. `preset` only records where the values came from."""

  preset: str = "paper"
  data: DataConfig = DataConfig()
  text: TextConfig = TextConfig()
  model: ModelSettings = ModelConfig()
  train: TrainConfig = TrainConfig()
  evaluate: EvaluateConfig = EvaluateConfig()


STAGES = ("data", "text", "model", "train", "evaluate")
