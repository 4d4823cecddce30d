"""Authors put evidence into words; here, those who write templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import claims_of
from gatrec_jax.explain.reasons import Point, Reason, points_of, sentence_by_template


class Author(Protocol):
  """Turns evidence into reasons.

  Attributes: name: of the author, for messages and files. model_hash: of the model that writes.
  """

  name: str
  model_hash: str

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    """One reason per record. Raises: InputError for an unknown style."""
    ...


class TemplateAuthor:
  """Writes the sentences of `phrases.py`; the same evidence always gets the same words."""

  name = "template"
  model_hash = ""

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    return [
      assembled([None] * len(points), points, evidence)
      for evidence in records
      for points in [points_of(evidence, style=style)]
    ]


def assembled(written: Sequence[str | None], points: Sequence[Point], evidence: Evidence) -> Reason:
  """A reason from the written sentences in the order of the points, with templates for None."""
  return Reason(
    tuple(
      sentence_by_template(point, evidence, place) if sentence is None else sentence
      for place, (sentence, point) in enumerate(zip(written, points, strict=True))
    ),
    tuple(claim for point in points for claim in claims_of(point.kind, point.values)),
    by_template=sum(sentence is None for sentence in written),
  )
