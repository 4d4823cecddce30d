"""The named configurations, with their cost and their NDCG@10 under full ranking.

Unless a docstring says otherwise: MovieLens 100K, fold u1, two CPU cores, seconds of training
alone. Commands, seeds, devices and commits are in launch/benchmarks/RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from gatrec_jax.config import models
from gatrec_jax.config.convolutions import FullConvolution, LightConvolution
from gatrec_jax.config.histories import OrderedHistory
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.schema import Config, DataConfig, ModelConfig, TrainConfig
from gatrec_jax.config.sequences import MarkovConfig, RecentPopularityConfig, SasRecConfig
from gatrec_jax.config.settings import ModelSettings
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

  python -m launch.train --dataset=FILE --split=next_item. On Amazon's beauty products: 9 minutes on
  busy cores, NDCG@10 .0629, recall@10 .1037 (seed 0).

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


def _bpr(l2_weight: float) -> PairwiseObjective:
  return PairwiseObjective(cosine_weight=0.0, l2_weight=l2_weight)


def _fitted(name: str, model: ModelSettings) -> Config:
  """A model without epochs: it needs no validation part and is fitted to all training ratings."""
  return Config(
    preset=name, data=DataConfig(valid_share=0.0), model=model, train=TrainConfig(select_on="last")
  )


def _constant_rate(**settings: Any) -> TrainConfig:
  """How the learned baselines train: at one learning rate, without weight decay."""
  return TrainConfig(schedule="constant", weight_decay=0.0, **settings)


def popularity() -> Config:
  """The most popular items, the same for every user.

  python -m launch.train --model=popularity --dataset=ml-100k --fold=u1: 1 s, NDCG@10 .2606
  (seed 0).
  """
  return _fitted("popularity", models.PopularityConfig())


def item_knn() -> Config:
  """Item-based nearest neighbors.

  python -m launch.train --model=item_knn --dataset=ml-100k --fold=u1: 1 s, NDCG@10 .4314 (seed
  0).
  """
  return _fitted("item_knn", models.ItemKnnConfig(neighbors=230, shrinkage=2.7))


def ease() -> Config:
  """EASE (Steck 2019).

  python -m launch.train --model=ease --dataset=ml-100k --fold=u1: 2 s, NDCG@10 .4675 (seed 0).
  """
  return _fitted("ease", models.EaseConfig())


def ease_rated() -> Config:
  """EASE on likes and on all ratings.

  python -m launch.train --model=ease_rated --dataset=ml-100k --fold=u1: 3 s, NDCG@10 .4873.
  """
  return _fitted("ease_rated", models.EaseRatedConfig(relevance="graded"))


def gf_cf() -> Config:
  """GF-CF (Shen et al. 2021).

  python -m launch.train --model=gf_cf --dataset=ml-100k --fold=u1: 1 s, NDCG@10 .4334.
  """
  return _fitted("gf_cf", models.GfCfConfig())


def slim() -> Config:
  """SLIM (Ning and Karypis 2011).

  python -m launch.train --model=slim --dataset=ml-100k --fold=u1: 18 s, NDCG@10 .4579 (seed 0).
  """
  return _fitted("slim", models.SlimConfig(alpha=0.13, l1_ratio=2e-4))


def admm_slim() -> Config:
  """ADMM-SLIM (Steck et al. 2020).

  python -m launch.train --model=admm_slim --dataset=ml-100k --fold=u1: 24 s, NDCG@10 .4555
  (seed 0).
  """
  return _fitted("admm_slim", models.AdmmSlimConfig(l1=0.3, l2=500.0, item_power=0.8))


def ials() -> Config:
  """iALS (Rendle et al. 2022).

  python -m launch.train --model=ials --dataset=ml-100k --fold=u1: 2 s, NDCG@10 .4714 (seed 0).
  """
  return _fitted("ials", models.IalsConfig())


def content_knn() -> Config:
  """Nearest neighbors by text alone.

  python -m launch.train --model=content_knn --dataset=ml-100k --fold=u1: 1 s, NDCG@10 .1353
  (seed 0), with MiniLM and the published item profiles.
  """
  return _fitted("content_knn", models.ContentKnnConfig(neighbors=5, power=3.5))


def text_ridge() -> Config:
  """EASE weights predicted from text alone.

  python -m launch.train --model=text_ridge --dataset=ml-100k --fold=u1: 3 s, NDCG@10 .3445
  (seed 0), with MiniLM and the published item profiles.
  """
  return _fitted("text_ridge", models.TextRidgeConfig())


def bpr_mf() -> Config:
  """Matrix factorization with BPR (Rendle et al. 2009).

  python -m launch.compare --models=bpr_mf --dataset=ml-100k --folds=u1: 9 s, NDCG@10 .4351
  (seed 0).
  """
  return Config(
    preset="bpr_mf",
    model=models.BprMfConfig(objective=_bpr(1e-2)),
    train=_constant_rate(
      batch_size=0, epochs=600, learning_rate=1e-2, evaluate_every=20, patience=100
    ),
  )


def lightgcn() -> Config:
  """LightGCN (He et al. 2020).

  python -m launch.compare --models=lightgcn --dataset=ml-100k --folds=u1: 32 s, NDCG@10 .4419
  (seed 0).
  """
  return Config(
    preset="lightgcn",
    model=models.LightGcnConfig(objective=_bpr(1e-4)),
    train=_constant_rate(
      batch_size=0, epochs=600, learning_rate=1e-2, evaluate_every=20, patience=100
    ),
  )


def lightgcn_softmax() -> Config:
  """LightGCN with a softmax over all items on graded ratings.

  python -m launch.compare --models=lightgcn_softmax --dataset=ml-100k --folds=u1: 40 s, NDCG@10
  .4731 (3 seeds).
  """
  return Config(
    preset="lightgcn_softmax",
    model=models.LightGcnConfig(
      objective=SoftmaxObjective(
        temperature=0.0, relevance="graded", popularity_weight=None, user_power=0.25
      )
    ),
    train=_constant_rate(
      batch_size=0, epochs=400, learning_rate=2e-2, evaluate_every=20, patience=160
    ),
  )


def xsimgcl() -> Config:
  """XSimGCL (Yu et al. 2023).

  python -m launch.compare --models=xsimgcl --dataset=ml-100k --folds=u1: 15 s, NDCG@10 .4363
  (seed 0).
  """
  return Config(
    preset="xsimgcl",
    model=models.XSimGclConfig(objective=_bpr(1e-5)),
    train=_constant_rate(
      batch_size=0, epochs=300, learning_rate=5e-2, evaluate_every=10, patience=60
    ),
  )


def multi_vae() -> Config:
  """Mult-VAE (Liang et al. 2018).

  python -m launch.compare --models=multi_vae --dataset=ml-100k --folds=u1: 22 s, NDCG@10 .4519
  (seed 0).
  """
  return Config(
    preset="multi_vae",
    model=models.MultiVaeConfig(),
    train=_constant_rate(
      batch_size=128, epochs=200, learning_rate=5e-4, evaluate_every=5, patience=30
    ),
  )


def sasrec() -> Config:
  """SASRec (Kang and McAuley 2018) with a sampled softmax.

  python -m launch.train --model=sasrec --dataset=FILE --split=next_item. On Amazon's beauty
  products (22,363 users, 12,101 items): 3 minutes on busy cores, NDCG@10 .0553, recall@10 .0938
  (seed 0). Hardly tuned.
  """
  return Config(
    preset="sasrec",
    model=SasRecConfig(heads=2, drawn_items=2048),
    train=_constant_rate(
      batch_size=20, epochs=60, learning_rate=5e-3, evaluate_every=2, patience=4
    ),
  )


def markov() -> Config:
  """What followed the user's latest likes, in other histories.

  python -m launch.train --model=markov --dataset=FILE --split=next_item. On Amazon's beauty
  products: 1 s; with a validation part (`--valid_share=0.1`) NDCG@10 .0475, recall@10 .0744.
  """
  return _fitted("markov", MarkovConfig())


def recent_popularity() -> Config:
  """The items that are most popular of late, the same for every user.

  python -m launch.train --model=recent_popularity --dataset=ml-100k --split=temporal
  """
  return _fitted("recent_popularity", RecentPopularityConfig())


PRESETS: Mapping[str, Callable[[], Config]] = {
  preset.__name__: preset
  for preset in (
    paper,
    best,
    tiny,
    popularity,
    item_knn,
    ease,
    ease_rated,
    gf_cf,
    slim,
    admm_slim,
    ials,
    content_knn,
    text_ridge,
    bpr_mf,
    lightgcn,
    lightgcn_softmax,
    xsimgcl,
    multi_vae,
    sasrec,
    markov,
    recent_popularity,
  )
}


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
