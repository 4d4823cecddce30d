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
from gatrec_jax.profiles.writer.answers import answer_tokens, item_limits, user_limits
from gatrec_jax.profiles.writer.prompts import Budget

# Greedy decoding first; answers that fail their checks are sampled again.
FIRST, AGAIN = Sampling(), Sampling(temperature=0.7)
# Enough for six profiles; a longer context only costs memory.
_MAX_CONTEXT = 8192
_ENGLISH = (
  "The user enjoys thoughtful dramas and crime stories with complex characters, and avoids loud "
  "comedies; favourites explore family, friendship, justice and the price of ambition."
)


class LocalAuthor:
  """An `Author` that queries a decoder.

  Attributes:
    budget, item_limits, user_limits: as in `Author`.
    speed: tokens and seconds of all answers so far.
  """

  def __init__(
    self, model: LanguageModel, *, lora: Lora | None = None, batch_size: int = 8
  ) -> None:
    """Args:
      model: the decoder.
      lora: low-rank additions to its weights.
      batch_size: prompts per batch.
    Raises: InputError for a model without a tokenizer.
    """
    if model.tokenizer is None:
      raise InputError(
        "the folder has no tokenizer, which profiles need", field="llm", value=model.name
      )
    self._model, self._lora, self._batch_size = model, lora, batch_size
    context = min(model.config.context, _MAX_CONTEXT)
    tokens = answer_tokens(context)
    self.budget = Budget(context - tokens, self._count, self._length, self._truncate)
    written = len(_ENGLISH) / self._length(_ENGLISH)
    self.item_limits, self.user_limits = item_limits(tokens, written), user_limits(tokens, written)
    self._tokens = tokens
    self._forms: dict[str, Automaton] = {}
    self.speed = Speed()

  def answers(
    self, prompts: Sequence[str], form: Mapping[str, Any], *, seed: int, again: bool
  ) -> list[dict[str, Any]]:
    """See `Author`."""
    # Padded to full batches with the first prompt, so that few shapes are compiled.
    missing = -len(prompts) % self._batch_size
    found = generate(
      self._model,
      [self._ids(prompt) for prompt in [*prompts, *prompts[:1] * missing]],
      max_tokens=self._tokens,
      sampling=AGAIN if again else FIRST,
      seed=seed,
      constraint=self._automaton(form),
      batch_size=self._batch_size,
      lora=self._lora,
      speed=self.speed,
    )
    return [json.loads(one.text) for one in found[: len(prompts)]]

  def _automaton(self, form: Mapping[str, Any]) -> Automaton:
    key = json.dumps(form)
    if key not in self._forms:
      automaton = answer_schema(self._model, form)
      if (least := min_tokens(automaton)) > self._tokens:
        raise InputError(
          f"a profile needs at least {least} tokens, but only {self._tokens} of the context of "
          f"{self._model.config.context} are for answers; use a model with a longer context",
          field="llm",
          value=self._model.name,
        )
      self._forms[key] = automaton
    return self._forms[key]

  def _ids(self, prompt: str) -> list[int]:
    if has_template(self._model.tokenizer):
      return self._model.encode([{"role": "user", "content": prompt}])
    return self._model.encode.text(f"{prompt}\n\nJSON:\n")

  def _count(self, prompt: str) -> int:
    return len(self._ids(prompt))

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
