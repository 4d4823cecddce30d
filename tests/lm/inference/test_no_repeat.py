"""No n-gram twice, with and without constraints, against a plain reference; and the own end."""

import functools

import jax
import numpy as np
import pytest
from helpers.constraints import byte_level
from helpers.scripted_decoder import scripted_model
from helpers.tiny_decoder import tiny_config, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import token_trie
from gatrec_jax.lm.constraints.json_schema import json_schema
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.inference.decode import decode
from gatrec_jax.lm.inference.generate import Speed, generate
from gatrec_jax.lm.inference.sampling import Sampling, extend_matches, repeats

VOCABULARY, PROMPTS = 24, [[1, 5, 9], [7], [9, 8, 7, 6]]


def banned(drawn, size):
  """The tokens after which an n-gram would occur twice, by comparing all of them."""
  before = tuple(drawn[len(drawn) - size + 1 :])
  starts = range(len(drawn) - size + 1)
  return {drawn[at + size - 1] for at in starts if tuple(drawn[at : at + size - 1]) == before}


extended = jax.jit(extend_matches)
repeated = jax.jit(functools.partial(repeats, vocabulary=5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=16), st.integers(1, 5))
def test_the_tokens_that_would_repeat_an_n_gram(drawn, size):
  room = 16
  tokens, matches = np.zeros((1, room), np.int32), np.zeros((1, room), np.int32)
  for step, token in enumerate(drawn, 1):
    tokens[0, step - 1] = token
    matches = extended(matches, tokens, np.int32(step))
    found = repeated(matches, tokens, np.int32(step), np.int32(size))[0]
    wanted = banned(drawn[:step], size) if step >= size - 1 else set()
    assert set(np.flatnonzero(np.asarray(found)).tolist()) == wanted


def looping():
  """A random model without an EOS token, whose greedy answers go around in circles."""
  return tiny_model(eos=(), tied=False, layers=tiny_config().layers[:1], context=64)


def reference(model, prompt, size, count, allowed=None):
  """Greedy decoding, one forward pass per token. allowed: tokens so far -> the ones allowed."""
  drawn = []
  for _ in range(count):
    place = len(prompt) + len(drawn)
    sequence = np.zeros((1, 32), np.int32)  # one shape, so one program
    sequence[0, :place] = [*prompt, *drawn]
    logits = np.asarray(forward(model.params, sequence, config=model.config))[0, place - 1]
    able = set(range(VOCABULARY)) if allowed is None else allowed(drawn)
    if not able:
      break
    free = able - (banned(drawn, size) if size and len(drawn) >= size - 1 else set())
    drawn.append(max(free or able, key=lambda token: logits[token]))
  return tuple(drawn)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_answers_are_those_of_the_reference(size):
  model = looping()
  count = 20
  found = generate(model, PROMPTS, max_tokens=count, sampling=Sampling(no_repeat=size))
  for prompt, answer in zip(PROMPTS, found, strict=True):
    assert answer.tokens == reference(model, prompt, size, count)
    grams = list(zip(*(answer.tokens[at:] for at in range(size)), strict=False))
    assert not size or len(grams) == len(set(grams))
  if not size:  # the model does repeat itself
    assert any(len(set(answer.tokens)) < count / 2 for answer in found)


def test_a_constraint_that_allows_nothing_else_is_followed():
  model = looping()
  # After 3, the text goes on with 3 or 4; the end of every text is forced.
  texts = [(3, 3, 3, 5, 6, 5, 6), (3, 4, 3, 4, 3, 4, 7)]
  trie = token_trie(texts, vocabulary=VOCABULARY, eos=())

  def allowed(drawn):
    size = len(drawn)
    return {text[size] for text in texts if list(text[:size]) == drawn and size < len(text)}

  found = generate(model, PROMPTS, max_tokens=8, sampling=Sampling(no_repeat=2), constraint=trie)
  for prompt, answer in zip(PROMPTS, found, strict=True):
    assert answer.tokens == reference(model, prompt, 2, 8, allowed) and answer.tokens in texts


def test_sizes_share_a_program_and_wrong_ones_are_refused():
  model = looping()
  generate(model, [[5]], max_tokens=4, sampling=Sampling(no_repeat=2))
  before = decode._cache_size()
  generate(model, [[6]], max_tokens=4, sampling=Sampling(no_repeat=3))
  assert decode._cache_size() == before
  with pytest.raises(InputError, match="no_repeat=-1: must be 0 .off. or above"):
    Sampling(no_repeat=-1)


@pytest.mark.parametrize(("likely", "wanted"), [("x</s>", '"x"'), ("xyx", '"xyxyx"')])
def test_free_text_is_closed_where_the_model_wants_to_stop(likely, wanted):
  tokenizer = byte_level()
  names = ['"', *likely.partition("</s>")[0], *(["</s>"] if "</s>" in likely else [])]
  model = scripted_model(tokenizer, tokenizer.convert_tokens_to_ids(names), eos=(1,), context=64)
  constraint = json_schema(
    tokenizer, {"type": "string", "maxLength": 5}, vocabulary=len(tokenizer), eos=[1]
  )
  (answer,) = generate(model, [[5]], max_tokens=24, constraint=constraint)
  assert answer.text == wanted


def test_a_shared_beginning_changes_no_answer():
  model = looping()
  shared = [1, 5, 9, 3, 3, 7, 20, 11, 4, 4, 8, 2, 6, 19, 21, 10, 12, 13]
  prompts = [[*shared, *own] for own in ([5], [6, 7, 8], [5, 9])]
  settings = {"max_tokens": 12, "sampling": Sampling(no_repeat=2, repetition_penalty=1.2)}
  speed = Speed()
  found = generate(model, prompts, share_prefix=True, speed=speed, **settings)
  assert found == generate(model, prompts, **settings)
  assert speed.prompt_tokens == len(shared) + 6
  # Equal prompts keep a token of their own; different ones share nothing.
  for several in ([shared] * 2, [[3, 4], [5]]):
    assert generate(model, several, share_prefix=True, **settings) == generate(
      model, several, **settings
    )
