"""GGUF files: what they hold, models read from them, and files that are damaged."""

import dataclasses
import json
import shutil
import struct

import gguf
import jax
import numpy as np
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.paths import DECODER_GOLDENS as GOLDENS

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.lm.folders.gguf import Stored, can_dequantize, dequantized, is_gguf, read_gguf
from gatrec_jax.lm.folders.load import load_decoder, read_config
from gatrec_jax.lm.folders.source import content_hash

# Each family, each kind of rope that files can state, biases, tied and own heads.
FOLDERS = (
  "gemma2",
  "gemma3_text",
  "llama3_rope",
  "llama_default",
  "llama_linear",
  "qwen2",
  "qwen2_yarn",
  "qwen3",
  "smollm3",
)
TEXTS = ("A film.", "<|im_start|>user\nThe  film<|im_end|>", "it's 1995 \n\n x", "", " the the")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
  """A file with everything: a tokenizer, a chat template, matrices in 8 bits."""
  path = tmp_path_factory.mktemp("gguf") / "qwen.gguf"
  fields = bpe_fields(GOLDENS / "qwen2", cut="qwen2")
  fields |= {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 0}
  fields["tokenizer.chat_template"] = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
  return write_gguf(GOLDENS / "qwen2", path, kind="Q8_0", more=fields)


def logits_of(model, config=None):
  tokens = np.arange(24, dtype=np.int32).reshape(2, 12) % model.config.vocabulary
  return np.asarray(forward(model.params, tokens, config=config or model.config))


def error_of(call, *arguments):
  """The message of the InputError; it is one line."""
  with pytest.raises(InputError) as error:
    call(*arguments)
  message = str(error.value)
  assert message and "\n" not in message
  return message


@pytest.mark.parametrize("name", FOLDERS)
def test_a_model_equals_that_of_its_folder(tmp_path, name):
  folder = load_decoder(GOLDENS / name)
  model = load_decoder(write_gguf(GOLDENS / name, tmp_path / "model.gguf"))
  assert jax.tree.structure(model.params) == jax.tree.structure(folder.params)
  pairs = zip(jax.tree.leaves(model.params), jax.tree.leaves(folder.params), strict=True)
  for ours, theirs in pairs:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7)  # Gemma's norms are stored + 1
  config = folder.config
  # Files do not state what all published models of a family have in common.
  if name.startswith("gemma"):
    config = dataclasses.replace(config, query_scale=config.head_size**-0.5)
  if name == "smollm3":
    config = dataclasses.replace(config, layers=model.config.layers)
    assert [layer.rope is None for layer in config.layers] == [False, False, False, True]
  np.testing.assert_allclose(logits_of(model), logits_of(folder, config), rtol=0, atol=1e-4)
  assert model.name == "model" and model.config == read_config(tmp_path / "model.gguf")


@pytest.mark.parametrize(
  "dtype, said",
  [
    (np.float32, "rope_freqs.weight is not what Llama 3 has"),
    (np.int32, "rope_freqs.weight has type I32, which cannot be dequantized"),
  ],
)
def test_frequencies_that_are_not_llama_3s_are_refused(tmp_path, monkeypatch, dtype, said):
  divisors = np.array([1, 3, 2, 8], dtype)
  monkeypatch.setattr("helpers.gguf_files._llama3_divisors", lambda config: divisors)
  path = write_gguf(GOLDENS / "llama3_rope", tmp_path / "model.gguf")
  assert error_of(load_decoder, path) == f"{path}: {said}"


def test_a_tokenizer_has_the_ids_of_its_folder(qwen):
  folder, model = load_decoder(GOLDENS / "qwen2"), load_decoder(qwen)
  for text in TEXTS:
    assert model.tokenizer(text)["input_ids"] == folder.tokenizer(text)["input_ids"], text
    ids = model.tokenizer(text)["input_ids"]
    assert model.tokenizer.decode(ids) == folder.tokenizer.decode(ids)
  assert model.eos == (2, 0) and model.bos == 0  # <|im_end|>, <|endoftext|>
  assert model.encode([{"role": "user", "content": "A film."}]) == model.encode.text("A film.")


def test_matrices_are_dequantized_as_the_package_does(qwen):
  model, folder = load_decoder(qwen), load_decoder(GOLDENS / "qwen2")
  kernel, own = (one.params["layer_0"]["mlp"]["gate"]["kernel"] for one in (model, folder))
  kind = gguf.GGMLQuantizationType.Q8_0
  rounded = gguf.quants.dequantize(gguf.quants.quantize(np.asarray(own), kind), kind)
  np.testing.assert_array_equal(kernel, rounded)
  assert not np.array_equal(kernel, own)


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType))
def test_every_type_of_the_package(kind):
  block, size = gguf.GGML_QUANT_SIZES[kind]
  data = np.random.default_rng(0).integers(0, 256, (3, 2 * size)).astype(np.uint8)
  data.flags.writeable = False  # as a file is
  stored = Stored((3, 2 * block), kind.name, data.ravel())
  if not can_dequantize(kind.name):
    with pytest.raises(InputError, match=f"type {kind.name} of a tensor cannot be dequantized"):
      dequantized(stored)
    return
  values = dequantized(stored)
  np.testing.assert_array_equal(values, gguf.quants.dequantize(data, kind))
  assert values.dtype == np.float32 and not np.shares_memory(values, data)


def test_a_type_without_dequantization_is_named(tmp_path):
  path = write_gguf(GOLDENS / "llama_default", tmp_path / "model.gguf")
  data = bytearray(path.read_bytes())
  place = data.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
  data[place : place + 4] = struct.pack("<I", gguf.GGMLQuantizationType.I32)
  path.write_bytes(data)
  assert "model.norm.weight is I32, expected one of" in error_of(load_decoder, path)
  data[place : place + 4] = struct.pack("<I", 999)
  path.write_bytes(data)
  assert "output_norm.weight has type 999, which the gguf package" in error_of(load_decoder, path)


def test_everything_that_is_missing_stands_in_one_error(tmp_path):
  gone = ("llama.block_count", "llama.context_length", "token_embd.weight")
  path = write_gguf(GOLDENS / "llama_default", tmp_path / "model.gguf", without=gone)
  message = error_of(load_decoder, path)
  assert all(name in message for name in gone)
  path = write_gguf(
    GOLDENS / "llama_default", tmp_path / "other.gguf", without=("blk.1.ffn_up.weight",)
  )
  assert "missing model.layers.1.mlp.up_proj.weight" in error_of(load_decoder, path)


@pytest.mark.parametrize(
  "more, said",
  [
    ({"general.architecture": "mamba"}, "general.architecture 'mamba' is not one of llama, "),
    ({"tokenizer.ggml.pre": "unheard-of"}, "tokenizer.ggml.pre 'unheard-of' is not one of gpt-2"),
    ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model 'rwkv' is not gpt2 or llama"),
    ({"tokenizer.ggml.eos_token_id": 9999}, "tokenizer.ggml.eos_token_id is 9999; there are 128"),
    ({"tokenizer.ggml.merges": ["zz zzz"]}, "tokenizer.ggml.merges do not fit the tokens"),
    ({"qwen2.expert_count": 8}, "mixtures of experts cannot be read"),
    ({"qwen2.rope.scaling.type": "longrope"}, "rope.scaling.type 'longrope' is not linear or yarn"),
    ({"qwen2.rope.dimension_count": 4}, "rope.dimension_count is not the size of a head"),
    ({"general.architecture": ["qwen2"]}, "general.architecture ['qwen2'] is not one of llama, "),
    ({"tokenizer.ggml.pre": ["qwen2"]}, "tokenizer.ggml.pre ['qwen2'] is not one of gpt-2"),
    ({"tokenizer.ggml.merges": [1, 2]}, "tokenizer.ggml.merges is no list of texts"),
    ({"tokenizer.ggml.token_type": 3}, "tokenizer.ggml.token_type is no list of numbers"),
    ({"tokenizer.ggml.eos_token_id": [2]}, "tokenizer.ggml.eos_token_id is [2]; there are 128"),
    ({"qwen2.attention.head_count": [4, 2]}, "attention.head_count is [4, 2]; it must be a whole"),
  ],
)
def test_what_cannot_be_read_is_named(tmp_path, more, said):
  more = bpe_fields(GOLDENS / "qwen2", cut="qwen2") | more
  path = write_gguf(GOLDENS / "qwen2", tmp_path / "model.gguf", more=more)
  assert f"{path}: " in (message := error_of(load_decoder, path)) and said in message


def test_damaged_files_end_in_a_line(qwen, tmp_path):
  whole = qwen.read_bytes()
  path = tmp_path / "part.gguf"
  for length in (0, 3, 4, 11, 23, 24, 40, 300, 2_000, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:length])
    assert error_of(read_gguf, path).startswith(f"{path}: ")
  draws = np.random.default_rng(0)
  for _ in range(300):
    data = bytearray(whole)
    for place in draws.integers(0, 6_000, 3):
      data[place] = draws.integers(0, 256)
    path.write_bytes(data)
    try:
      load_decoder(path)
    except InputError as error:
      assert str(path) in str(error) and "\n" not in str(error)
  path.write_bytes(whole[:4] + whole[4:8][::-1] + whole[8:])
  assert "big-endian" in error_of(read_gguf, path)
  path.write_bytes(whole[:4] + struct.pack("<I", 9) + whole[8:])
  assert "GGUF version 9" in error_of(read_gguf, path)


def test_a_split_file_is_read_by_any_of_its_parts(tmp_path):
  whole = write_gguf(GOLDENS / "qwen3", tmp_path / "whole.gguf")
  names = list(read_gguf(whole).tensors)
  parts = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
  for number, path in enumerate(parts):
    more = {"split.no": number, "split.count": 2, "split.tensors.count": len(names)}
    write_gguf(GOLDENS / "qwen3", path, without=names[number::2], more=more)
  expected = logits_of(load_decoder(whole))
  for path in parts:
    np.testing.assert_array_equal(logits_of(load_decoder(path)), expected)
  assert content_hash(parts[0]) == content_hash(parts[1]) != content_hash(whole)
  alone = tmp_path / "alone.gguf"
  shutil.copy(parts[0], alone)
  assert "tensors, its parts have" in error_of(load_decoder, alone)
  parts[1].unlink()
  assert "m-00002-of-00002.gguf is missing" in error_of(load_decoder, parts[0])


def test_a_model_is_exported_as_a_folder(qwen, tmp_path):
  model = load_decoder(qwen)
  export_folder(model, tmp_path / "folder")
  again = load_decoder(tmp_path / "folder")
  np.testing.assert_array_equal(logits_of(again), logits_of(model))
  for text in TEXTS:
    assert again.tokenizer(text)["input_ids"] == model.tokenizer(text)["input_ids"]
  assert again.tokenizer.chat_template == model.tokenizer.chat_template
  assert json.loads((tmp_path / "folder/config.json").read_text())["model_type"] == "qwen2"


def test_files_are_known_by_their_ending_or_their_first_bytes(qwen, tmp_path):
  assert is_gguf(qwen) and is_gguf(tmp_path / "none.gguf") and not is_gguf(tmp_path)
  shutil.copy(qwen, blob := tmp_path / "sha256-12")
  assert is_gguf(blob) and load_decoder(blob).config.family == "qwen2"
  assert not is_gguf(tmp_path / "none") and not is_gguf(GOLDENS / "qwen2" / "config.json")
  assert "no such folder or GGUF file" in error_of(load_decoder, tmp_path / "none.gguf")
