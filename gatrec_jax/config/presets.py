"""The named configurations, with their cost and their NDCG@10 under full ranking.

Unless a docstring says otherwise: MovieLens 100K, fold u1, two CPU cores, seconds of training
alone. Commands, seeds, devices and commits are in launch/benchmarks/RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping

from gatrec_jax.config.baselines import BASELINES
from gatrec_jax.config.convolutions import FullConvolution, LightConvolution
from gatrec_jax.config.histories import OrderedHistory
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.schema import Config, DataConfig, ModelConfig, TrainConfig
from gatrec_jax.errors import InputError


def paper() -> Config:
  """The published configuration (Ebrat et al. 2025), trained on the whole training fold.

  python -m launch.train --preset=paper --dataset=ml-100k --fold=u1 --encoder=minilm, with the
  published profiles: 4 minutes (2 more to embed), NDCG@10 .427 ± .004, and .535 ± .005 judged-only
  (3 seeds).
  """
  return Config(
    preset="paper",
    data=DataConfig(valid_share=0.0),
    train=TrainConfig(
      select_on="train_loss", evaluate_every=5, plateau_window=5, plateau_patience=4
    ),
  )


def best() -> Config:
  """The recommended model, chosen on validation parts of fold u1.

  Light graph attention over graded ratings and text, a softmax over all items, and a linear channel
  (EASE on likes and on all ratings). Items without ratings are ranked by their texts and
  attributes; for users who come after training with few ratings, popularity counts more.

  python -m launch.train --dataset=ml-100k --fold=u1 --refit: 40 to 60 s (90 more to embed with
  MiniLM), NDCG@10 .493 (.481 without --refit; seed 0). Mean of u1–u5: .4213, where EASE has .3956.
  """
  return Config(
    preset="best",
    model=ModelConfig(
      node_features="sum",
      feature_width=64,
      convolution=LightConvolution(
        layers=2, attention="v1", edge_features=("relevance",), combine="mean"
      ),
      score="cosine",
      objective=SoftmaxObjective(
        temperature=0.0, relevance="graded", popularity_weight=None, user_power=0.25
      ),
      linear_weight=0.25,
      linear_choice="valid",
      unrated_l2=5.0,
      unrated_likes=1.0,
      prior_weight=4.0,
    ),
    train=TrainConfig(
      epochs=300,
      learning_rate=2e-2,
      weight_decay=0.0,
      schedule="constant",
      evaluate_every=10,
      patience=60,
    ),
  )


def best_next_item(split: str = "next_item") -> Config:
  """`best` where the next event of each user is to be predicted.

  Users are attention over their events, and items, described by texts alone (by ids where there are
  none), exchange messages along edges from each event to the next one. Chosen on validation events.

  python -m launch.train --dataset=FILE --split=next_item. On Amazon's beauty products (22,363
  users, 12,101 items): 9 minutes on busy cores, NDCG@10 .0629, recall@10 .1037 (seed 0).

  Args: split: `next_item` or `leave_last`.
  """
  config = best()
  return dataclasses.replace(
    config,
    data=DataConfig(split=split),
    model=dataclasses.replace(
      config.model,
      node_features="projected",
      text_hidden=1024,
      text_rate=0.2,
      feature_width=128,
      graph="next",
      history=OrderedHistory(history_length=20, history_dropout=0.5),
      convolution=LightConvolution(
        layers=1, attention="v1", edge_features=("relevance",), combine="mean"
      ),
      objective=SoftmaxObjective(temperature=0.07, relevance="graded"),
      linear_weight=0.05,
    ),
    train=TrainConfig(
      batch_size=1024,
      epochs=60,
      learning_rate=5e-3,
      weight_decay=0.0,
      schedule="constant",
      evaluate_every=2,
      patience=8,
    ),
  )


def tiny() -> Config:
  """A small and fast model for trying things out.

  python -m launch.train --preset=tiny --encoder=lexical, on the built-in `demo` data: 10 s,
  NDCG@10 .149 ± .005 (mean and standard deviation of seeds 0 to 4). It trains all its epochs, which
  the cosine schedule assumes: with a patience of 12 it has .142 ± .010.
  """
  return Config(
    preset="tiny",
    model=ModelConfig(
      node_features="sum",
      feature_width=64,
      convolution=FullConvolution(
        layer_widths=(32, 32), heads=(2, 2), feature_dropout=0.1, edge_dropout=0.1
      ),
      objective=PairwiseObjective(cosine_weight=0.3, negatives_per_positive=4),
    ),
    train=TrainConfig(
      batch_size=8192,
      epochs=60,
      learning_rate=5e-3,
      schedule="cosine",
      evaluate_every=2,
      patience=60,
    ),
  )


PRESETS: Mapping[str, Callable[[], Config]] = {
  preset.__name__: preset for preset in (paper, best, tiny)
} | BASELINES


def get_preset(name: str, *, field: str = "preset", split: str = "") -> Config:
  """Returns the preset called `name`. Raises InputError for an unknown one, with near matches.

  Args: split: how the data will be split, where that is known: `best` depends on it.
  """
  if name not in PRESETS:
    near = difflib.get_close_matches(name, PRESETS, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(PRESETS)}"
    raise InputError(f"unknown; {hint}", field=field, value=name)
  if name == "best" and split in ("next_item", "leave_last"):
    return best_next_item(split)
  return PRESETS[name]()
