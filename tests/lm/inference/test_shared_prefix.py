"""Scores of labels after shared prefixes against the same prompts scored separately."""

import dataclasses
import functools
import os

import jax
import numpy as np
import pytest
from helpers.constraints import byte_level
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import Layer
from gatrec_jax.lm.decoder.model import forward, hidden_states, logits_of
from gatrec_jax.lm.decoder.rope import Rope
from gatrec_jax.lm.finetune.lora import init_lora
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference import shared_prefix
from gatrec_jax.lm.inference.generate import Speed
from gatrec_jax.lm.inference.scoring import score_continuations, score_labels
from gatrec_jax.lm.inference.shared_prefix import score_labels_shared

LABELS = np.array([7, 3, 11], np.int32)
ONE_LAYER = tiny_config().layers[:1]


@functools.cache
def tiny():
  """A random model of 24 tokens."""
  return tiny_model(layers=ONE_LAYER)


@functools.cache
def load(name):
  return load_decoder(GOLDENS / name)


def users(vocabulary, lengths, seed=0):
  """Random prompts of users; (3, (2, 5)) gives prompts of 5 and 8 tokens with a prefix of 3."""
  random = np.random.default_rng(seed)

  def drawn(count):
    return random.integers(4, vocabulary, count).tolist()

  prompts = []
  for prefix, suffixes in lengths:
    shared = drawn(prefix)
    # The first tokens of the suffixes differ, so that only the prefix is shared.
    prompts.append([[*shared, 1 + n % 3, *drawn(most - 1)] for n, most in enumerate(suffixes)])
  return prompts


def plain(model, prompts, **options):
  """The same scores from separate prompts, all in one batch."""
  flat = [one for several in prompts for one in several]
  scores = score_labels(model, [*flat, [1] * 32], LABELS, batch_size=32, **options)[:-1]
  return np.split(scores, np.cumsum([len(several) for several in prompts])[:-1])


def assert_close(found, expected):
  assert [one.shape for one in found] == [one.shape for one in expected]
  for one, other in zip(found, expected, strict=True):
    assert one.dtype == np.float32
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    assert other.std() > 0.1


# Windows of 8 end within the prefix, at its end and within the suffix; two ropes; no rope.
@pytest.mark.parametrize("name", ("gemma2", "gemma3_text", "smollm3"))
def test_scores_are_those_of_separate_passes(name):
  model = load(name)
  prompts = users(96, ((20, (3, 9, 14)), (9, (12, 1, 6)), (3, (5, 17, 2))))
  expected = [np.stack([full_pass(model, one)[LABELS] for one in several]) for several in prompts]
  assert_close(score_labels_shared(model, prompts, LABELS), expected)


def full_pass(model, ids):
  """[V] logits after the ids, from a forward pass."""
  row = np.zeros((3, 36), np.int32)  # the same shape for all rows
  row[0, : len(ids)] = ids
  lengths = np.array([len(ids), 1, 1], np.int32)
  logits = forward(model.params, row, config=model.config, lengths=lengths)
  return np.asarray(logits)[0, len(ids) - 1]


def test_users_may_have_different_numbers_of_prompts():
  model = tiny()
  prompts = users(24, ((20, (3, 9, 7)), (9, (12,)), (3, ()), (30, (1,) * 11), (17, (2, 2))))
  expected = plain(model, prompts)
  found = score_labels_shared(model, prompts, LABELS, batch_size=2)
  assert found.pop(2).shape == (0, 3)
  assert_close(found, [one for one in expected if len(one)])


def test_splitting_into_parts_makes_no_difference(monkeypatch):
  model = tiny()
  prompts = users(24, ((17, (3, 9, 14, 2, 5)), (3, (5, 11, 2, 2, 9))))
  expected = plain(model, prompts)
  for most in (1, 60_000):  # one suffix per part, and two or three
    monkeypatch.setattr(shared_prefix, "PART_BYTES", most)
    assert_close(score_labels_shared(model, prompts, LABELS), expected)


def test_prompts_that_share_nothing_or_everything():
  model = tiny()
  prompts = [
    [[5, 6, 7], [8, 6, 7, 9]],
    [[5, 6, 7, 8]] * 2,
    [[5, 6], [5, 6, 7, 8, 9]],  # one prompt is a prefix of another
    [[9], [9, 10]],
  ]
  assert_close(score_labels_shared(model, prompts, LABELS), plain(model, prompts))
  padded = dataclasses.replace(model, config=dataclasses.replace(model.config, pad=17))
  assert_close(score_labels_shared(padded, prompts, LABELS), plain(model, prompts))


def test_lora_windows_and_untied_heads():
  layers = (Layer(window=5, rope=Rope()), Layer(window=None, rope=Rope(theta=100.0)))
  model = tiny_model(layers=layers, tied=False, final_softcap=3.0)
  lora = init_lora(jax.random.key(0), model.config, rank=2)
  lora = jax.tree.map(lambda leaf: leaf + 0.3, lora)
  prompts = users(24, ((9, (3, 9)), (14, (12, 1))))
  nothing = jax.tree.map(np.zeros_like, lora)
  without = score_labels_shared(model, prompts, LABELS, lora=nothing)
  changed = score_labels_shared(model, prompts, LABELS, lora=lora)
  assert np.abs(changed[0] - without[0]).max() > 0.01
  assert_close(changed, plain(model, prompts, lora=lora))


def test_hidden_states_of_one_position_per_row():
  model = load("gemma3_text")
  tokens = np.random.default_rng(0).integers(1, 96, (3, 36))
  lengths = np.array([36, 20, 7], np.int32)
  run = jax.jit(functools.partial(hidden_states, config=model.config))
  whole = np.asarray(run(model.params, tokens, lengths=lengths))
  places = np.array([35, 3, 6], np.int32)
  one = np.asarray(run(model.params, tokens, lengths=lengths, only=places))
  assert one.shape == (3, 1, model.config.width)
  np.testing.assert_allclose(one[:, 0], whole[np.arange(3), places], rtol=0, atol=1e-5)
  ids = np.array([5, 90])
  some = logits_of(model.params, one, config=model.config, tokens=ids)
  every = logits_of(model.params, one, config=model.config)
  np.testing.assert_allclose(some, every[..., ids], rtol=0, atol=1e-5)


def test_texts_and_the_tokens_they_take():
  tokenizer = byte_level()
  fields = {"vocabulary": len(tokenizer), "bos": 0, "eos": (1,), "context": 64}
  model = dataclasses.replace(tiny_model(layers=ONE_LAYER, **fields), tokenizer=tokenizer)
  prompts = [["the drama\nA", "the drama\nB", "the drama\ncomedy"], ["a film\nof", "a film\nin"]]
  speed = Speed()
  found = score_labels_shared(model, prompts, ["a", "f"], leading_space=True, speed=speed)
  expected = [score_labels(model, several, ["a", "f"], leading_space=True) for several in prompts]
  assert_close(found, expected)
  ids = [[tokenizer.encode(text) for text in several] for several in prompts]
  # The shared prefix is counted once, the rest of each prompt separately.
  shared = [len(os.path.commonprefix(several)) for several in ids]
  assert min(shared) > 3
  assert speed.prompt_tokens == sum(
    n + sum(len(one) - n for one in several) for several, n in zip(ids, shared, strict=True)
  )
  assert speed.prefill_seconds > 0


def test_bad_prompts():
  model = tiny()
  with pytest.raises(InputError, match="a prompt has 33 tokens, but the model's context is 32"):
    score_labels_shared(model, [[[1] * 32, [1] * 33]], LABELS)
  with pytest.raises(InputError, match="a token id is not in 0"):
    score_labels_shared(model, [[[1, 24]]], LABELS)
  with pytest.raises(InputError, match="labels: a token id is not in 0"):
    score_labels_shared(model, [[[1]]], np.array([24]))
  with pytest.raises(InputError, match="batch_size=0: must be at least 1"):
    score_labels_shared(model, [[[1]]], LABELS, batch_size=0)
  with pytest.raises(InputError, match="a list of prompts for each user"):
    score_labels_shared(model, ["text"], LABELS)
  assert score_labels_shared(model, [], LABELS) == []


@pytest.mark.parametrize("limit", [2**28, 1])
def test_continuations_equal_those_of_single_prompts(monkeypatch, limit):
  # Prompts of different lengths, one of them a single token, and continuations split into parts.
  monkeypatch.setattr(shared_prefix, "LOGIT_BYTES", limit)
  random = np.random.default_rng(0)
  prompts = [random.integers(4, 24, count).tolist() for count in (1, 9, 20)]
  endings = [
    [random.integers(4, 24, count).tolist() for count in counts]
    for counts in ((3, 1), (2, 5, 4), (1,))
  ]
  speed = Speed()
  found = shared_prefix.score_continuations_shared(
    tiny(), prompts, endings, batch_size=2, speed=speed
  )
  for one, expected in zip(found, score_continuations(tiny(), prompts, endings), strict=True):
    np.testing.assert_allclose(one, expected[:, 0], rtol=0, atol=1e-4)
  several = sum(len(ending) + 1 for some in endings for ending in some)
  assert speed.prompt_tokens == sum(len(prompt) - 1 for prompt in prompts) + several


def test_continuations_that_do_not_fit_are_refused():
  score = functools.partial(shared_prefix.score_continuations_shared, tiny())
  with pytest.raises(InputError, match="a prompt or a continuation is empty"):
    score([[5]], [[[]]])
  with pytest.raises(InputError, match="the model's context is"):
    score([[5]], [[[5] * tiny().config.context]])
