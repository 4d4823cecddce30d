"""Decoders against transformers: logits of every family, packing, padding, chats, sampling."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.paths import STORIES

from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling, cut, make_sampler, penalize
from gatrec_jax.lm.tokens.chat import encode_prompt, render_chat

AS_USERS_DO = True
FOLDERS = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())
# One with two kinds of rope and windows, one with layers without rope.
VARIED = ("gemma3_text", "smollm3")


@functools.cache
def load(name, dtype="float32"):
  return load_decoder(GOLDENS / name, dtype=dtype)


def read_arrays(path):
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def real_positions(logits, lengths):
  return np.concatenate([np.asarray(logits)[row, :n] for row, n in enumerate(lengths)])


def run(model, tokens, **options):
  return np.asarray(forward(model.params, tokens, config=model.config, **options))


def test_every_family_has_a_folder():
  families = {load(name).config.family for name in FOLDERS}
  assert families == {"llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3_text"}


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_equal_transformers(name):
  golden = read_arrays(GOLDENS / name / "golden.npz")
  lengths = golden["lengths"]
  logits = run(load(name), golden["tokens"], lengths=lengths)
  expected = real_positions(golden["logits"], lengths)
  assert logits.dtype == np.float32 and logits.shape == golden["logits"].shape
  np.testing.assert_allclose(real_positions(logits, lengths), expected, rtol=0, atol=1e-4)
  assert expected.std() > 1  # otherwise the comparison above means little


@pytest.mark.parametrize("name", VARIED)
def test_a_row_alone_equals_its_row_in_a_batch(name):
  golden = read_arrays(GOLDENS / name / "golden.npz")
  batch = run(load(name), golden["tokens"], lengths=golden["lengths"])
  row, length = 1, golden["lengths"][1]
  alone = run(load(name), golden["tokens"][row : row + 1, :length])
  np.testing.assert_allclose(batch[row, :length], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VARIED)
def test_other_rows_of_a_batch_do_not_change_a_bit(name):
  golden = read_arrays(GOLDENS / name / "golden.npz")
  tokens, lengths = golden["tokens"], golden["lengths"]
  batch = run(load(name), tokens, lengths=lengths)
  row = 1
  own = np.arange(len(tokens)) == row
  for tokens_beside, lengths_beside in ((tokens[::-1], lengths[::-1]), (tokens * 0 + 5, 1)):
    other = run(
      load(name),
      np.where(own[:, None], tokens, tokens_beside),
      lengths=np.where(own, lengths, lengths_beside),
    )
    np.testing.assert_array_equal(batch[row, : lengths[row]], other[row, : lengths[row]])


@pytest.mark.parametrize("name", VARIED)
def test_padding_tokens_have_no_influence(name):
  golden = read_arrays(GOLDENS / name / "golden.npz")
  tokens, lengths = golden["tokens"], golden["lengths"]
  padding = np.arange(tokens.shape[1]) >= lengths[:, None]
  first = run(load(name), tokens, lengths=lengths)
  second = run(load(name), np.where(padding, 17, tokens), lengths=lengths)
  assert (tokens[padding] != 17).all()
  np.testing.assert_array_equal(real_positions(first, lengths), real_positions(second, lengths))


@pytest.mark.parametrize("name", VARIED)
def test_rows_packed_into_one_equal_rows_alone(name):
  golden = read_arrays(GOLDENS / name / "golden.npz")
  lengths = golden["lengths"]
  tokens = real_positions(golden["tokens"], lengths)
  segments = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
  positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
  packed = [np.pad(array, (0, 3))[None] for array in (tokens, positions, segments)]
  logits = run(load(name), packed[0], positions=packed[1], segments=packed[2])
  expected = real_positions(golden["logits"], lengths)
  np.testing.assert_allclose(logits[0, :-3], expected, rtol=0, atol=1e-4)


def test_shards_in_bfloat16_are_read_exactly():
  model = load("llama_sharded_bf16")
  assert len(list(model.folder.glob("model-*-of-00003.safetensors"))) == 3
  for leaf in jax.tree.leaves(model.params):
    assert leaf.dtype == jnp.float32
    np.testing.assert_array_equal(leaf, leaf.astype(jnp.bfloat16).astype(jnp.float32))


def test_bfloat16_arithmetic_is_close():
  golden = read_arrays(GOLDENS / "gemma2" / "golden.npz")
  lengths = golden["lengths"]
  logits = run(load("gemma2", "bfloat16"), golden["tokens"], lengths=lengths)
  expected = real_positions(golden["logits"], lengths)
  error = real_positions(logits, lengths) - expected
  # bfloat16 has 8 bits of precision; the error of a few layers is a few percent.
  assert 1e-4 < error.std() < 0.05 * expected.std()


def test_stories_logits_equal_transformers():
  if not STORIES.is_dir():
    pytest.skip(f"{STORIES} is not here")
  golden = read_arrays(GOLDENS / "stories260K.npz")
  logits = run(load_decoder(STORIES), golden["tokens"])
  np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-4)
  assert golden["logits"].std() > 1


@pytest.mark.parametrize("name", ("greedy", "penalised"))
def test_continuations_equal_those_of_transformers(name):
  golden = read_arrays(GOLDENS / "qwen2" / "generate.npz")
  penalty = float(golden["penalty"]) if name == "penalised" else 1.0
  sampling = Sampling(repetition_penalty=penalty)
  (answer,) = generate(load("qwen2"), [golden["prompt"].tolist()], max_tokens=12, sampling=sampling)
  assert list(answer.tokens) == golden[name].tolist()
  assert answer.finish == "length"


@jax.jit
def distribution(logits, seen, sampler):
  """The distribution that `sampling.draw` draws from."""
  logits = penalize(logits, seen, sampler.repetition_penalty) / sampler.temperature
  return jax.nn.softmax(cut(logits, sampler) if sampler.cuts else logits, axis=-1)


def test_distributions_equal_those_of_transformers():
  golden = read_arrays(GOLDENS / "sampling.npz")
  settings = json.loads(str(golden["settings"]))
  seen = np.zeros(golden["logits"].shape, bool)
  np.put_along_axis(seen, golden["ids"], True, axis=1)
  assert len(settings) == len(golden["probabilities"]) == 13
  for setting, expected in zip(settings, golden["probabilities"], strict=True):
    sampler = make_sampler(Sampling(**{"temperature": 1.0} | setting))
    ours = np.asarray(distribution(golden["logits"], seen, sampler))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6, err_msg=str(setting))
    assert (ours[expected == 0] == 0).all(), setting


@pytest.mark.parametrize("name", ("qwen2", "llama_default"))
def test_chats_are_rendered_as_by_transformers(name):
  tokenizer = load(name).tokenizer
  cases = json.loads((GOLDENS / name / "chat.json").read_text(encoding="utf-8"))
  prompts = [case for case in cases if case["add_generation_prompt"]]
  assert len(prompts) >= 2
  for case in prompts:
    text = render_chat(tokenizer, case["messages"])
    assert text == case["text"]
    ids = encode_prompt(tokenizer, text, bos=None, special_tokens=False)
    assert ids == case["ids"]
