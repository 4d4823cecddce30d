"""Exported folders: same logits, files of the source kept, other folders never overwritten."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_decoder import leaves_by_path, random_params, tiny_config, tiny_model
from safetensors import safe_open
from safetensors.numpy import load_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import decoder_config
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.export import MARK_NAME, export_folder, llama_fields
from gatrec_jax.lm.folders.load import load_decoder

TOKENS = jnp.array([[1, 5, 9, 3]], jnp.int32)


@pytest.fixture(scope="module")
def model():
  return tiny_model(tied=False)


def same_leaves(left, right):
  left, right = leaves_by_path(left), leaves_by_path(right)
  return left.keys() == right.keys() and all(
    left[path].tobytes() == right[path].tobytes() for path in left
  )


def test_a_model_in_memory_is_exported_and_loaded(model, tmp_path):
  folder = export_folder(model, tmp_path / "out")
  again = load_decoder(folder)
  assert again.config == model.config
  assert same_leaves(again.params, model.params)
  np.testing.assert_allclose(
    forward(again.params, TOKENS, config=again.config),
    forward(model.params, TOKENS, config=model.config),
    atol=1e-5,
  )
  assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
  with safe_open(folder / "model.safetensors", framework="numpy") as file:
    assert file.metadata() == {"format": "pt"}
    assert "lm_head.weight" in file.keys()
  assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_shards_with_an_index_have_the_same_weights(model, tmp_path):
  export_folder(model, tmp_path / "one")
  folder = export_folder(model, tmp_path / "many", max_shard_bytes=4000)
  index = json.loads((folder / "model.safetensors.index.json").read_text())
  files = sorted(folder.glob("*.safetensors"))
  assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
  whole = load_file(tmp_path / "one" / "model.safetensors")
  assert set(index["weight_map"]) == set(whole)
  assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())
  for path in files:
    part = load_file(path)
    assert sum(array.nbytes for array in part.values()) <= 4000 or len(part) == 1
    assert all(index["weight_map"][name] == path.name for name in part)
  assert same_leaves(load_decoder(folder).params, model.params)


def test_files_of_the_source_folder_are_kept_except_for_the_dtype(model, tmp_path):
  source = export_folder(model, tmp_path / "source")
  (source / MARK_NAME).unlink()
  fields = json.loads((source / "config.json").read_text())
  fields = {"torch_dtype": "float32", "custom": {"kept": 1}, **fields}
  del fields["dtype"]
  (source / "config.json").write_text(json.dumps(fields))
  (source / "generation_config.json").write_text('{"eos_token_id": [2, 3], "top_p": 0.5}')
  (source / "merges.txt").write_text("a b")
  (source / "README.md").write_text("of the source")
  loaded = load_decoder(source)
  folder = export_folder(loaded, tmp_path / "out", dtype="bfloat16")
  changed = fields | {"torch_dtype": "bfloat16"}
  assert json.loads((folder / "config.json").read_text()) == changed
  for name in ("generation_config.json", "merges.txt"):
    assert (folder / name).read_bytes() == (source / name).read_bytes()
  assert not (folder / "README.md").exists()
  written = load_file(folder / "model.safetensors")
  assert {str(array.dtype) for array in written.values()} == {"bfloat16"}
  rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
  assert same_leaves(load_decoder(folder, dtype="bfloat16").params, rounded)


def test_the_dtype_of_the_parameters_is_the_default(tmp_path):
  folder = export_folder(tiny_model(dtype="bfloat16"), tmp_path / "out")
  assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
  assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == jnp.bfloat16


def test_the_text_model_of_a_multimodal_folder_is_exported(tmp_path):
  text = {
    "model_type": "gemma3_text",
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "sliding_window": 8,
    "eos_token_id": 9,
  }
  whole = {"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 3], "image_size": 4}
  (tmp_path / "source").mkdir()
  (tmp_path / "source" / "config.json").write_text(json.dumps(whole))
  config = decoder_config(whole)
  params = random_params(config)
  model = dataclasses.replace(
    tiny_model(), folder=tmp_path / "source", config=config, params=params
  )
  again = load_decoder(export_folder(model, tmp_path / "out"))
  assert again.config == config and config.eos == (1, 3)
  fields = json.loads((tmp_path / "out" / "config.json").read_text())
  assert fields["architectures"] == ["Gemma3ForCausalLM"]
  assert same_leaves(again.params, params)


def test_an_earlier_export_is_replaced_and_nothing_else(model, tmp_path):
  folder = export_folder(model, tmp_path / "out", max_shard_bytes=4000)
  export_folder(model, folder)
  assert sorted(folder.glob("*.safetensors")) == [folder / "model.safetensors"]
  assert not (folder / "model.safetensors.index.json").exists()
  (tmp_path / "empty").mkdir()
  export_folder(model, tmp_path / "empty")
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.txt").write_text("years of work")
  with pytest.raises(InputError, match="mine: not empty and not an earlier export"):
    export_folder(model, tmp_path / "mine")
  with pytest.raises(InputError, match="thesis.txt: is a file"):
    export_folder(model, tmp_path / "mine" / "thesis.txt")
  assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
  assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "out"]


def test_a_failure_keeps_the_earlier_export(model, tmp_path, monkeypatch):
  folder = export_folder(model, tmp_path / "out")
  before = {path.name: path.read_bytes() for path in folder.iterdir()}

  def fail(*_, **__):
    raise OSError("the disk broke")

  monkeypatch.setattr("safetensors.numpy.save_file", fail)
  with pytest.raises(OSError, match="broke"):
    export_folder(model, folder, dtype="bfloat16")
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
  assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_full_disk_is_reported_first(model, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=10)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  with pytest.raises(InputError, match="out: the disk is full"):
    export_folder(model, tmp_path / "out")
  assert not any(tmp_path.iterdir())


def test_int8_other_families_and_dtypes_are_rejected(model, tmp_path):
  embed = {"kernel_int8": jnp.zeros((24, 16), jnp.int8), "kernel_scale": jnp.ones(24)}
  small = dataclasses.replace(model, params=model.params | {"embed": embed})
  with pytest.raises(InputError, match="tiny: its weights are int8"):
    export_folder(small, tmp_path / "out")
  with pytest.raises(InputError, match="qwen3 model without a source folder"):
    llama_fields(tiny_config(family="qwen3", qk_norm=True))
  with pytest.raises(InputError, match="without a source folder"):
    llama_fields(tiny_config(query_scale=1.0))
  with pytest.raises(InputError, match="dtype=int4: must be one of float32"):
    export_folder(model, tmp_path / "out", dtype="int4")
  assert not (tmp_path / "out").exists()
