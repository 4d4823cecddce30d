"""Decoders as sentence encoders: last token, instruction, L2 norm (Qwen3-Embedding)."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS
from safetensors.numpy import load_file, save_file

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


def test_a_plain_decoder_folder_uses_the_last_token():
  vectors, _ = encode(load_encoder(QWEN2), TEXTS)
  for text, vector in zip(TEXTS, vectors, strict=True):
    ids = load_decoder(QWEN2).tokenizer.encode(text)
    np.testing.assert_allclose(vector, last_hidden(QWEN2, ids), atol=1e-5)


def test_the_hash_depends_on_the_weights(embedding_folder):
  folder, _ = embedding_folder
  before = content_hash(folder)
  assert before == content_hash(folder)
  tensors = load_file(folder / "model.safetensors")
  tensors["norm.weight"] = tensors["norm.weight"] * 2
  save_file(tensors, folder / "model.safetensors")
  assert content_hash(folder) != before
