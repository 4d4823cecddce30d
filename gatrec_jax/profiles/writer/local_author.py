"""A local decoder as the author of profiles, with answers constrained to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.api import answer_schema
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.choices import min_tokens
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.generate import Speed, generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.chat import has_template
from gatrec_jax.profiles.writer.answers import answer_tokens
from gatrec_jax.profiles.writer.families import style_of
from gatrec_jax.profiles.writer.prompts import Budget, Query

# Greedy decoding first; answers that fail their checks are sampled again. Shorter n-grams do recur:
# a tag of four tokens may stand in the description.
FIRST = Sampling(no_repeat=5)
AGAIN = Sampling(temperature=0.7, top_p=0.9, no_repeat=5)
# Enough for six profiles; a longer context only costs memory.
_MAX_CONTEXT = 8192


class LocalAuthor:
  """An `Author` that queries a decoder.

  Attributes:
    budget, examples: as in `Author`.
    speed: tokens and seconds of all answers so far.
  """

  def __init__(
    self, model: LanguageModel, *, lora: Lora | None = None, batch_size: int = 8
  ) -> None:
    """Args:
      model: the decoder.
      lora: low-rank additions to its weights.
      batch_size: queries per batch.
    Raises: InputError for a model without a tokenizer.
    """
    if model.tokenizer is None:
      raise InputError(
        "the folder has no tokenizer, which profiles need", field="llm", value=model.name
      )
    self._model, self._lora, self._batch_size = model, lora, batch_size
    self._style = style_of(model.config.family, chat=has_template(model.tokenizer))
    context = min(model.config.context, _MAX_CONTEXT)
    self._tokens = answer_tokens(context)
    self.budget = Budget(context - self._tokens, self._count, self._length, self._truncate)
    self.examples = self._style.examples
    self.speed = Speed()

  def answers(self, queries: Sequence[Query], *, seed: int, again: bool) -> list[dict[str, Any]]:
    """See `Author`."""
    if not queries:
      return []
    # Padded to full batches with the first query, so that few shapes are compiled.
    padded = [*queries, *queries[:1] * (-len(queries) % self._batch_size)]
    forms = [self._automaton(query.form) for query in queries]
    found = generate(
      self._model,
      [self._ids(query) for query in padded],
      max_tokens=self._tokens,
      sampling=AGAIN if again else FIRST,
      seed=seed,
      constraint=[*forms, *forms[:1] * (len(padded) - len(queries))],
      batch_size=self._batch_size,
      share_prefix=True,
      lora=self._lora,
      speed=self.speed,
    )
    return [json.loads(one.text) for one in found[: len(queries)]]

  def _automaton(self, form: Mapping[str, Any]) -> Automaton:
    automaton = answer_schema(self._model, form)
    if (least := min_tokens(automaton)) > self._tokens:
      raise InputError(
        f"a profile needs at least {least} tokens, but only {self._tokens} of the context of "
        f"{self._model.config.context} are for answers; use a model with a longer context",
        field="llm",
        value=self._model.name,
      )
    return automaton

  def _ids(self, query: Query) -> list[int]:
    return self._style.ids(self._model, query)

  def _count(self, prompt: str) -> int:
    return len(self._ids(Query(prompt, {})))

  def _length(self, text: str) -> int:
    return len(self._model.encode.part(text).ids)

  def _truncate(self, text: str, tokens: int) -> str:
    """The beginning of a text in whole words, with an ellipsis if some are left out."""
    if tokens <= 0:
      return ""
    spans = self._model.encode.part(text).offsets
    if len(spans) <= tokens:
      return text
    # A character may consist of several tokens, which all have its span.
    kept = text[: min(spans[tokens - 1][1], spans[tokens][0])]
    after = text[len(kept) : len(kept) + 1]
    words = kept if after.isspace() else kept.rpartition(" ")[0]
    return f"{words.rstrip()} …" if words.strip() else ""
