"""Objectives that models are trained with: one settings class each, chosen by `loss`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gatrec_jax.config.fields import LogUniform, Option, Uniform, setting


@dataclasses.dataclass(frozen=True)
class PairwiseObjective(Option):
  """Each positive against drawn negatives: BPR plus a cosine term (Ebrat et al. 2025, eq. 1).

  A batch is counted in positives. All positives count alike (`relevance` is `binary`).

  Attributes:
    bpr_weight: weight of the BPR term (Rendle et al. 2009).
    cosine_weight: weight of the cosine distance between a user and the positive item.
    l2_weight: weight of ½ (‖user‖² + ‖positive‖² + mean ‖negative‖²).
    negatives: how negatives are drawn: `uniform` or `popularity` over items that the user has
      neither liked nor disliked, `unliked` (uniform, dislikes included), `explicit` (dislikes
      alone) or `mixed` (dislikes with probability `explicit_share`).
    negatives_per_positive: how many are drawn for each positive.
    popularity_power: β of `popularity`; an item's weight is its number of positives to the power β.
    explicit_share: of `mixed`.
  """

  selector: ClassVar[str] = "loss"
  word: ClassVar[str] = "pairwise"
  relevance: ClassVar[str] = "binary"
  bpr_weight: float = setting(1.0, low=0)
  cosine_weight: float = setting(1.0, low=0)
  l2_weight: float = setting(0.0, low=0)
  negatives: str = setting(
    "uniform", choices=("uniform", "popularity", "unliked", "explicit", "mixed")
  )
  negatives_per_positive: int = setting(1, low=1)
  # Read when the sampler is made, before any compiled program.
  popularity_power: float = setting(0.75, low=0, needs="negatives=popularity", dynamic=False)
  explicit_share: float = setting(0.25, low=0, high=1, needs="negatives=mixed", dynamic=False)


@dataclasses.dataclass(frozen=True)
class SoftmaxObjective(Option):
  """Cross-entropy of a user's relevant items under a softmax over all items.

  A batch is counted in users.

  Attributes:
    temperature: scores are divided by it; 0 = by the number of items I, .6 − .047 log I between .05
      and .25, as validation parts of three data sets of 1,682 to 40,981 items suggest.
    relevance: the target: `binary` (all positives alike) or `graded` (every rating, by its
      relevance; gatrec_jax/data/feedback.py).
    popularity_weight: an item's score is larger by this times log(1 + its targets), in training and
      in ranking: cosines alone cannot say that an item is popular. `auto` = by the number of items
      I, .0215 log(I ÷ 4,000) between 0 and .05: on held-out training pairs of a data set of 40,981
      items that resemble each other it pays, on validation parts of MovieLens 100K it does not.
    user_power: a user's weight is (the sum of their relevance)^−user_power.
    l2_weight: weight of ½ (‖user‖² + ‖item‖²) of every target.
    drawn_items: items that each step draws to stand for all (a sampled softmax with logQ
      correction); 0 = all items, or a draw where users × items exceed 2^27.
  """

  selector: ClassVar[str] = "loss"
  word: ClassVar[str] = "softmax"
  temperature: float = setting(0.25, low=0, search=LogUniform(0.05, 1.0))
  relevance: str = setting("binary", choices=("binary", "graded"))
  # Scoring reads it, so that it is not dynamic.
  popularity_weight: float | None = setting(0.0, low=0, high=1, dynamic=False)
  user_power: float = setting(0.0, low=0, high=1, search=Uniform(0.0, 1.0))
  l2_weight: float = setting(0.0, low=0)
  drawn_items: int = setting(0, low=0, high=2**20)


Objective = PairwiseObjective | SoftmaxObjective
