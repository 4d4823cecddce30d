"""A language model as an author: it puts evidence into words, and its sentences are checked.

The model reads facts, one plain sentence each, in which placeholders such as [a] stand for titles,
names and numbers. It rephrases the facts and copies the placeholders; constrained decoding
(`lm/constraints/placeholders.py`) rules out any other placeholder, any digit and any open bracket.
The placeholders are then replaced and each sentence is read back (`phrases.read`). A sentence is
kept if it claims one of the facts completely and nothing else. The model is queried once more, for
one fact at a time, about the facts that are left; after that templates state them, and are counted.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from gatrec_jax.errors import InputError
from gatrec_jax.explain.authors import assembled
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import PHRASES, claims_of, complete, read, slot_text, slots_of
from gatrec_jax.explain.reasons import Point, Reason, points_of, titles_of
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.placeholders import LETTERS, mark, marked_sentences
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.chat import has_template

FACTS, SENTENCES = "Facts:", "Sentences:"
MAX_FACTS = 4  # in one prompt
_MAX_TOKENS = 48 * MAX_FACTS  # of an answer
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
_INSTRUCTION = (
  "Below are facts about why a title is recommended to a user. Address the user as “you” and "
  "rephrase each fact as one short, natural sentence, in the given order. Copy the placeholders in "
  "brackets exactly. Add nothing that the facts do not state, and no names or numbers of your own."
)
_PLACEHOLDER = re.compile(r"\[([a-z])\]")


class FactGroup(NamedTuple):
  """Facts that share a prompt.

  Attributes: record: index of the record. places: indices of the record's points.
  """

  record: int
  places: Sequence[int]


class LanguageModelAuthor:
  """Writes with a local decoder and keeps only sentences that the evidence supports."""

  def __init__(
    self,
    model: LanguageModel,
    *,
    lora: Lora | None = None,
    model_hash: str = "",
    instructed: bool = True,
    batch_size: int = 16,
  ) -> None:
    """Args:
      model: the decoder.
      lora: low-rank additions to its weights.
      model_hash: of model and additions; files of reasons are tied to it.
      instructed: whether prompts contain instructions and the values of the placeholders. The
        built-in author is trained on bare facts and needs neither.
      batch_size: prompts per batch.
    Raises: InputError for a model without a tokenizer.
    """
    if model.tokenizer is None:
      raise InputError(
        "the folder has no tokenizer, which reasons need", field="llm", value=model.name
      )
    self.name, self.model_hash = model.name, model_hash
    self._model, self._lora, self._instructed = model, lora, instructed
    self._batch_size = batch_size
    self._constraints: dict[int, Automaton] = {}

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    points = [points_of(evidence, style=style) for evidence in records]
    written: list[list[str | None]] = [[None] * len(own) for own in points]
    for size in (MAX_FACTS, 1):
      groups = [
        FactGroup(record, left[first : first + size])
        for record, own in enumerate(written)
        for left in [[place for place, sentence in enumerate(own) if sentence is None]]
        for first in range(0, len(left), size)
      ]
      if not groups:
        break
      facts = [[points[group.record][place] for place in group.places] for group in groups]
      seed = f"{records[0].user_id}\n{style}\n{size}"
      for group, own, answer in zip(groups, facts, self._answers(facts, seed), strict=True):
        titles = titles_of(records[group.record])
        for place, sentence in supported_sentences(answer, own, titles=titles).items():
          written[group.record][group.places[place]] = sentence
    return [assembled(*one) for one in zip(written, points, records, strict=True)]

  def _answers(self, facts: Sequence[Sequence[Point]], seed: str) -> list[str]:
    counts = [len(values_of(own)) for own in facts]
    for count in set(counts) - self._constraints.keys():
      self._constraints[count] = marked_sentences(self._model, count)
    # Truncating on the left keeps the facts of a prompt that exceeds the context.
    answers = generate(
      self._model,
      [self._prompt(own) for own in facts],
      max_tokens=_MAX_TOKENS,
      sampling=_SAMPLING,
      seed=zlib.crc32(seed.encode()),
      truncate="left",
      constraint=[self._constraints[count] for count in counts],
      batch_size=self._batch_size,
      lora=self._lora,
    )
    return [one.text for one in answers]

  def _prompt(self, facts: Sequence[Point]) -> list[int]:
    if not self._instructed:
      # Phrases and placeholders, which are tokens of the built-in author, and no data.
      return self._model.encode.raw(facts_prompt([point.kind for point in facts]))
    prompt = instructed_prompt(facts)
    if has_template(self._model.tokenizer):
      return self._model.encode([{"role": "user", "content": prompt}])
    return self._model.encode.text(prompt)


def instructed_prompt(facts: Sequence[Point]) -> str:
  """A prompt with instructions, what each placeholder stands for in one line, and the facts."""
  values = [" ".join(value.split()) for value in values_of(facts)]
  legend = "\n".join(f"{mark(n)} = {value}" for n, value in enumerate(values))
  return f"{_INSTRUCTION}\n\n{legend}\n\n{facts_prompt([point.kind for point in facts])}"


def facts_prompt(kinds: Sequence[str]) -> str:
  """A prompt with one fact per line, in the plainest phrase of its kind with placeholders."""
  lines = [
    f"- {complete(PHRASES[kind][0], marks)}"
    for kind, marks in zip(kinds, placeholders_of(kinds), strict=True)
  ]
  return "\n".join([FACTS, *lines, "", SENTENCES, ""])


def placeholders_of(kinds: Sequence[str]) -> list[dict[str, str]]:
  """The placeholder of each slot of several facts, by slot; no two facts share a placeholder."""
  numbers = itertools.count()
  return [{slot: mark(next(numbers)) for slot in slots_of(PHRASES[kind][0])} for kind in kinds]


def values_of(facts: Sequence[Point]) -> list[str]:
  """The texts that the placeholders of `placeholders_of` stand for, in the same order."""
  return [
    slot_text(slot, point.values) for point in facts for slot in slots_of(PHRASES[point.kind][0])
  ]


def supported_sentences(
  answer: str, facts: Sequence[Point], *, titles: Sequence[str]
) -> dict[int, str]:
  """The sentences of an answer that claim exactly one of the facts, by the index of the fact.

  Args:
    answer: text with the placeholders of `values_of(facts)`.
    facts: that the model was given.
    titles: that the reason may name.
  """
  values = values_of(facts)
  wanted = {
    claims_of(point.kind, point.values): place for place, point in reversed(list(enumerate(facts)))
  }
  found: dict[int, str] = {}
  # Split before the placeholders are replaced, so that a value is never taken for the end of a
  # sentence or for a placeholder.
  for sentence in re.split(r"(?<=\.)\s+", answer.strip()):
    whole = _PLACEHOLDER.sub(lambda match: values[LETTERS.index(match.group(1))], sentence)
    place = wanted.get(read(whole, titles))
    if place is not None:
      found.setdefault(place, whole)
  return found
