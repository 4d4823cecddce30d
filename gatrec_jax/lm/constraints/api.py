"""From texts to what the engine takes, with a model's own tokenizer and end tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.choices import choices
from gatrec_jax.lm.constraints.json_schema import json_schema
from gatrec_jax.lm.finetune.packing import CompletionExample, LabelExample
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.scoring import label_tokens
from gatrec_jax.lm.tokens.chat import encode_prompt
from gatrec_jax.lm.tokens.token_bytes import spell


def answer_choices(model: LanguageModel, texts: Sequence[str]) -> Automaton:
  """A constraint for `generate`: the answer is one of these texts.

  A space between prompt and answer belongs to the text: `" yes"` after `"Answer:"`.
  Raises: InputError as `constrain.choices`, or for a model without a tokenizer.
  """
  return choices(model.spelling.tokenizer, texts, vocabulary=model.config.vocabulary, eos=model.eos)


def answer_schema(
  model: LanguageModel, schema: Mapping[str, Any], *, max_string: int = 200
) -> Automaton:
  """A constraint for `generate`: the answer is JSON of this schema, always whole.

  Known are objects (all `properties` are written, in order), strings (free up to `maxLength`,
  `enum`, `const`), integers with `minimum` and `maximum`, booleans, and arrays with `maxItems`;
  `gatrec_jax.lm.schema` has the particulars.
  Args: schema: as a dict. max_string: `maxLength` of the strings that have none.
  Raises: InputError that names the path of what is not supported.
  """
  return json_schema(
    model.spelling.tokenizer,
    schema,
    vocabulary=model.config.vocabulary,
    eos=model.eos,
    max_string=max_string,
  )


def text_example(model: LanguageModel, prompt: str, completion: str) -> CompletionExample:
  """An example for `finetune`: after `prompt` comes `completion`, and then the end.

  A space between the two belongs to the completion.
  Raises: InputError for a model without a tokenizer, or without an end token.
  """
  if not model.eos:
    raise InputError(f"{model.name}: has no end token to learn; make a CompletionExample of ids")
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
  """An example for `finetune`: which of the labels, one token each, shall follow the prompt.

  Args: relevance: a grade for each label. leading_space: whether a space comes before the label.
  Raises: InputError as `scoring.label_tokens`.
  """
  return LabelExample(
    prompt=encode_prompt(model.tokenizer, prompt, bos=model.bos),
    labels=label_tokens(model, labels, leading_space=leading_space).tolist(),
    relevance=list(relevance),
  )
