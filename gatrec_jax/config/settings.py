"""What the settings of every model declare, apart from their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from gatrec_jax.config.convolutions import NoConvolution
from gatrec_jax.config.fields import Range
from gatrec_jax.errors import InputError


class ModelSettings:
  """What the settings of every model declare.

  Attributes:
    kind: the model's name in files.
    learned: whether it learns by gradient steps; if not, it is fitted as a whole and has none of
      the settings of training but the seed.
    objective: chosen by `loss`; None for models without one.
    convolution: chosen by `convolution`; without layers for models that have none.
    rate_multiple: of the learning rate with which the model is trained. May be a property.
    reads_order: whether the order of ratings in time matters to the model. May be a property.
    searched: ranges that a search draws settings of training and of the objective from, for this
      model; settings that its objective does not have are left out.
  """

  kind: ClassVar[str]
  learned: ClassVar[bool] = False
  objective: ClassVar[Any] = None
  convolution: ClassVar[Any] = NoConvolution()
  rate_multiple: ClassVar[float] = 1.0
  reads_order: ClassVar[bool] = False
  searched: ClassVar[Mapping[str, Range]] = {}

  @property
  def reads_text(self) -> bool:
    """Whether the model reads text vectors; only then does a run compute them."""
    return False

  def without_text(self) -> Self:
    """The settings to use where there is no text. Raises InputError for a model that needs it."""
    if self.reads_text:
      raise InputError(
        f"{self.kind} recommends by text, but no item has any; give `item_metadata` or "
        "`item_profiles`, or choose another",
        field="model",
        value=self.kind,
      )
    return self

  @property
  def reads_attributes(self) -> bool:
    """Whether the model reads genres, tags, people and years of the catalog."""
    return False
