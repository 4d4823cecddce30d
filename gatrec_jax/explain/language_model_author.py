"""A language model as an author: it puts evidence into words, and its sentences are checked.

The model reads facts, one plain sentence each, in which placeholders such as [a] stand for titles,
names and numbers. It writes one sentence for each fact, in order. Constrained decoding carries the
facts: at each sentence the model chooses among the phrases of its kind, and may begin it with
connecting words from a closed list (`phrases.CONNECTING`), so that whatever its weights are, it can
neither leave the form nor write a fact of its own. The placeholders are then replaced, and each
sentence is read back (`phrases.read`): it is kept if it claims its fact completely and nothing
else. The model is queried once more, for one fact at a time, about the facts that are left (those
of a group that did not fit into its context); after that templates state them, and are counted.
"""

from __future__ import annotations

import functools
import itertools
import re
import string
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from gatrec_jax.errors import InputError
from gatrec_jax.explain.authors import assembled
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.phrases import (
  CONNECTING,
  PHRASES,
  claims_of,
  complete,
  read,
  slot_text,
  slots_of,
)
from gatrec_jax.explain.reasons import Point, Reason, points_of, titles_of
from gatrec_jax.lm.constraints.api import answer_network
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.network import most_tokens
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.chat import has_template

FACTS, SENTENCES = "Facts:", "Sentences:"
MAX_FACTS = 4  # in one prompt
_KEPT = 256  # grammars of groups of facts, which repeat from reason to reason
_OFFERS = 3  # a sentence is offered every third of the connecting words of its kind
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
_INSTRUCTION = (
  "These facts say why a title is recommended to a user. Tell them so, one natural sentence for "
  "each fact, in this order. Copy the placeholders in brackets."
)
_PLACEHOLDER = re.compile(r"\[([a-z])\]")


class FactGroup(NamedTuple):
  """Facts that share a prompt.

  Attributes:
    record: index of the record. places: indices of the record's points.
    facts: these points.
    offers: for each of them, which connecting words it is offered, as in `sentence_network`.
  """

  record: int
  places: Sequence[int]
  facts: Sequence[Point]
  offers: Sequence[int]


class LanguageModelAuthor:
  """Writes with a local decoder and keeps only sentences that the evidence supports."""

  def __init__(
    self,
    model: LanguageModel,
    *,
    lora: Lora | None = None,
    model_hash: str = "",
    instructed: bool = True,
    batch_size: int = 8,
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
    self._grammar = functools.lru_cache(_KEPT)(functools.partial(_grammar, model))

  def __call__(self, records: Sequence[Evidence], *, style: str) -> list[Reason]:
    points = [points_of(evidence, style=style) for evidence in records]
    written: list[list[str | None]] = [[None] * len(own) for own in points]
    for size in (MAX_FACTS, 1):
      groups = [
        group
        for record, own in enumerate(written)
        for group in _groups(record, records[record], points[record], own, size=size)
      ]
      seed = f"{records[0].user_id}\n{style}\n{size}" if records else ""
      for group, answer in zip(groups, self._answers(groups, seed), strict=True):
        titles = titles_of(records[group.record])
        sentences = supported_sentences(answer, group.facts, titles=titles)
        for place, sentence in zip(group.places, sentences, strict=True):
          written[group.record][place] = sentence
    return [assembled(*one) for one in zip(written, points, records, strict=True)]

  def _answers(self, groups: Sequence[FactGroup], seed: str) -> list[str]:
    """The answer for each group of facts; "" for one that does not fit into the context."""
    grammars = [
      self._grammar(tuple(point.kind for point in group.facts), tuple(group.offers))
      for group in groups
    ]
    rooms = [most_tokens(one) for one in grammars]
    fitting = [n for n, room in enumerate(rooms) if room <= self._model.config.context // 2]
    # Truncating on the left keeps the facts of a prompt that exceeds the context.
    found = generate(
      self._model,
      [self._prompt(groups[n].facts) for n in fitting],
      max_tokens=[rooms[n] for n in fitting],
      sampling=_SAMPLING,
      seed=zlib.crc32(seed.encode()),
      truncate="left",
      constraint=[grammars[n] for n in fitting],
      batch_size=self._batch_size,
      lora=self._lora,
    )
    answers = [""] * len(groups)
    for n, one in zip(fitting, found, strict=True):
      answers[n] = one.text
    return answers

  def _prompt(self, facts: Sequence[Point]) -> list[int]:
    if not self._instructed:
      # Phrases and placeholders, which are tokens of the built-in author, and no data.
      return self._model.encode.raw(facts_prompt([point.kind for point in facts]))
    prompt = instructed_prompt(facts)
    if has_template(self._model.tokenizer):
      return self._model.encode([{"role": "user", "content": prompt}])
    return self._model.encode.text(prompt)


def mark(place: int) -> str:
  """The placeholder with index `place`: "[a]", "[b]", …, "[z]"."""
  return f"[{string.ascii_lowercase[place]}]"


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


def sentence_network(
  kinds: Sequence[str], offers: Sequence[int]
) -> tuple[tuple[tuple[str, int], ...], ...]:
  """What a model may write about facts of these kinds, as the places of `answer_network`.

  One sentence per fact, in order, in any phrase of its kind. From the second on a sentence may
  begin with connecting words, but no two in a row do, and of those of its kind a sentence has only
  every third, so that a reason does not repeat them.

  Args: offers: for each fact, with which of the first three connecting words its offer begins.
  """
  places = []
  for n, (kind, marks) in enumerate(zip(kinds, placeholders_of(kinds), strict=True)):
    space = " " if n else ""
    plain = [(space + complete(phrase, marks), 2 * n + 2) for phrase in PHRASES[kind]]
    connected = [
      (space + complete(phrase, marks, connecting=words), 2 * n + 3)
      for phrase in PHRASES[kind]
      for words in CONNECTING[phrase][offers[n] :: _OFFERS]
      if n
    ]
    places += [plain + connected, plain]  # the second after a sentence with connecting words
  end = len(places)
  return tuple(tuple((text, min(to, end)) for text, to in own) for own in places)


def _grammar(model: LanguageModel, kinds: tuple[str, ...], offers: tuple[int, ...]) -> Automaton:
  return answer_network(model, sentence_network(kinds, offers))


def _groups(
  record: int,
  evidence: Evidence,
  points: Sequence[Point],
  written: Sequence[str | None],
  *,
  size: int,
) -> list[FactGroup]:
  """The facts of a record that are not written yet, in groups of at most `size`."""
  left = [place for place, sentence in enumerate(written) if sentence is None]
  # Reasons of different items, and neighboring sentences, are offered different words.
  shift = zlib.crc32(f"{evidence.user_id}\n{evidence.item_id}".encode())
  return [
    FactGroup(
      record, own, [points[place] for place in own], [(shift + place) % _OFFERS for place in own]
    )
    for own in (left[first : first + size] for first in range(0, len(left), size))
  ]


def supported_sentences(
  answer: str, facts: Sequence[Point], *, titles: Sequence[str]
) -> list[str | None]:
  """The sentences of an answer, one per fact; None for one that does not claim exactly its fact.

  Args:
    answer: text with the placeholders of `values_of(facts)`.
    facts: that the model was given.
    titles: that the reason may name.
  """
  values = values_of(facts)
  # Split before the placeholders are replaced, so that a value is never taken for the end of a
  # sentence or for a placeholder.
  sentences = re.split(r"(?<=\.)\s+", answer.strip())
  if len(sentences) != len(facts):
    return [None] * len(facts)
  whole = [
    _PLACEHOLDER.sub(lambda found: values[ord(found.group(1)) - ord("a")], sentence)
    for sentence in sentences
  ]
  return [
    sentence if read(sentence, titles) == claims_of(point.kind, point.values) else None
    for sentence, point in zip(whole, facts, strict=True)
  ]
