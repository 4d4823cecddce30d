"""Who puts evidence into words: templates, or a language model whose every sentence is checked.

The model is told facts, one plain sentence each, in which marks such as [a] stand for titles,
names and numbers. It says them in its own words and copies the marks, which is all that it can do
with them: constrained decoding (`lm/marked.py`) lets no other mark, no digit and no open bracket
pass. Then the marks are put back, each sentence is read (`phrases.read`), and it stays if it claims
one of the facts, all of it and nothing else. A fact without a sentence is asked for once more, by
itself; after that the template speaks, and is counted.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gatrec_jax.errors import InputError
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import PHRASES, claims_of, fill, filled, read, slots_of
from gatrec_jax.explain.reasons import Point, Reason, points_of, sentence_by_template, titles_of
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.placeholders import LETTERS, mark, marked_sentences
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.chat import has_template
from gatrec_jax.lm.tokens.prompt_files import as_text

FACTS, SENTENCES = "Facts:", "Sentences:"
MOST_FACTS = 4  # told at once
_MOST_TOKENS = 48 * MOST_FACTS  # of an answer
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
_INSTRUCTION = (
  "Below are facts about why a title is recommended to a reader. Say each fact in one short "
  "sentence to the reader (“you”), in the order given. Copy the marks in brackets as they are; add "
  "nothing that the facts do not say, and no numbers or names of your own."
)
_MARK = re.compile(r"\[([a-z])\]")


class Author(Protocol):
  """Evidence to reasons.

  Attributes: name: who writes, for people and files.
  """

  name: str

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    """One reason for each record. Raises: InputError for an unknown style."""
    ...


class TemplateAuthor:
  """Sentences of the table in phrases.py; the same evidence always gives the same words."""

  name = "template"

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    return [
      _reason([None] * len(points), points, evidence)
      for evidence in records
      for points in [points_of(evidence, style=style)]
    ]


class Asked(NamedTuple):
  """Facts that are told at once.

  Attributes: record: whose. places: of its points.
  """

  record: int
  places: Sequence[int]


class LanguageModelAuthor:
  """A local decoder; see the module."""

  def __init__(
    self,
    model: LanguageModel,
    *,
    lora: Lora | None = None,
    instructed: bool = True,
    batch_size: int = 16,
  ) -> None:
    """Args: lora: low-rank additions to the weights. instructed: whether the model is told what to
    do and what marks stand for; the built-in one knows, and needs the facts alone. batch_size:
    prompts side by side.

    Raises: InputError for a model without a tokenizer.
    """
    if model.tokenizer is None:
      raise InputError(
        "the folder has no tokenizer, which reasons need", field="llm", value=model.name
      )
    self.name = model.name
    self._model, self._lora, self._instructed = model, lora, instructed
    self._batch_size = batch_size
    self._constraints: dict[int, Automaton] = {}

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    points = [points_of(evidence, style=style) for evidence in records]
    said: list[list[str | None]] = [[None] * len(own) for own in points]
    for together in (MOST_FACTS, 1):
      asked = [
        Asked(record, left[first : first + together])
        for record, own in enumerate(said)
        for left in [[place for place, sentence in enumerate(own) if sentence is None]]
        for first in range(0, len(left), together)
      ]
      if not asked:
        break
      facts = [[points[one.record][place] for place in one.places] for one in asked]
      seed = f"{records[0].user_id}\n{style}\n{together}"
      for one, own, answer in zip(asked, facts, self._answers(facts, seed), strict=True):
        titles = titles_of(records[one.record])
        for place, sentence in kept(answer, own, titles=titles).items():
          said[one.record][one.places[place]] = sentence
    return [_reason(*one) for one in zip(said, points, records, strict=True)]

  def _answers(self, facts: Sequence[Sequence[Point]], seed: str) -> list[str]:
    counts = [len(values_of(own)) for own in facts]
    for count in set(counts) - self._constraints.keys():
      self._constraints[count] = marked_sentences(self._model, count)
    # Where a prompt is longer than the context, the facts are what stays of it.
    answers = generate(
      self._model,
      [self._prompt(own) for own in facts],
      max_tokens=_MOST_TOKENS,
      sampling=_SAMPLING,
      seed=zlib.crc32(seed.encode()),
      truncate="left",
      constraint=[self._constraints[count] for count in counts],
      special_tokens=not has_template(self._model.tokenizer),
      batch_size=self._batch_size,
      lora=self._lora,
    )
    return [one.text for one in answers]

  def _prompt(self, facts: Sequence[Point]) -> str:
    prompt = facts_prompt([point.kind for point in facts])
    if not self._instructed:
      return prompt
    legend = "\n".join(f"{mark(n)} = {value}" for n, value in enumerate(values_of(facts)))
    prompt = f"{_INSTRUCTION}\n\n{legend}\n\n{prompt}"
    return as_text(self._model.tokenizer, prompt, chat=has_template(self._model.tokenizer))[0]


def facts_prompt(kinds: Sequence[str]) -> str:
  """Facts, each in the plainest words of its kind with marks; what follows is to be written."""
  lines = [
    f"- {fill(PHRASES[kind][0], marks)}" for kind, marks in zip(kinds, marks_of(kinds), strict=True)
  ]
  return "\n".join([FACTS, *lines, "", SENTENCES, ""])


def marks_of(kinds: Sequence[str]) -> list[dict[str, str]]:
  """For each of several facts the marks of its slots: no two facts share one."""
  numbers = itertools.count()
  return [{slot: mark(next(numbers)) for slot in slots_of(PHRASES[kind][0])} for kind in kinds]


def values_of(facts: Sequence[Point]) -> list[str]:
  """What the marks of `marks_of` stand for, in their order."""
  return [
    filled(slot, point.values) for point in facts for slot in slots_of(PHRASES[point.kind][0])
  ]


def kept(answer: str, facts: Sequence[Point], *, titles: Sequence[str]) -> dict[int, str]:
  """The sentences of an answer that claim exactly one of the facts, by its place.

  Args: answer: with marks, whose places are those of `values_of(facts)`. titles: that the record
    may name.
  """
  values = values_of(facts)
  wanted = {
    claims_of(point.kind, point.values): place for place, point in reversed(list(enumerate(facts)))
  }
  found: dict[int, str] = {}
  for sentence in re.split(r"(?<=\.)\s+", answer.strip()):
    # Nothing that a value holds is read as the end of a sentence or as a mark.
    whole = _MARK.sub(lambda match: values[LETTERS.index(match.group(1))], sentence)
    place = wanted.get(read(whole, titles))
    if place is not None:
      found.setdefault(place, whole)
  return found


def _reason(said: Sequence[str | None], points: Sequence[Point], evidence: Evidence) -> Reason:
  """The sentences in the order of the points, templates where there is none."""
  return Reason(
    tuple(
      sentence_by_template(point, evidence, place) if sentence is None else sentence
      for place, (sentence, point) in enumerate(zip(said, points, strict=True))
    ),
    tuple(claim for point in points for claim in claims_of(point.kind, point.values)),
    by_template=sum(sentence is None for sentence in said),
  )
