"""Constraints for `generate`, made with a model's tokenizer and EOS tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.choices import choices
from gatrec_jax.lm.constraints.json_schema import shape_automaton
from gatrec_jax.lm.constraints.schema import read_schema
from gatrec_jax.lm.folders.load import LanguageModel


def answer_choices(model: LanguageModel, texts: Sequence[str]) -> Automaton:
  """Constrains the answers of `generate` to one of the given texts.

  A space between prompt and answer belongs to the text: `" yes"` after `"Answer:"`.
  Raises: InputError as in `choices`, or for a model without a tokenizer.
  """
  return choices(model.spelling.tokenizer, texts, vocabulary=model.config.vocabulary, eos=model.eos)


def answer_schema(
  model: LanguageModel, schema: Mapping[str, Any], *, max_string: int = 200
) -> Automaton:
  """Constrains the answers of `generate` to complete JSON texts of a schema.

  Supported are objects (all `properties` are written, in order), strings (free text up to
  `maxLength`, `enum`, `const`, sentences of given words), integers with `minimum` and `maximum`,
  booleans, and arrays with `maxItems`; `constraints/json_schema.py` has the details.

  Args: schema: as a dict. max_string: `maxLength` of strings without one.
  Raises: InputError that names the path of what is not supported.
  """
  shape = read_schema(schema, max_string=max_string)
  return shape_automaton(model.spelling, shape, eos=model.eos)
