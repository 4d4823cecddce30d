"""Loading safetensors through a name table: mismatches, shards, casts, damaged files."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm.encoder import bert
from gatrec_jax.lm.encoder.load import load_encoder
from gatrec_jax.lm.folders.weights import Rule, load_params

RULES = (
  Rule("table/embedding", (("words.weight", (5, 3)),)),
  Rule("layers/kernel", (("h.{layer}.q", (2, 3)), ("h.{layer}.k", (4, 3))), True, layers=2),
  Rule("extra/bias", (("bias", (2,)),), optional=True),
)


def tensors(dtype=np.float32):
  random = np.random.default_rng(0)
  shapes = {"words.weight": (5, 3), "h.0.q": (2, 3), "h.0.k": (4, 3), "h.1.q": (2, 3)}
  shapes["h.1.k"] = (4, 3)
  return {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def test_tensors_are_concatenated_transposed_and_stacked(tmp_path):
  given = tensors()
  save_file(given, tmp_path / "model.safetensors")
  params = load_params(tmp_path, RULES)
  assert set(params) == {"table", "layers"}
  np.testing.assert_array_equal(params["table"]["embedding"], given["words.weight"])
  kernel = params["layers"]["kernel"]
  assert kernel.shape == (2, 3, 6)
  np.testing.assert_array_equal(kernel[1, :, :2], given["h.1.q"].T)
  np.testing.assert_array_equal(kernel[1, :, 2:], given["h.1.k"].T)


def test_bfloat16_file_and_cast(tmp_path):
  given = tensors(ml_dtypes.bfloat16)
  save_file(given, tmp_path / "model.safetensors")
  same = load_params(tmp_path, RULES, dtype="bfloat16")["table"]["embedding"]
  assert same.dtype == jnp.bfloat16
  wider = load_params(tmp_path, RULES, dtype="float32")["table"]["embedding"]
  np.testing.assert_array_equal(wider, given["words.weight"].astype(np.float32))


def test_shards_with_an_index(tmp_path):
  given = tensors()
  save_file({"words.weight": given.pop("words.weight")}, tmp_path / "a.safetensors")
  save_file(given, tmp_path / "b.safetensors")
  places = {"words.weight": "a.safetensors", **dict.fromkeys(given, "b.safetensors")}
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": places}))
  assert load_params(tmp_path, RULES)["layers"]["kernel"].shape == (2, 3, 6)
  (tmp_path / "b.safetensors").unlink()
  with pytest.raises(InputError, match="missing: b.safetensors"):
    load_params(tmp_path, RULES)


def test_all_mismatches_are_reported_at_once(tmp_path):
  given = tensors()
  del given["h.1.q"]
  given["h.0.k"] = np.zeros((4, 9), np.float32)
  given["stranger"] = np.zeros(1, np.float32)
  given["head.weight"] = np.zeros(1, np.float32)
  save_file(given, tmp_path / "model.safetensors")
  with pytest.raises(InputError) as error:
    load_params(tmp_path, RULES, unused=(r"head\..*",))
  message = str(error.value)
  assert "3 tensors" in message
  assert "missing h.1.q [2, 3]" in message
  assert "h.0.k is [4, 9], expected [4, 3]" in message
  assert "unexpected stranger" in message
  assert "head" not in message and "\n" not in message


def test_place_puts_each_parameter_on_its_device(tmp_path):
  save_file(tensors(), tmp_path / "model.safetensors")
  seen = {}
  load_params(tmp_path, RULES, place=lambda path, array: seen.setdefault(path, array))
  assert {path: array.shape for path, array in seen.items()} == {
    "table/embedding": (5, 3),
    "layers/kernel": (2, 3, 6),
  }


def test_damaged_files_are_reported(tmp_path):
  path = tmp_path / "model.safetensors"
  save_file(tensors(), path)
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(InputError, match=r"model.safetensors: damaged or truncated"):
    load_params(tmp_path, RULES)
  path.write_bytes(b"not weights at all")
  with pytest.raises(InputError, match=r"model.safetensors: damaged or truncated"):
    load_params(tmp_path, RULES)


def test_pickled_weights_are_rejected_with_advice(tmp_path):
  (tmp_path / "pytorch_model.bin").write_bytes(b"")
  with pytest.raises(InputError, match="pytorch_model.bin.*save_pretrained"):
    load_params(tmp_path, RULES)
  (tmp_path / "pytorch_model.bin").unlink()
  with pytest.raises(InputError, match="no weights; needs model.safetensors"):
    load_params(tmp_path, RULES)


def test_encoder_folder_with_several_faults(bert_copy):
  path = bert_copy / "model.safetensors"
  given = load_file(path)
  del given["encoder.layer.1.attention.self.key.bias"]
  given["embeddings.LayerNorm.weight"] = np.zeros(7, np.float32)
  save_file(given, path)
  with pytest.raises(InputError) as error:
    load_encoder(bert_copy)
  assert "2 tensors" in str(error.value)
  assert "encoder.layer.1.attention.self.key.bias" in str(error.value)
  assert "embeddings.LayerNorm.weight is [7], expected [32]" in str(error.value)


def test_names_in_wrapped_and_old_files(bert_copy):
  path = bert_copy / "model.safetensors"
  renamed = {
    "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma"): array
    for name, array in load_file(path).items()
  }
  renamed["cls.predictions.bias"] = np.zeros(3, np.float32)
  renamed["bert.embeddings.position_ids"] = np.zeros((1, 200), np.int64)
  save_file(renamed, path)
  config = bert.read_config(bert_copy)
  params = load_params(
    bert_copy, bert.weight_rules(config), renames=bert.RENAMES, unused=bert.UNUSED
  )
  assert params["layers"]["qkv"]["kernel"].shape == (2, 32, 96)
