"""The named configurations of the baselines, with their cost and their NDCG@10 under full ranking.

Data, device and commands are those of presets.py unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gatrec_jax.config import models
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.schema import Config, DataConfig, TrainConfig
from gatrec_jax.config.sequences import (
  Gru4RecConfig,
  MarkovConfig,
  RecentPopularityConfig,
  SasRecConfig,
)
from gatrec_jax.config.settings import ModelSettings


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

  python -m launch.train --model=gf_cf --dataset=ml-100k --fold=u1: 1 s, NDCG@10 .4334. On Amazon's
  office products (--split=leave_last): 2 s, NDCG@10 .0999.
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


def gru4rec() -> Config:
  """GRU4Rec (Hidasi and Karatzoglou 2018) with a sampled softmax.

  python -m launch.train --model=gru4rec --dataset=FILE --split=next_item
  """
  return Config(
    preset="gru4rec",
    model=Gru4RecConfig(drawn_items=2048),
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


BASELINES: Mapping[str, Callable[[], Config]] = {
  preset.__name__: preset
  for preset in (
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
    gru4rec,
    markov,
    recent_popularity,
  )
}
