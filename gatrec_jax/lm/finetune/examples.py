"""Examples for fine-tuning: completions and choices of labels, from token ids or from texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.scoring import label_tokens
from gatrec_jax.lm.tokens.chat import encode_prompt
from gatrec_jax.lm.tokens.token_bytes import spell


@dataclasses.dataclass(frozen=True)
class CompletionExample:
  """A prompt and the completion to learn.

  Attributes:
    prompt: token ids to condition on, including special tokens.
    completion: token ids to learn, including the EOS token.
  """

  prompt: Sequence[int]
  completion: Sequence[int]

  def __post_init__(self) -> None:
    for name in ("prompt", "completion"):
      if isinstance(getattr(self, name), str):
        raise InputError(f"CompletionExample: its {name} is a text; use lm.text_example for texts")


@dataclasses.dataclass(frozen=True)
class LabelExample:
  """A prompt and labels to choose from after it.

  Attributes:
    prompt: token ids.
    labels: ids of the L label tokens.
    relevance: relevance of each label; `label_cross_entropy` learns the label with the highest.
  """

  prompt: Sequence[int]
  labels: Sequence[int]
  relevance: Sequence[float]


def text_example(model: LanguageModel, prompt: str, completion: str) -> CompletionExample:
  """Makes a `CompletionExample` from texts; the completion ends with the EOS token.

  A space between prompt and completion belongs to the completion.
  Raises: InputError for a model without a tokenizer or without an EOS token.
  """
  if not model.eos:
    raise InputError(f"{model.name}: has no EOS token to learn; make a CompletionExample of ids")
  return CompletionExample(
    prompt=encode_prompt(model.tokenizer, prompt, bos=model.bos),
    completion=[*spell(model.spelling, completion), model.eos[0]],
  )


def label_example(
  model: LanguageModel,
  prompt: str,
  labels: Sequence[str],
  relevance: Sequence[float],
  *,
  leading_space: bool = False,
) -> LabelExample:
  """Makes a `LabelExample` from texts; each label must be a single token.

  Args: relevance: of each label. leading_space: whether the labels follow a space.
  Raises: InputError as in `label_tokens`.
  """
  return LabelExample(
    prompt=encode_prompt(model.tokenizer, prompt, bos=model.bos),
    labels=label_tokens(model, labels, leading_space=leading_space).tolist(),
    relevance=list(relevance),
  )
