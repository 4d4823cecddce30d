"""Sentences with placeholders: what the constraint allows, whatever the weights are."""

import dataclasses
import re

import pytest
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import accepts, min_tokens
from gatrec_jax.lm.constraints.placeholders import MOST_MARKS, mark, marked_sentences
from gatrec_jax.lm.finetune.from_scratch import train_tokenizer, wrap_tokenizer
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.token_bytes import spell

FORM = r"(?:[^\[\]\d\n]|\[[ab]\])*\."


@pytest.fixture(scope="module")
def model():
  tokenizer = train_tokenizer(
    ["You liked [a], and [b] is here again. 12"] * 9, vocabulary=300, extra_tokens=["[a]"]
  )
  fields = {
    "vocabulary": tokenizer.get_vocab_size(),
    "bos": 0,
    "eos": (1,),
    "pad": 2,
    "context": 64,
  }
  tiny = tiny_model(layers=tiny_config().layers[:1], **fields)
  return dataclasses.replace(tiny, tokenizer=wrap_tokenizer(tokenizer, 64, chat=False))


@pytest.mark.parametrize(
  ("text", "fits"),
  [
    ("You liked [a].", True),
    ("[b] is here. [a] again.", True),
    ("You liked [c].", False),
    ("You liked [a]", False),
    ("You liked 3.", False),
    ("You liked [ab].", False),
    ("You liked a].", False),
    ("You liked [a.", False),
    ("“[a]”.", False),
    ("One.\nTwo.", False),
  ],
)
def test_allowed_sentences(model, text, fits):
  assert accepts(marked_sentences(model, 2), spell(model.spelling, text)) == fits


def test_answers_of_random_weights_have_the_form(model):
  constraint = marked_sentences(model, 2)
  assert min_tokens(constraint) == 1 and accepts(constraint, spell(model.spelling, "."))
  found = generate(
    model,
    ["You"] * 40,
    max_tokens=24,
    sampling=Sampling(temperature=3.0),
    batch_size=40,
    constraint=[constraint, marked_sentences(model, 0)] * 20,
  )
  texts = [one.text for one in found]
  assert all(re.fullmatch(FORM, text) for text in texts), texts
  assert len(set(texts)) > 30 and not any("[" in text for text in texts[1::2])
  assert any("[a]" in text for text in texts) and any("[b]" in text for text in texts)


def test_too_many_placeholders_are_rejected(model):
  with pytest.raises(InputError, match="27 placeholders: must be 0 to 26"):
    marked_sentences(model, MOST_MARKS + 1)
  assert mark(25) == "[z]"
