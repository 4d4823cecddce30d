"""Evidence for one recommendation as plain values: the records that reasons are written from."""

from __future__ import annotations

import dataclasses
from typing import Any

from gatrec_jax.explain.traits import Avoided, Trait


@dataclasses.dataclass(frozen=True)
class Cited:
  """A rating that the score depends on.

  Attributes:
    item_id, title: of the rated item.
    rating: as given.
    opinion: `liked`, `neutral` or `disliked`.
    score_drop: by how much the recommended item's score falls without this rating, > 0.
    rank_without: the recommended item's rank without this rating.
    attention: how much the rated and the recommended item attend to the same users: Σ over users of
      the product of the two attention weights. A secondary signal that proves nothing; None for
      networks with fewer than two layers.
    both: how many training users like both items.
  """

  item_id: str
  title: str
  rating: float
  opinion: str
  score_drop: float
  rank_without: int
  attention: float | None
  both: int


@dataclasses.dataclass(frozen=True)
class Counterfactual:
  """Ratings without which the item would not be in the list.

  Attributes:
    item_ids, titles: of one to three rated items.
    rank: the item's rank without these ratings, from 1.
  """

  item_ids: tuple[str, ...]
  titles: tuple[str, ...]
  rank: int


@dataclasses.dataclass(frozen=True)
class Evidence:
  """Everything that is known about why an item is recommended to a user.

  Attributes:
    user_id, item_id, title: the user, and the recommended item.
    rank: the item's position in the list, from 1.
    rank_before: its rank by the model alone. Differs from `rank` if the list was re-ranked.
    top_n: length of the list.
    score: by the model alone.
    components: by name, what the graph, the linear channel and the prior contribute to the score;
      they sum to it if the model is a sum.
    reranked: by name, what the base, the language model and other features contribute to the score
      of a re-ranked list; {} for lists that were not re-ranked or without such records.
    likes: how many training users like the item.
    num_liked, num_disliked, num_rated: counts of the user's training ratings.
    cited: at most three ratings, the largest score drop first.
    traits: what the item has in common with items that the user likes.
    avoided: genres that the user dislikes and the item does not have.
    counterfactual: None if no set of at most three ratings was found.
    prefiltered: whether only the ratings with the largest first-order estimates were tried. If
      not, all were, and the first cited rating has the largest effect of all.
  """

  user_id: str
  item_id: str
  title: str
  rank: int
  rank_before: int
  top_n: int
  score: float
  components: dict[str, float]
  likes: int
  num_liked: int
  num_disliked: int
  num_rated: int
  cited: tuple[Cited, ...]
  traits: tuple[Trait, ...]
  avoided: tuple[Avoided, ...]
  counterfactual: Counterfactual | None
  prefiltered: bool = False
  reranked: dict[str, float] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Plain values, for files."""
    return dataclasses.asdict(self)
