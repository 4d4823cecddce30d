"""Settings of the models beside the GAT: one frozen dataclass each.

A field declares which values it may hold and which range a search draws it from; a class declares
the ranges of its training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from gatrec_jax.config.fields import Choice, LogUniform, Range, Uniform, one_of, setting
from gatrec_jax.config.objectives import Objective, PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.sequences import (
  Gru4RecConfig,
  MarkovConfig,
  RecentPopularityConfig,
  SasRecConfig,
)
from gatrec_jax.config.settings import ModelSettings

# Bayesian personalized ranking, as the baselines were published: without a cosine term.
_BPR = PairwiseObjective(cosine_weight=0.0)


@dataclasses.dataclass(frozen=True)
class PopularityConfig(ModelSettings):
  """Items by their number of training positives, the same for every user."""

  kind: ClassVar[str] = "popularity"


@dataclasses.dataclass(frozen=True)
class ItemKnnConfig(ModelSettings):
  """Item-based nearest neighbors (Sarwar et al. 2001), cosine similarity with shrinkage.

  Attributes:
    neighbors: most similar items kept for each item; the others count as 0.
    shrinkage: added to the product of norms; damps similarities that few users support.
  """

  kind: ClassVar[str] = "item_knn"
  neighbors: int = setting(100, low=1, search=LogUniform(5, 1000, whole=True))
  shrinkage: float = setting(0.0, low=0, search=LogUniform(0.1, 1000))


@dataclasses.dataclass(frozen=True)
class EaseConfig(ModelSettings):
  """Embarrassingly shallow autoencoders (Steck 2019).

  Attributes:
    l2: λ, the penalty of all weights.
    relevance: the entries of the matrix that is fitted: `binary` (positives, 1 each) or `graded`
      (every rating, by its relevance; gatrec_jax/data/feedback.py).
    user_power, item_power, score_power: histories are multiplied by (ratings of the
      user)^−user_power and (ratings of the item)^−item_power, and an item's scores by (its
      ratings)^score_power.
    form: `exact`, `spectral` (two terms, for large catalogs), or `auto`: exact up to 6,000 items.
    rank, neighbors: of the spectral form: eigenvectors, and neighbors of each item.
  """

  kind: ClassVar[str] = "ease"
  l2: float = setting(300.0, low=1e-6, search=LogUniform(10, 10_000))
  relevance: str = setting("binary", choices=("binary", "graded"))
  user_power: float = setting(0.0, low=0, high=1, dynamic=False)
  item_power: float = setting(0.0, low=0, high=1, dynamic=False)
  score_power: float = setting(0.0, low=0, high=1, dynamic=False)
  form: str = setting("auto", choices=("auto", "exact", "spectral"))
  rank: int = setting(256, low=1, needs="form=auto|spectral")
  neighbors: int = setting(32, low=0, needs="form=auto|spectral")


@dataclasses.dataclass(frozen=True)
class EaseRatedConfig(ModelSettings):
  """EASE with two relations: weights from liked items and weights from all rated items.

  Attributes:
    l2: penalty of the weights from liked items.
    rated_l2: penalty of the weights from rated items.
    relevance: the target: `binary` (positives, 1 each) or `graded` (every rating, by its
      relevance; gatrec_jax/data/feedback.py).
    user_power, item_power, score_power: histories are multiplied by (ratings of the
      user)^−user_power and (ratings of the item)^−item_power, and an item's scores by (its
      ratings)^score_power.
    form: `exact`, `spectral` (two terms, for large catalogs), or `auto`: exact up to 6,000 items.
    rank, neighbors: of the spectral form: eigenvectors, and neighbors of each item.
  """

  kind: ClassVar[str] = "ease_rated"
  l2: float = setting(300.0, low=1e-6, search=LogUniform(10, 10_000))
  rated_l2: float = setting(600.0, low=1e-6, search=LogUniform(10, 10_000))
  relevance: str = setting("binary", choices=("binary", "graded"))
  user_power: float = setting(0.0, low=0, high=1, dynamic=False)
  item_power: float = setting(0.0, low=0, high=1, dynamic=False)
  score_power: float = setting(0.0, low=0, high=1, dynamic=False)
  form: str = setting("auto", choices=("auto", "exact", "spectral"))
  rank: int = setting(256, low=1, needs="form=auto|spectral")
  neighbors: int = setting(32, low=0, needs="form=auto|spectral")


@dataclasses.dataclass(frozen=True)
class GfCfConfig(ModelSettings):
  """GF-CF (Shen et al. 2021): a linear filter of the graph's signals, and an ideal low-pass filter.

  Attributes:
    low_pass_weight: α, the weight of the low-pass filter.
    rank: the singular vectors that the low-pass filter lets through; 0 = by the data's size, 7 % of
      the users or items, whichever are fewer, and at most the 256 of the paper.
    relevance: the entries of the matrix: `binary` (positives, 1 each) or `graded` (every rating, by
      its relevance; gatrec_jax/data/feedback.py).
    form: `exact`, `spectral` (of the linear filter the singular vectors, and beside them the
      largest weights of each item), or `auto`: exact up to 6,000 items.
    neighbors: of the spectral form, weights of each item beside the singular vectors.
  """

  kind: ClassVar[str] = "gf_cf"
  low_pass_weight: float = setting(0.3, low=0, search=LogUniform(0.03, 3))
  rank: int = setting(0, low=0, search=LogUniform(8, 1024, whole=True))
  relevance: str = setting("binary", choices=("binary", "graded"))
  form: str = setting("auto", choices=("auto", "exact", "spectral"))
  neighbors: int = setting(128, low=0, needs="form=auto|spectral")


@dataclasses.dataclass(frozen=True)
class SlimConfig(ModelSettings):
  """Sparse linear methods (Ning and Karypis 2011) as an elastic net, weights ≥ 0, no intercept.

  Attributes:
    alpha, l1_ratio: the penalties of scikit-learn's ElasticNet, per training user:
      alpha · l1_ratio · ‖w‖₁ + ½ · alpha · (1 − l1_ratio) · ‖w‖².
    iterations: at most.
    tolerance: converged once no weight changes by more than this in an iteration.
  """

  kind: ClassVar[str] = "slim"
  alpha: float = setting(0.2, low=1e-9, search=LogUniform(0.01, 5))
  l1_ratio: float = setting(0.02, low=0, high=1, search=LogUniform(1e-4, 0.5))
  iterations: int = setting(300, low=1)
  tolerance: float = setting(1e-4, low=0)


@dataclasses.dataclass(frozen=True)
class AdmmSlimConfig(ModelSettings):
  """SLIM by the alternating direction method of multipliers (Steck et al. 2020).

  Attributes:
    l1, l2: λ₁ and λ₂.
    item_power: α: λ₂ of an item is multiplied by (its share of users) to this power.
    rho: ρ, the step size of the multipliers.
    iterations: number of iterations; there is no early stop.
    nonnegative: constrain weights to ≥ 0.
  """

  kind: ClassVar[str] = "admm_slim"
  l1: float = setting(5.0, low=0, search=LogUniform(0.1, 50))
  l2: float = setting(5000.0, low=0, search=LogUniform(50, 20_000))
  item_power: float = setting(1.0, low=0, high=2, search=Uniform(0, 1.5))
  rho: float = setting(4000.0, low=1e-6)
  iterations: int = setting(100, low=1)
  nonnegative: bool = setting(True)


@dataclasses.dataclass(frozen=True)
class IalsConfig(ModelSettings):
  """Implicit alternating least squares (Hu et al. 2008) as tuned by Rendle et al. 2022.

  Attributes:
    width: D of the factors.
    unobserved_weight: α₀, the weight of the squared score of every pair; 0 = by the share of pairs
      that are positives: a user's pairs then weigh 24 times as much as the positives of one, as
      validation parts of three data sets suggest (α₀ .6 on one of 1,682 items, .03 on a sparse one
      of 3,459).
    l2: λ; for user u it is multiplied by (number of positives + α₀ · I)^l2_power, for items
      likewise.
    l2_power: ν; 0 is plain regularization, 1 scales it with frequency.
    iterations: passes over items, then users.
    cg_steps: steps of conjugate gradients in each pass, from the factors of the pass before; the
      last pass over users is solved to rounding. What few leave undone, further passes make up
      for; 50 solve every pass.
    init_stddev: the initial factors have this standard deviation ÷ √D.
    relevance: the observed pairs and their weights: `binary` (positives, 1 each) or `graded` (every
      rating, by its relevance; gatrec_jax/data/feedback.py).
  """

  kind: ClassVar[str] = "ials"
  width: int = setting(64, low=1)
  unobserved_weight: float = setting(0.0, low=0, search=LogUniform(0.005, 2))
  l2: float = setting(0.01, low=1e-9, search=LogUniform(1e-3, 0.05))
  l2_power: float = setting(1.0, low=0, high=2)
  iterations: int = setting(12, low=1, search=LogUniform(4, 32, whole=True))
  cg_steps: int = setting(2, low=1)
  init_stddev: float = setting(0.1, low=1e-9)
  relevance: str = setting("binary", choices=("binary", "graded"))


@dataclasses.dataclass(frozen=True)
class ContentKnnConfig(ModelSettings):
  """Text alone: items similar to those that the user liked, by cosine of their text vectors.

  Attributes:
    neighbors: most similar items kept for each item; 0 = all.
    power: negative similarities are dropped, the others raised to this power.
  """

  kind: ClassVar[str] = "content_knn"
  neighbors: int = setting(0, low=0, search=LogUniform(5, 1000, whole=True))
  power: float = setting(1.0, low=0.01, search=Uniform(0.5, 8))

  @property
  def reads_text(self) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class TextRidgeConfig(ModelSettings):
  """Text alone: item factors of a collaborative model, predicted from text by ridge regression.

  Attributes:
    factors: `ease` (an item's column of weights) or `ials` (its factor).
    text_l2: penalty of the regression on text.
    ease_l2: λ of EASE; only with `factors=ease`.
    ials_l2, unobserved_weight, width, iterations: of iALS; only with `factors=ials`.
  """

  kind: ClassVar[str] = "text_ridge"
  factors: str = setting("ease", choices=("ease", "ials"))
  text_l2: float = setting(0.005, low=1e-9, search=LogUniform(1e-4, 100))
  ease_l2: float = setting(300.0, low=1e-9, needs="factors=ease")
  ials_l2: float = setting(0.01, low=1e-9, needs="factors=ials")
  unobserved_weight: float = setting(0.6, low=0, needs="factors=ials")
  width: int = setting(64, low=1, needs="factors=ials")
  iterations: int = setting(12, low=1, needs="factors=ials")

  @property
  def reads_text(self) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class BprMfConfig(ModelSettings):
  """Matrix factorization with the BPR loss (Rendle et al. 2009).

  Attributes:
    width: D of the factors.
    init_stddev: standard deviation of the initial factors.
    objective: always pairwise.
  """

  kind: ClassVar[str] = "bpr_mf"
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 3e-2),
    "l2_weight": LogUniform(1e-6, 1e-1),
  }
  width: int = setting(64, low=1)
  init_stddev: float = setting(0.1, low=1e-9)
  objective: PairwiseObjective = one_of(_BPR)


@dataclasses.dataclass(frozen=True)
class LightGcnConfig(ModelSettings):
  """LightGCN (He et al. 2020): the mean of 0 … L propagations of user and item vectors.

  Attributes:
    width: D.
    layers: L.
    init_stddev: standard deviation of the initial vectors.
    propagation: `dense`, `sparse`, or `auto` for the faster one.
    objective: chosen by `loss`: `pairwise`, on dot products, or `softmax`, on cosines.
  """

  kind: ClassVar[str] = "lightgcn"
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 1e-1),
    "l2_weight": LogUniform(1e-7, 1e-2),
  }
  width: int = setting(64, low=1)
  layers: int = setting(2, low=0, search=Choice((1, 2, 3)))
  init_stddev: float = setting(0.1, low=1e-9)
  propagation: str = setting("auto", choices=("auto", "dense", "sparse"))
  objective: Objective = one_of(_BPR, SoftmaxObjective(temperature=0.2))


@dataclasses.dataclass(frozen=True)
class XSimGclConfig(ModelSettings):
  """XSimGCL (Yu et al. 2023): LightGCN without layer 0, noise in every layer, contrast of layers.

  Attributes:
    width, layers, init_stddev, propagation: as in `LightGcnConfig`.
    noise: ε, length of the random direction added in every layer during training.
    contrast_layer: the layer whose vectors are contrasted with the final ones, from 1.
    contrast_weight, contrast_temperature: λ and τ of the InfoNCE loss over users and items.
    objective: always pairwise.
  """

  kind: ClassVar[str] = "xsimgcl"
  learned: ClassVar[bool] = True
  searched: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(3e-4, 1e-1),
    "l2_weight": LogUniform(1e-7, 1e-2),
  }
  width: int = setting(64, low=1)
  layers: int = setting(2, low=1, search=Choice((1, 2, 3)))
  noise: float = setting(0.2, low=0, search=Uniform(0.05, 0.4))
  contrast_layer: int = setting(1, low=1, needs="contrast_weight")
  contrast_weight: float = setting(0.1, low=0, search=LogUniform(0.01, 1))
  contrast_temperature: float = setting(
    0.2, low=1e-3, search=LogUniform(0.05, 0.5), needs="contrast_weight"
  )
  init_stddev: float = setting(0.1, low=1e-9)
  propagation: str = setting("auto", choices=("auto", "dense", "sparse"))
  objective: PairwiseObjective = one_of(_BPR)


@dataclasses.dataclass(frozen=True)
class MultiVaeConfig(ModelSettings):
  """Variational autoencoder with multinomial likelihood (Liang et al. 2018).

  Attributes:
    hidden_widths: hidden layers of the encoder; the decoder mirrors them.
    latent_width: width of the latent code.
    input_dropout: share of a user's positives hidden from the encoder.
    kl_weight: β, reached after a linear increase over `anneal_steps` steps.
    anneal_steps: 0 = β from the start.
  """

  kind: ClassVar[str] = "multi_vae"
  learned: ClassVar[bool] = True  # a batch is counted in users
  searched: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 1e-2),
    "weight_decay": LogUniform(1e-6, 1e-1),
  }
  hidden_widths: tuple[int, ...] = setting((600,))
  latent_width: int = setting(200, low=1)
  input_dropout: float = setting(0.5, low=0, high=0.99, search=Uniform(0.2, 0.8))
  kl_weight: float = setting(0.5, low=0, search=Uniform(0.0, 1.0))
  anneal_steps: int = setting(1000, low=0, needs="kl_weight")


MODELS: Mapping[str, type[ModelSettings]] = {
  cls.kind: cls
  for cls in (
    PopularityConfig,
    ItemKnnConfig,
    EaseConfig,
    EaseRatedConfig,
    GfCfConfig,
    SlimConfig,
    AdmmSlimConfig,
    IalsConfig,
    ContentKnnConfig,
    TextRidgeConfig,
    BprMfConfig,
    LightGcnConfig,
    XSimGclConfig,
    MultiVaeConfig,
    SasRecConfig,
    Gru4RecConfig,
    MarkovConfig,
    RecentPopularityConfig,
  )
}
