"""Split interactions with the fields of their items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.split_draws import Split


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Split interactions and the fields of their items.

  Attributes:
    interactions: all rows; [R].
    split: which rows are training, validation and test rows.
    item_fields: [I] title, genres, texts of each item.
    feedback: what ratings mean: as configured, as the protocol says, or as found out.
    facts: counts for the user, as in the manifest.
    sentences: what was understood of tables of the user's, a line each.
    item_noun: what an item is called, such as "film".
    num_later: number of items that came after training, the last ones of the catalog.
    later_users: indices of users whose ratings all came after training.
  """

  interactions: Interactions
  split: Split
  item_fields: Sequence[Mapping[str, Any]]
  feedback: Feedback
  facts: Mapping[str, Any]
  sentences: tuple[str, ...] = ()
  item_noun: str = "item"
  num_later: int = 0
  later_users: tuple[int, ...] = ()

  @functools.cached_property
  def train(self) -> Interactions:
    """Training rows."""
    return self.interactions.take(self.split.train)

  @functools.cached_property
  def valid(self) -> Interactions:
    """Validation rows."""
    return self.interactions.take(self.split.valid)

  @functools.cached_property
  def test(self) -> Interactions:
    """Test rows."""
    return self.interactions.take(self.split.test)

  @functools.cached_property
  def known(self) -> Interactions:
    """Training and validation rows: everything known before the test."""
    return self.interactions.take(np.sort(np.append(self.split.train, self.split.valid)))
