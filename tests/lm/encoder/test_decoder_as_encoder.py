"""Decoders as sentence encoders, from folders and GGUF files: mean or last token, instruction."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.paths import DECODER_GOLDENS
from safetensors.numpy import load_file, save_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm import encode, load_encoder
from gatrec_jax.lm.decoder.model import hidden_states
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.folders.source import content_hash

QWEN2 = DECODER_GOLDENS / "qwen2"
TEXTS = ["A quiet film about the sea.", "space", "Two brothers, one car and no map at all."]


@pytest.fixture
def embedding_folder(tmp_path):
  """A folder like Qwen3-Embedding's: bare names, no head, modules, EOS added by the tokenizer."""
  folder = tmp_path / "embedding"
  shutil.copytree(QWEN2, folder)
  tensors = load_file(folder / "model.safetensors")
  bare = {name.removeprefix("model."): value for name, value in tensors.items()}
  save_file(bare, folder / "model.safetensors")
  kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
  modules = [
    {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for n, (path, kind) in enumerate(kinds.items())
  ]
  (folder / "modules.json").write_text(json.dumps(modules))
  (folder / "1_Pooling").mkdir()
  (folder / "1_Pooling" / "config.json").write_text(
    json.dumps(
      {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "include_prompt": True}
    )
  )
  (folder / "config_sentence_transformers.json").write_text(
    json.dumps(
      {"prompts": {"query": "Instruct: find\nQuery:", "document": ""}, "default_prompt_name": None}
    )
  )
  tokenizer = json.loads((folder / "tokenizer.json").read_text())
  end = max(tokenizer["added_tokens"], key=lambda token: token["id"])
  tokenizer["post_processor"] = {
    "type": "TemplateProcessing",
    "single": [
      {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": end["content"], "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
      end["content"]: {"id": end["content"], "ids": [end["id"]], "tokens": [end["content"]]}
    },
  }
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
  return folder, end["id"]


def last_hidden(folder, ids):
  """The L2-normalized last hidden state of one row, from the decoder alone."""
  model = load_decoder(folder)
  tokens = jnp.array([ids + [0] * (64 - len(ids))], jnp.int32)
  run = jax.jit(hidden_states, static_argnames=("config",))
  lengths = jnp.array([len(ids)])
  hidden = run(model.params, tokens, config=model.config, lengths=lengths)
  vector = np.asarray(hidden[0, len(ids) - 1])
  return vector / np.linalg.norm(vector)


def test_the_vector_is_that_of_the_eos_token(embedding_folder):
  folder, end = embedding_folder
  model = load_encoder(folder)
  vectors, stats = encode(model, TEXTS)
  assert vectors.shape == (3, model.config.width) and stats.truncated == 0
  for text, vector in zip(TEXTS, vectors, strict=True):
    ids = load_decoder(QWEN2).tokenizer.encode(text) + [end]
    np.testing.assert_allclose(vector, last_hidden(QWEN2, ids), atol=1e-5)


def test_an_instruction_is_put_before_every_text(embedding_folder):
  folder, _ = embedding_folder
  plain = encode(load_encoder(folder), ["Instruct: find\nQuery:" + text for text in TEXTS])[0]
  prompted = encode(load_encoder(folder, prompt="Instruct: find\nQuery:"), TEXTS)[0]
  np.testing.assert_allclose(prompted, plain, atol=1e-6)
  assert np.abs(prompted - encode(load_encoder(folder), TEXTS)[0]).max() > 1e-3


def token_vectors(folder, ids):
  """[T, D] hidden states of a row without padding, from the decoder alone."""
  model = load_decoder(folder)
  run = jax.jit(hidden_states, static_argnames=("config",))
  tokens, lengths = jnp.array([ids], jnp.int32), jnp.array([len(ids)])
  return np.asarray(run(model.params, tokens, config=model.config, lengths=lengths)[0])


def unit(vector):
  return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("is_gguf", [False, True])
def test_a_plain_decoder_has_the_mean_of_its_tokens_or_the_last(is_gguf, tmp_path):
  place = QWEN2
  if is_gguf:
    place = write_gguf(QWEN2, tmp_path / "own.gguf", more=bpe_fields(QWEN2, cut="qwen2"))
  models = {name: load_encoder(place, pooling=name) for name in ("auto", "mean", "last")}
  vectors = {name: encode(model, TEXTS)[0] for name, model in models.items()}
  tokenizer = load_decoder(place).tokenizer
  for row, text in enumerate(TEXTS):  # of different lengths, so that batches have padding
    states = token_vectors(place, tokenizer.encode(text))
    np.testing.assert_allclose(vectors["mean"][row], unit(states.mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(vectors["last"][row], unit(states[-1]), atol=1e-5)
  np.testing.assert_array_equal(vectors["auto"], vectors["mean"])
  assert models["auto"].name == ("own" if is_gguf else "qwen2")


def test_padding_and_the_other_texts_have_no_influence():
  model = load_encoder(QWEN2, pooling="mean")
  together, _ = encode(model, [*TEXTS, "word " * 40])
  for text, vector in zip(TEXTS, together, strict=False):
    np.testing.assert_array_equal(encode(model, [text])[0][0], vector)


def test_texts_end_at_the_context():
  model = load_encoder(QWEN2, pooling="last")
  short = dataclasses.replace(model, max_tokens=5)
  with pytest.warns(UserWarning, match="qwen2 has 5 positions"):
    vectors, stats = encode(short, [TEXTS[2], "space"], max_tokens=64)
  assert stats.truncated == 1
  ids = load_decoder(QWEN2).tokenizer.encode(TEXTS[2])[:5]
  np.testing.assert_allclose(vectors[0], unit(token_vectors(QWEN2, ids)[-1]), atol=1e-5)


def test_modules_are_asked_unless_the_setting_says_otherwise(embedding_folder):
  folder, _ = embedding_folder
  poolings = {name: load_encoder(folder, pooling=name).head.modes for name in ("auto", "mean")}
  assert poolings == {"auto": ("lasttoken",), "mean": ("mean",)}
  with pytest.raises(InputError, match="encoder_pooling=max: must be one of auto, mean, last"):
    load_encoder(folder, pooling="max")


def test_a_file_without_a_tokenizer_is_refused(tmp_path):
  bare = write_gguf(QWEN2, tmp_path / "bare.gguf")
  with pytest.raises(InputError, match="bare.gguf: has no tokenizer"):
    load_encoder(bare)
  with pytest.raises(InputError, match="no such folder or GGUF file"):
    load_encoder(tmp_path / "nothing")


def test_the_hash_depends_on_the_weights(embedding_folder):
  folder, _ = embedding_folder
  before = content_hash(folder)
  assert before == content_hash(folder)
  tensors = load_file(folder / "model.safetensors")
  tensors["norm.weight"] = tensors["norm.weight"] * 2
  save_file(tensors, folder / "model.safetensors")
  assert content_hash(folder) != before
