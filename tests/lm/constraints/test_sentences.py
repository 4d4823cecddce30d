"""Sentences of given words, and lists in a given order: nothing else can be written."""

import functools
import itertools
import json
import re

import numpy as np
import pytest
from helpers import constraints as helpers

from gatrec_jax.lm.constraints.choices import START, accepting, accepts
from gatrec_jax.lm.constraints.json_schema import json_schema
from gatrec_jax.lm.tokens.token_bytes import make_spelling, spell, token_bytes, write

KINDS = {"bytes": (helpers.byte_level(), 1), "pieces": (helpers.sentence_piece(), 2)}


@functools.cache
def spelling(kind):
  tokenizer, eos = KINDS[kind]
  return make_spelling(tokenizer, vocabulary=len(tokenizer), eos=[eos])


def made(kind, schema):
  tokenizer, eos = KINDS[kind]
  return json_schema(tokenizer, schema, vocabulary=len(tokenizer), eos=[eos])


def test_items_in_order_are_the_ordered_subsets():
  names = ["a", "b", "c", 'say "hi"']
  schema = {
    "type": "array",
    "items": {"enum": names},
    "minItems": 2,
    "maxItems": 3,
    "inOrder": True,
  }
  automaton = made("bytes", schema)
  rows, _ = helpers.runs(automaton, START, np.full(400, 40), spread=0.5)
  table = token_bytes(KINDS["bytes"][0])
  found = {tuple(json.loads(write(table, row))) for row in rows}
  wanted = {own for size in (2, 3) for own in itertools.combinations(names, size)}
  assert found == wanted
  # More values than `uniqueItems` could take, and a maximum beyond their number.
  many = {"enum": [f"{number}" for number in range(40)]}
  long = schema | {"items": many, "maxItems": 64}
  assert accepts(made("bytes", long), spell(spelling("bytes"), json.dumps(many["enum"])))
  assert not accepts(made("bytes", long), spell(spelling("bytes"), '["2", "1"]'))


SENTENCE = {
  "type": "string",
  "words": ["film", "drama", "café"],
  "links": ["of", "the", "film"],
  "starts": ["A", "The slow"],
  "minWords": 2,
  "maxWords": 4,
}
_PIECE = "(?: (?:of|the))* (?:film|drama|café)"


@pytest.mark.parametrize("kind", list(KINDS))
def test_sentences_have_the_given_words_and_no_others(kind):
  automaton = made(kind, {"type": "object", "properties": {"s": SENTENCE, "t": {"const": "x"}}})
  rows, state = helpers.runs(automaton, START, np.full(400, 120), spread=1.0)
  assert accepting(automaton, state).all()
  table = token_bytes(KINDS[kind][0])
  found = {json.loads(write(table, row))["s"] for row in rows}
  assert len(found) > 100
  for text in found:
    assert re.fullmatch(rf"(?:A|The slow){_PIECE}(?:,?{_PIECE})*\.", text), text
    assert 2 <= len(text.removeprefix("The ").split()) - 1 <= 4
  assert {text.split(" ")[0] for text in found} == {"A", "The"}
  assert any("," in text for text in found)
  counts = {len(text.removeprefix("The ").split()) - 1 for text in found}
  assert counts == {2, 3, 4}


@pytest.mark.parametrize(
  ("text", "holds"),
  [
    ("A film drama.", True),
    ("A film, of the drama.", True),
    ("A the film.", True),
    ("A film.", False),  # too short
    ("A film of the.", False),  # ends with a link
    ("A of, film drama.", False),
    ("A film,, drama.", False),
    ("A film drama film drama film.", False),
    ("Film drama drama.", False),
  ],
)
def test_sentences_solved_by_hand(text, holds):
  assert accepts(made("bytes", SENTENCE), byte_tokens(json.dumps(text))) == holds


def byte_tokens(text):
  """A text in the segmentation of sentences: the words one by one."""
  start, *rest = text.removesuffix('."').split(" ")
  pieces = [start]
  for word in rest:
    pieces += [f" {word.rstrip(',')}", *word[len(word.rstrip(",")) :]]
  return [token for piece in [*pieces, '."'] for token in spell(spelling("bytes"), piece)]
