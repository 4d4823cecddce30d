"""The functions of `gatrec_jax.lm` that take texts; bare strings are not read letter by letter."""

import dataclasses
import json

import pytest
from helpers.constraints import byte_level, sentence_piece
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax import lm
from gatrec_jax.errors import InputError


def with_tokenizer(tokenizer, eos):
  fields = {"vocabulary": len(tokenizer), "context": 96, "bos": 0, "eos": (eos,)}
  model = tiny_model(layers=tiny_config().layers[:1], **fields)
  return dataclasses.replace(model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def model():
  return with_tokenizer(byte_level(), 1)


@pytest.mark.parametrize("tokenizer, eos", [(byte_level, 1), (sentence_piece, 2)])
def test_a_completion_follows_its_prompt_and_ends(tokenizer, eos):
  model = with_tokenizer(tokenizer(), eos)
  example = lm.text_example(model, "The best film is", " Alien.")
  assert list(example.prompt) == model.tokenizer.encode("The best film is")
  assert example.completion[-1] == eos and model.bos not in example.completion
  table = model.spelling.table
  assert b"".join(table[token] for token in example.completion[:-1]) == b" Alien."


def test_labels_become_tokens(model):
  example = lm.label_example(model, "Best: ", ["a", "b"], [0, 2.0])
  assert list(example.labels) == model.tokenizer.convert_tokens_to_ids(["a", "b"])
  assert example.relevance == [0, 2.0]
  with pytest.raises(InputError, match="single_token_labels"):
    lm.label_example(model, "Best: ", ["a", "qqqq"], [0, 1])


def test_answers_are_constrained(model):
  hot = lm.Sampling(temperature=5.0)
  bound = lm.answer_choices(model, [" yes", " no"])
  answers = lm.generate(model, [[5]] * 8, max_tokens=16, sampling=hot, constraint=bound)
  assert {answer.text for answer in answers} == {" yes", " no"}
  schema = {"type": "object", "properties": {"seen": {"type": "boolean"}}}
  bound = lm.answer_schema(model, schema)
  answer = lm.generate(model, [[5]], max_tokens=32, sampling=hot, constraint=bound)[0]
  assert type(json.loads(answer.text)["seen"]) is bool


@pytest.mark.parametrize(
  "call, said",
  [
    (lambda m: lm.generate(m, "abc"), "list of prompts"),
    (lambda m: lm.generate(m, [None]), "prompt 1"),
    (lambda m: lm.generate(m, ["a"], stop="zy"), "stop"),
    (lambda m: lm.generate(m, ["\udcff"]), "UTF-8"),
    (lambda m: lm.generate(m, ["a"], constraint=[None]), "Automaton"),
    (lambda m: lm.score_labels(m, "a", ["a", "b"]), "list of prompts"),
    (lambda m: lm.score_labels(m, ["a"], "ab"), "labels"),
    (lambda m: lm.score_continuations(m, ["a"], [" b"]), "continuations"),
    (lambda m: lm.answer_choices(m, "ab"), "choices"),
    (lambda m: lm.CompletionExample("a", [1]), "text_example"),
    (lambda m: lm.text_example(dataclasses.replace(m, tokenizer=None), "a", "b"), "tokenizer"),
  ],
)
def test_misuse_is_reported(model, call, said):
  with pytest.raises(InputError, match=said):
    call(model)


def test_the_repr_of_a_model_is_one_line(model):
  assert len(repr(model)) < 120 and "llama" in repr(model)
