"""Scores of labels and continuations against full forward passes."""

import dataclasses
import functools

import numpy as np
import pytest
from helpers.constraints import byte_level, sentence_piece
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference import scoring
from gatrec_jax.lm.inference.scoring import (
  label_tokens,
  score_continuations,
  score_labels,
  single_token_labels,
)


@functools.cache
def load(name):
  return load_decoder(GOLDENS / name)


ONE_LAYER = tiny_config().layers[:1]


@functools.cache
def tiny():
  """A random model of 24 tokens without a tokenizer."""
  return tiny_model(layers=ONE_LAYER)


@functools.cache
def speaking(kind):
  """A random model with a tokenizer."""
  tokenizer = {"bytes": byte_level, "pieces": sentence_piece}[kind]()
  fields = {"vocabulary": len(tokenizer), "bos": 0, "eos": (1,), "context": 64}
  return dataclasses.replace(tiny_model(layers=ONE_LAYER, **fields), tokenizer=tokenizer)


def last_logits(model, ids):
  """[V] float32 logits after the ids."""
  return full_logits(model, ids)[len(ids) - 1]


def full_logits(model, ids):
  row = np.zeros((3, 36), np.int32)  # the same shape for all rows
  row[0, : len(ids)] = ids
  lengths = np.array([len(ids), 1, 1], np.int32)
  return np.asarray(forward(model.params, row, config=model.config, lengths=lengths))[0]


def naive(model, prefix, continuation):
  """The log-likelihood of a continuation, from one full pass over prompt and continuation."""
  logits = full_logits(model, [*prefix, *continuation]).astype(np.float64)
  logits -= np.log(np.exp(logits - logits.max()).sum(axis=-1, keepdims=True)) + logits.max()
  places = np.arange(len(prefix) - 1, len(prefix) + len(continuation) - 1)
  return logits[places, continuation].sum()


def rows(lengths, vocabulary, seed=0):
  random = np.random.default_rng(seed)
  return [random.integers(1, vocabulary, n).tolist() for n in lengths]


def test_labels_have_the_logits_of_a_full_pass():
  model = load("gemma2")
  prompts, labels = rows((3, 16, 9, 1, 12), 96), np.array([7, 3, 90])
  scores = score_labels(model, prompts, labels)
  assert scores.dtype == np.float32
  expected = [last_logits(model, prompt)[labels] for prompt in prompts]
  np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
  # The order of the prompts and the batch they are in make no difference.
  again = score_labels(model, prompts[::-1], labels[::-1], batch_size=8)[::-1, ::-1]
  np.testing.assert_array_equal(again, scores)


def test_labels_are_texts_too():
  model = speaking("bytes")
  prompts = ["the drama", "", "comedy or"]
  ids = label_tokens(model, ["a", "f"], leading_space=True)
  assert model.tokenizer.convert_ids_to_tokens(ids.tolist()) == ["Ġa", "Ġf"]
  scores = score_labels(model, prompts, ["a", "f"], leading_space=True)
  encoded = [model.tokenizer.encode(text) or [model.bos] for text in prompts]
  expected = [last_logits(model, prompt)[ids] for prompt in encoded]
  np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_labels_must_be_one_token_each():
  model = speaking("bytes")
  assert len(set(label_tokens(model, ["A", "B", "7"]).tolist())) == 3
  with pytest.raises(InputError) as error:
    label_tokens(model, ["a", "b", "a", "zzz", "f"], leading_space=True)
  text = str(error.value)
  assert text.startswith(
    "labels must be a single token each with a leading space: 'b' is 2 tokens; "
  )
  assert "'a' is the same token as 'a'; 'zzz' is " in text and "'f'" not in text
  with pytest.raises(InputError, match="a single token each without a leading space: '東京' is"):
    label_tokens(model, ["東京"])
  with pytest.raises(InputError, match="'' is 0 tokens"):
    label_tokens(model, ["a", ""])
  with pytest.raises(InputError, match="no labels given"):
    label_tokens(model, [])
  with pytest.raises(InputError, match="texts need a tokenizer"):
    label_tokens(tiny(), ["a"])


def test_the_form_with_more_single_tokens_is_taken():
  model = speaking("bytes")
  assert single_token_labels(model, ["a", "b", "zzz", "a", "of"]) == (["a", "b", "of"], False)
  assert single_token_labels(model, ["the", "and", "a", "f", "b"])[1] is True
  assert single_token_labels(model, ["the", "and", "a", "f", "b"])[0] == ["the", "and", "a", "f"]
  assert single_token_labels(model, ["zzz"]) == ([], False)
  # In SentencePiece vocabularies, too, a letter without a leading space is a token.
  labels, space = single_token_labels(speaking("pieces"), ["A", "H", "c"])
  assert labels == ["A", "H", "c"] and not space


def test_label_prompts_fit_into_the_context():
  model = tiny()
  labels, prompt = np.array([3, 4]), [1, *rows((39,), 24)[0]]
  with pytest.raises(InputError, match="a prompt has 40 tokens, but the model's context is 32"):
    score_labels(model, [prompt], labels)
  cut = score_labels(model, [prompt], labels, truncate_left=True)
  np.testing.assert_array_equal(cut, score_labels(model, [[1, *prompt[-31:]]], labels))
  for bad in ([24], [-1]):
    with pytest.raises(InputError, match="a token id is not in 0 … 23"):
      score_labels(model, [[1]], np.array(bad))
    with pytest.raises(InputError, match="a token id is not in 0 … 23"):
      score_labels(model, [bad], labels)
    with pytest.raises(InputError, match="prompt 1: a token id is not in 0 … 23"):
      score_continuations(model, [[1]], [[[3], bad]])


# Windows with soft-caps; windows in some layers and two ropes; layers without rope; yarn.
@pytest.mark.parametrize("name", ("gemma2", "gemma3_text", "smollm3", "qwen3_yarn"))
def test_continuations_have_the_likelihood_of_full_passes(name):
  model = load(name)
  # Windows of 8 end within the prompt, at its end, and within a continuation.
  prompts = rows((14, 6), model.config.vocabulary)
  continuations = [rows((1, 12, 5), 96, seed=1), rows((7, 3, 9, 16), 96, seed=2)]
  scores = score_continuations(model, prompts, continuations)
  for prompt, several, found in zip(prompts, continuations, scores, strict=True):
    assert found.dtype == np.float32 and found[:, 1].tolist() == list(map(len, several))
    expected = [naive(model, prompt, one) for one in several]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-4)
    assert np.std(expected) > 1


def test_many_continuations_go_in_parts(monkeypatch):
  model = tiny()
  (prompt,), several = rows((5,), 24), rows((3, 9, 1, 16, 4, 2, 8), 24, seed=3)
  (together,) = score_continuations(model, [prompt], [several])
  two_rows = 40 * 4 * model.config.vocabulary  # of 16 tokens each
  monkeypatch.setattr(scoring, "LOGIT_BYTES", two_rows)
  (apart,) = score_continuations(model, [prompt], [several])
  np.testing.assert_allclose(apart, together, rtol=0, atol=1e-5)
  monkeypatch.setattr(scoring, "LOGIT_BYTES", 1)
  (single,) = score_continuations(model, [prompt], [several[3:4]])
  np.testing.assert_allclose(single[0], together[3], rtol=0, atol=1e-5)


def test_neighbors_and_padding_do_not_matter():
  model = tiny()
  (prompt,), several = rows((5,), 24), rows((3, 9, 1, 16), 24, seed=3)
  (first,) = score_continuations(model, [prompt], [several])
  (second,) = score_continuations(model, [prompt], [several[::-1]])
  np.testing.assert_allclose(first, second[::-1], rtol=0, atol=1e-6)
  (less,) = score_continuations(model, [prompt], [several[:3]])
  np.testing.assert_allclose(first[:3], less, rtol=0, atol=1e-6)
  padded = dataclasses.replace(model, config=dataclasses.replace(model.config, pad=17))
  (other,) = score_continuations(padded, [prompt], [several])
  np.testing.assert_array_equal(first, other)


def test_likelihoods_of_all_tokens_sum_to_one():
  model = tiny()
  (scores,) = score_continuations(model, [[1, 5, 9]], [[[token] for token in range(24)]])
  np.testing.assert_allclose(np.exp(scores[:, 0]).sum(), 1.0, atol=1e-5)


def test_texts_continue_their_prompt():
  model = speaking("pieces")
  prompt, texts = "a drama", [" comedy", "tic", "東"]
  (scores,) = score_continuations(model, [prompt], [texts])
  prefix = model.tokenizer.encode(prompt)
  ids = [[model.spelling.ids[b" comedy"]], None, [3 + byte for byte in "東".encode()]]
  assert scores[0, 1] == 1 and scores[2, 1] == 3
  for place in (0, 2):
    np.testing.assert_allclose(scores[place, 0], naive(model, prefix, ids[place]), atol=1e-4)


def test_bad_continuations():
  model = tiny()
  with pytest.raises(InputError, match="got 1 lists of continuations for 2 prompts"):
    score_continuations(model, [[1], [2]], [[[3]]])
  with pytest.raises(InputError, match="prompt 2: a continuation is empty"):
    score_continuations(model, [[1], [2]], [[[3]], [[4], []]])
  with pytest.raises(InputError, match="prompt 1: has 33 tokens with its longest continuation"):
    score_continuations(model, [[1] * 30], [[[3], [4] * 3]])
  (full,) = score_continuations(model, [[1] * 30], [[[3], [4] * 2]])
  assert np.isfinite(full).all()
  assert score_continuations(model, [[1]], [[]])[0].shape == (0, 2)
  assert score_continuations(model, [], []) == []
