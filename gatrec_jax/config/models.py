"""Settings of the models beside the GAT: one frozen dataclass each, with the ranges of a search.

A field says in its metadata what values it may have and over what range a search draws it; a class
says which settings of training it uses (all others are refused) and which of them are searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class LogUniform(NamedTuple):
  """Drawn so that the logarithm is uniform. `whole` rounds to whole numbers."""

  low: float
  high: float
  whole: bool = False


class Uniform(NamedTuple):
  """Drawn uniformly. `whole` draws whole numbers, both ends included."""

  low: float
  high: float
  whole: bool = False


class Choice(NamedTuple):
  """One of some values, each as likely."""

  values: tuple[Any, ...]


Range = LogUniform | Uniform | Choice


def setting(
  default: Any,
  *,
  low: float | None = None,
  high: float | None = None,
  choices: tuple[str, ...] = (),
  search: Range | None = None,
) -> Any:
  """A dataclass field with its allowed values and the range over which a search draws it.

  Args: default. low, high: allowed, both ends included; None = no bound. choices: allowed words.
    search: None where a search leaves it alone.
  """
  return dataclasses.field(
    default=default, metadata={"range": (low, high), "choices": choices, "search": search}
  )


# Settings of training that every model learned by gradient steps uses.
STEPS = (
  "batch_size",
  "epochs",
  "learning_rate",
  "weight_decay",
  "schedule",
  "decay_epochs",
  "warmup_steps",
  "plateau_factor",
  "plateau_patience",
  "plateau_window",
  "gradient_clip",
  "select_on",
  "evaluate_every",
  "patience",
)
# What models add to them that contrast positives with drawn negatives.
PAIRWISE = (
  *STEPS,
  "l2_weight",
  "negatives",
  "negatives_per_positive",
  "popularity_power",
  "explicit_share",
)


class ModelSettings:
  """What the settings of every model have.

  Attributes:
    kind: the model's name in files.
    trains_with: fields of TrainConfig that it uses beside `seed`; empty for a model that is fitted
      as a whole, without epochs.
    searched_training: those of them that a search draws, with their ranges.
  """

  kind: ClassVar[str]
  trains_with: ClassVar[tuple[str, ...]] = ()
  searched_training: ClassVar[Mapping[str, Range]] = {}

  @property
  def reads_text(self) -> bool:
    """Whether the model reads the text vectors; a run makes them only then."""
    return False

  @property
  def reads_attributes(self) -> bool:
    """Whether what the catalog says of items beside texts has a part in it."""
    return False


@dataclasses.dataclass(frozen=True)
class PopularityConfig(ModelSettings):
  """Items by their number of training positives, the same for everyone."""

  kind: ClassVar[str] = "popularity"


@dataclasses.dataclass(frozen=True)
class ItemKnnConfig(ModelSettings):
  """Item-based nearest neighbors (Sarwar et al. 2001), cosine similarity with shrinkage.

  Attributes:
    neighbors: items that each item is similar to; the rest count as 0.
    shrinkage: added to the product of norms: damps what few users support.
  """

  kind: ClassVar[str] = "item_knn"
  neighbors: int = setting(100, low=1, search=LogUniform(5, 1000, whole=True))
  shrinkage: float = setting(0.0, low=0, search=LogUniform(0.1, 1000))


@dataclasses.dataclass(frozen=True)
class EaseConfig(ModelSettings):
  """Embarrassingly shallow autoencoders (Steck 2019).

  Attributes:
    l2: λ, the penalty of all weights.
    relevance: what is predicted from what: `binary` (positives, 1 each) or `graded` (every rating,
      by its relevance; gatrec_jax/data/feedback.py).
  """

  kind: ClassVar[str] = "ease"
  l2: float = setting(300.0, low=1e-6, search=LogUniform(10, 10_000))
  relevance: str = setting("binary", choices=("binary", "graded"))


@dataclasses.dataclass(frozen=True)
class EaseRatedConfig(ModelSettings):
  """EASE that also learns from what was rated at all, liked or not.

  Attributes:
    l2: of the weights from liked items.
    rated_l2: of the weights from rated items.
    relevance: what is predicted: `binary` (positives, 1 each) or `graded` (every rating, by its
      relevance; gatrec_jax/data/feedback.py).
  """

  kind: ClassVar[str] = "ease_rated"
  l2: float = setting(300.0, low=1e-6, search=LogUniform(10, 10_000))
  rated_l2: float = setting(600.0, low=1e-6, search=LogUniform(10, 10_000))
  relevance: str = setting("binary", choices=("binary", "graded"))


@dataclasses.dataclass(frozen=True)
class SlimConfig(ModelSettings):
  """Sparse linear methods (Ning and Karypis 2011) as an elastic net, weights ≥ 0, no intercept.

  Attributes:
    alpha, l1_ratio: the penalties of scikit-learn's ElasticNet, per training user:
      alpha · l1_ratio · ‖w‖₁ + ½ · alpha · (1 − l1_ratio) · ‖w‖².
    iterations: at most.
    tolerance: largest change of any weight in an iteration at which it counts as converged.
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
    rho: ρ, the step of the multipliers.
    iterations: all of them are done.
    nonnegative: weights ≥ 0.
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
    unobserved_weight: α₀, of the squared score of every pair.
    l2: λ; of user u it is multiplied by (|her positives| + α₀ · I)^l2_power, of items likewise.
    l2_power: ν; 0 the plain regularizer, 1 the frequency-scaled one.
    iterations: passes over users and items.
    init_stddev: factors begin with this / √D.
    relevance: what the observed pairs are: `binary` (positives, 1 each) or `graded` (every rating,
      by its relevance; gatrec_jax/data/feedback.py).
  """

  kind: ClassVar[str] = "ials"
  width: int = setting(64, low=1)
  unobserved_weight: float = setting(0.6, low=0, search=LogUniform(0.05, 2))
  l2: float = setting(0.01, low=1e-9, search=LogUniform(1e-3, 0.05))
  l2_power: float = setting(1.0, low=0, high=2)
  iterations: int = setting(12, low=1, search=LogUniform(4, 32, whole=True))
  init_stddev: float = setting(0.1, low=1e-9)
  relevance: str = setting("binary", choices=("binary", "graded"))


@dataclasses.dataclass(frozen=True)
class ContentKnnConfig(ModelSettings):
  """Text alone: items near the items that the user liked, by cosine of their text vectors.

  Attributes:
    neighbors: items that each item is near to; 0 = all.
    power: similarities below 0 are dropped, the others raised to it.
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
    text_l2: of the regression from text.
    ease_l2: λ of EASE.
    ials_l2, unobserved_weight, width, iterations: of iALS.
  """

  kind: ClassVar[str] = "text_ridge"
  factors: str = setting("ease", choices=("ease", "ials"))
  text_l2: float = setting(0.005, low=1e-9, search=LogUniform(1e-4, 100))
  ease_l2: float = setting(300.0, low=1e-9)
  ials_l2: float = setting(0.01, low=1e-9)
  unobserved_weight: float = setting(0.6, low=0)
  width: int = setting(64, low=1)
  iterations: int = setting(12, low=1)

  @property
  def reads_text(self) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class BprMfConfig(ModelSettings):
  """Matrix factorization with the BPR loss (Rendle et al. 2009).

  Attributes:
    width: D of the factors.
    init_stddev: factors begin with it.
  """

  kind: ClassVar[str] = "bpr_mf"
  trains_with: ClassVar[tuple[str, ...]] = PAIRWISE
  searched_training: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 3e-2),
    "l2_weight": LogUniform(1e-6, 1e-1),
  }
  width: int = setting(64, low=1)
  init_stddev: float = setting(0.1, low=1e-9)


@dataclasses.dataclass(frozen=True)
class LightGcnConfig(ModelSettings):
  """LightGCN (He et al. 2020): the mean of 0 … L propagations of user and item vectors.

  Attributes:
    width: D.
    layers: L.
    loss: `bpr` over drawn negatives, dot products; `softmax` over all items, cosines ÷ temperature
      (a batch is then counted in users).
    temperature: of `softmax`.
    relevance: what `softmax` should give: `binary` (all positives alike) or `graded` (every rating,
      by its relevance; gatrec_jax/data/feedback.py).
    user_power: a user weighs (the sum of their relevance)^−user_power in the `softmax`.
    init_stddev: vectors begin with it.
    propagation: `dense`, `sparse`, or `auto` for the quicker one.
  """

  kind: ClassVar[str] = "lightgcn"
  trains_with: ClassVar[tuple[str, ...]] = PAIRWISE
  searched_training: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 1e-1),
    "l2_weight": LogUniform(1e-7, 1e-2),
  }
  width: int = setting(64, low=1)
  layers: int = setting(2, low=0, search=Choice((1, 2, 3)))
  loss: str = setting("bpr", choices=("bpr", "softmax"))
  temperature: float = setting(0.2, low=1e-3)
  relevance: str = setting("binary", choices=("binary", "graded"))
  user_power: float = setting(0.0, low=0, high=1)
  init_stddev: float = setting(0.1, low=1e-9)
  propagation: str = setting("auto", choices=("auto", "dense", "sparse"))


@dataclasses.dataclass(frozen=True)
class XSimGclConfig(ModelSettings):
  """XSimGCL (Yu et al. 2023): LightGCN without layer 0, noise in every layer, contrast of layers.

  Attributes:
    width, layers, init_stddev, propagation: as LightGCN's.
    noise: ε, length of the random direction added in every layer while training.
    contrast_layer: whose vectors are contrasted with the final ones, from 1.
    contrast_weight, contrast_temperature: λ and τ of the InfoNCE loss over users and items.
  """

  kind: ClassVar[str] = "xsimgcl"
  trains_with: ClassVar[tuple[str, ...]] = PAIRWISE
  searched_training: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(3e-4, 1e-1),
    "l2_weight": LogUniform(1e-7, 1e-2),
  }
  width: int = setting(64, low=1)
  layers: int = setting(2, low=1, search=Choice((1, 2, 3)))
  noise: float = setting(0.2, low=0, search=Uniform(0.05, 0.4))
  contrast_layer: int = setting(1, low=1)
  contrast_weight: float = setting(0.1, low=0, search=LogUniform(0.01, 1))
  contrast_temperature: float = setting(0.2, low=1e-3, search=LogUniform(0.05, 0.5))
  init_stddev: float = setting(0.1, low=1e-9)
  propagation: str = setting("auto", choices=("auto", "dense", "sparse"))


@dataclasses.dataclass(frozen=True)
class MultiVaeConfig(ModelSettings):
  """Variational autoencoder with multinomial likelihood (Liang et al. 2018).

  Attributes:
    hidden_widths: of the encoder; the decoder mirrors them.
    latent_width: of the code.
    input_dropout: share of a user's positives hidden from the encoder.
    kl_weight: β, reached after `anneal_steps` steps, growing linearly.
    anneal_steps: 0 = from the start.
  """

  kind: ClassVar[str] = "multi_vae"
  trains_with: ClassVar[tuple[str, ...]] = STEPS  # a batch is counted in users
  searched_training: ClassVar[Mapping[str, Range]] = {
    "learning_rate": LogUniform(1e-4, 1e-2),
    "weight_decay": LogUniform(1e-6, 1e-1),
  }
  hidden_widths: tuple[int, ...] = setting((600,))
  latent_width: int = setting(200, low=1)
  input_dropout: float = setting(0.5, low=0, high=0.99, search=Uniform(0.2, 0.8))
  kl_weight: float = setting(0.5, low=0, search=Uniform(0.0, 1.0))
  anneal_steps: int = setting(1000, low=0)


MODELS: Mapping[str, type[ModelSettings]] = {
  cls.kind: cls
  for cls in (
    PopularityConfig,
    ItemKnnConfig,
    EaseConfig,
    EaseRatedConfig,
    SlimConfig,
    AdmmSlimConfig,
    IalsConfig,
    ContentKnnConfig,
    TextRidgeConfig,
    BprMfConfig,
    LightGcnConfig,
    XSimGclConfig,
    MultiVaeConfig,
  )
}
