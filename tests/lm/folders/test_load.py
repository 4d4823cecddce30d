"""Loading decoders: invalid folders, memory, dtypes and placement of weights."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.tiny_decoder import leaves_by_path
from safetensors.numpy import load_file, save_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.cache import cache_bytes
from gatrec_jax.lm.decoder.model import init_params
from gatrec_jax.lm.folders import load as load_module
from gatrec_jax.lm.folders import memory
from gatrec_jax.lm.folders.load import load_decoder, weight_bytes
from gatrec_jax.sharding.mesh import make_mesh

FOLDERS = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())


@pytest.fixture
def folder(tmp_path):
  """A writable copy of a decoder with a tokenizer."""
  target = tmp_path / "qwen"
  shutil.copytree(GOLDENS / "qwen2", target)
  return target


def error_of(folder, **options):
  """The message of the InputError that loading raises; it is one line."""
  with pytest.raises(InputError) as error:
    load_decoder(folder, **options)
  message = str(error.value)
  assert message and "\n" not in message
  return message


def edit(path, **fields):
  values = json.loads(path.read_text(encoding="utf-8"))
  path.write_text(json.dumps(values | fields), encoding="utf-8")


@pytest.mark.parametrize("name", FOLDERS)
def test_parameters_have_the_shapes_of_the_network(name):
  model = load_decoder(GOLDENS / name)
  shapes = jax.eval_shape(lambda key: init_params(key, model.config), jax.random.key(0))
  ours = {path: leaf.shape for path, leaf in leaves_by_path(model.params).items()}
  paths = jax.tree_util.tree_leaves_with_path(shapes)
  theirs = {"/".join(key.key for key in path): leaf.shape for path, leaf in paths}
  assert ours == theirs
  assert model.name == name and model.attention == "xla"
  assert model.parameters == sum(leaf.size for leaf in jax.tree.leaves(model.params))


def test_a_missing_folder(tmp_path):
  assert error_of(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: no such folder")


def test_a_missing_config(folder):
  (folder / "config.json").unlink()
  assert error_of(folder).startswith(f"{folder / 'config.json'}: not found")


def test_a_damaged_config(folder):
  (folder / "config.json").write_text("{", encoding="utf-8")
  assert str(folder / "config.json") in error_of(folder)


def test_an_unknown_architecture(folder):
  edit(folder / "config.json", model_type="gpt_neox")
  message = error_of(folder)
  assert f"{folder / 'config.json'}: model_type 'gpt_neox' is not one of llama, mistral" in message


def test_missing_weights(folder):
  (folder / "model.safetensors").unlink()
  assert error_of(folder).startswith(f"{folder}: no weights; needs model.safetensors")


def test_only_torch_weights(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  message = error_of(folder)
  assert f"{folder}: has only pytorch_model.bin; convert it to safetensors once" in message
  assert f"AutoModelForCausalLM.from_pretrained('{folder}').save_pretrained('{folder}')" in message


def test_a_missing_shard(tmp_path):
  target = tmp_path / "sharded"
  shutil.copytree(GOLDENS / "llama_sharded_bf16", target)
  (target / "model-00002-of-00003.safetensors").unlink()
  message = error_of(target)
  assert "shards named by model.safetensors.index.json are missing: model-00002-of-00003" in message


def test_all_mismatched_tensors_are_listed(folder):
  tensors = load_file(folder / "model.safetensors")
  tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 4), np.float32)
  del tensors["model.norm.weight"]
  tensors["model.layers.7.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)
  save_file(tensors, folder / "model.safetensors")
  message = error_of(folder)
  assert message.startswith(f"{folder}: the weights do not match config.json, 3 tensors: ")
  assert "missing model.norm.weight [32]" in message
  assert "model.layers.0.mlp.up_proj.weight is [3, 4], expected [24, 32]" in message
  assert "unexpected model.layers.7.mlp.up_proj.weight" in message


def test_a_tokenizer_of_another_model(folder):
  tensors = load_file(folder / "model.safetensors")
  tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100]
  save_file(tensors, folder / "model.safetensors")
  edit(folder / "config.json", vocab_size=100)
  assert "the tokenizer has 128 tokens, config.json a vocab_size of 100" in error_of(folder)


def test_a_damaged_tokenizer(folder):
  (folder / "tokenizer.json").write_text('{"version": "1.0", "model"', encoding="utf-8")
  assert error_of(folder).startswith(f"{folder}: its tokenizer cannot be read (")


def test_a_folder_without_tokenizer(folder):
  for path in folder.glob("tokenizer*"):
    path.unlink()
  assert load_decoder(folder).tokenizer is None


def test_damaged_weights(folder):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-100])
  assert error_of(folder).startswith(f"{path}: damaged or truncated (")


@pytest.mark.parametrize(
  ("options", "expected"),
  (
    ({"dtype": "float16"}, "dtype 'float16' is not one of float32, bfloat16"),
    ({"quantize": "int4"}, "quantize=int4: not one of none, int8, keep"),
    ({"attention": "flash"}, "attention=flash: not one of auto, xla, cudnn, pallas"),
    ({"attention": "cudnn"}, "attention=cudnn: it needs a GPU; use `attention=xla`"),
  ),
)
def test_invalid_options_are_reported(folder, options, expected):
  assert error_of(folder, **options) == expected


@pytest.mark.parametrize("quantize", ("none", "int8"))
def test_too_little_memory_is_reported_before_loading(folder, monkeypatch, quantize):
  config = load_decoder(folder).config
  needed = weight_bytes(config, dtype="float32", quantize=quantize)
  needed += cache_bytes(config, rows=1, slots=config.context, dtype="float32")
  loaded = []
  reading = load_module.params_of
  monkeypatch.setattr(
    load_module, "params_of", lambda *args, **rest: loaded.append(1) or reading(*args, **rest)
  )
  free = round(needed / (1 - memory.SPARE_SHARE))
  monkeypatch.setattr(memory, "available_bytes", lambda devices=None: free - 2)
  message = error_of(folder, quantize=quantize)
  assert not loaded
  assert message.startswith(f"{folder}: weights (float32{', int8' * (quantize == 'int8')}) and a ")
  assert "GiB are free; use `dtype=bfloat16`, `quantize=int8`, a smaller model" in message
  monkeypatch.setattr(memory, "available_bytes", lambda devices=None: free + 2)
  load_decoder(folder, quantize=quantize)
  assert loaded
  monkeypatch.setattr(memory, "available_bytes", lambda devices=None: None)  # unknown
  load_decoder(folder, quantize=quantize)


def test_memory_is_reported_in_gibibytes(monkeypatch):
  monkeypatch.setattr(memory, "available_bytes", lambda devices=None: 3 * 2**30)
  with pytest.raises(InputError, match=r"^it need about 2.9 GiB, 3.0 GiB are free; wait$"):
    memory.require_memory(int(2.9 * 2**30), what="it", remedy="wait")
  memory.require_memory(int(2.8 * 2**30), what="it", remedy="wait")


def test_memory_of_this_machine():
  free = memory.available_bytes()
  assert free is None or 2**20 < free < 2**50


def test_weights_are_cast(folder):
  exact, rounded = load_decoder(folder), load_decoder(folder, dtype="bfloat16")
  assert rounded.dtype == "bfloat16"
  for path, leaf in leaves_by_path(rounded.params).items():
    assert leaf.dtype == jnp.bfloat16, path
    np.testing.assert_array_equal(leaf, leaves_by_path(exact.params)[path].astype(jnp.bfloat16))


@pytest.mark.parametrize("quantize", ("none", "int8"))
def test_weights_are_placed_on_a_mesh(folder, quantize):
  mesh = make_mesh()
  model = load_decoder(folder, mesh=mesh, quantize=quantize)
  plain = load_decoder(folder, quantize=quantize)
  for leaf in jax.tree.leaves(model.params):
    assert leaf.sharding.mesh == mesh
  for path, leaf in leaves_by_path(model.params).items():
    np.testing.assert_array_equal(leaf, leaves_by_path(plain.params)[path])


def test_eos_tokens_come_from_all_files(folder):
  (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}', encoding="utf-8")
  model = load_decoder(folder)
  assert model.config.eos == (2, 0) and model.eos == (2, 0)
  assert model.bos is None
