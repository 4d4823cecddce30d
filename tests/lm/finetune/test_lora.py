"""Adapters: no effect at first, merging, files in the format of PEFT."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_decoder import leaves_by_path, tiny_config, tiny_model
from safetensors.numpy import load_file, save_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import Lora, forward
from gatrec_jax.lm.finetune.lora import (
  TARGETS,
  count_params,
  init_lora,
  load_lora,
  merge_lora,
  save_lora,
)

TOKENS = jnp.array([[1, 5, 9, 3, 2, 7], [1, 8, 8, 4, 2, 0]], jnp.int32)


@pytest.fixture(scope="module")
def model():
  return tiny_model(qkv_bias=True)


def random_lora(config, targets=TARGETS):
  def make(key):
    return init_lora(key, config, targets=targets, rank=3, alpha=6.0)

  lora = jax.eval_shape(make, jax.random.key(0))
  random = np.random.default_rng(1)

  def noise(leaf):
    return jax.device_put(np.float32(0.3 * random.normal(size=leaf.shape)))

  return jax.tree.map(noise, lora)


def test_new_adapters_change_nothing(model):
  lora = init_lora(jax.random.key(0), model.config)
  assert lora.scale == 4.0
  plain = forward(model.params, TOKENS, config=model.config)
  adapted = forward(model.params, TOKENS, config=model.config, lora=lora)
  np.testing.assert_array_equal(adapted, plain)
  for path, leaf in leaves_by_path(lora.params).items():
    assert path.split("/")[-2] in ("q", "v")
    if path.endswith("/b"):
      assert not leaf.any()
    else:
      assert 0.15 < np.abs(leaf).max() <= 16**-0.5
  assert not np.array_equal(
    lora.params["layer_0"]["attention"]["q"]["a"], lora.params["layer_1"]["attention"]["q"]["a"]
  )


def test_number_of_parameters():
  config = tiny_config()

  def count(**settings):
    def make(key):
      return init_lora(key, config, **settings)

    return count_params(jax.eval_shape(make, jax.random.key(0)).params)

  # q: rank · (16 + 16), v: rank · (16 + 8), two layers.
  assert count(rank=5) == 2 * 5 * (32 + 24)
  assert count(rank=1, targets=TARGETS) == 2 * (2 * 32 + 2 * 24 + 3 * 40)


def test_merged_equals_unmerged(model):
  lora = random_lora(model.config)
  beside = forward(model.params, TOKENS, config=model.config, lora=lora)
  merged = merge_lora(model.params, lora)
  np.testing.assert_allclose(forward(merged, TOKENS, config=model.config), beside, atol=1e-5)
  plain = forward(model.params, TOKENS, config=model.config)
  assert np.abs(plain - beside).max() > 0.1
  kernel = model.params["layer_1"]["mlp"]["down"]["kernel"]
  adapter = lora.params["layer_1"]["mlp"]["down"]
  np.testing.assert_allclose(
    merged["layer_1"]["mlp"]["down"]["kernel"],
    np.asarray(kernel) + 2 * np.asarray(adapter["b"]) @ np.asarray(adapter["a"]),
    rtol=1e-5,
    atol=1e-6,
  )


def test_merging_keeps_other_weights_and_the_dtype():
  model = tiny_model(dtype="bfloat16")
  before = leaves_by_path(model.params)
  merged = leaves_by_path(merge_lora(model.params, random_lora(model.config, targets=("q",))))
  assert {str(leaf.dtype) for leaf in merged.values()} == {"bfloat16"}
  for path, leaf in leaves_by_path(model.params).items():
    assert leaf.tobytes() == before[path].tobytes()
    assert (leaf.tobytes() == merged[path].tobytes()) == ("/q/" not in path)


def test_gradient_reaches_only_b_at_first(model):
  lora = init_lora(jax.random.key(0), model.config)

  def loss(params):
    changed = lora.replace(params=params)
    return forward(model.params, TOKENS, config=model.config, lora=changed)[..., 3].sum()

  for path, leaf in leaves_by_path(jax.grad(loss)(lora.params)).items():
    assert leaf.any() == path.endswith("/b")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"targets": ("q", "wq")}, "lora_targets=q,wq: wq is not one of q, k, v"),
    ({"targets": ()}, "lora_targets=: none is not one of q, k, v"),
    ({"rank": 0}, "lora_rank=0"),
    ({"dropout": 1.0}, "lora_dropout=1.0"),
  ],
)
def test_invalid_settings_are_reported(settings, message):
  with pytest.raises(InputError, match=message):
    init_lora(jax.random.key(0), tiny_config(), **settings)


def test_int8_and_mismatched_kernels_are_rejected(model):
  lora = random_lora(model.config, targets=("k",))
  attention = dict(model.params["layer_1"]["attention"])
  attention["k"] = {"kernel_int8": jnp.zeros((8, 16), jnp.int8), "kernel_scale": jnp.ones(8)}
  small = model.params | {"layer_1": model.params["layer_1"] | {"attention": attention}}
  with pytest.raises(InputError, match="layer_1/attention/k/kernel_int8: adapters cannot"):
    merge_lora(small, lora)
  wide = tiny_config(width=32)
  with pytest.raises(InputError, match=r"layer_0/attention/k/kernel is \[8, 16\], .*\[8, 32\]"):
    merge_lora(model.params, random_lora(wide, targets=("k",)))
  deep = tiny_config(layers=tiny_config().layers * 2)
  with pytest.raises(InputError, match="layer_2: the adapters have it, but the model does not"):
    merge_lora(model.params, random_lora(deep))


def test_files_are_those_of_peft(model, tmp_path):
  lora = random_lora(model.config, targets=("q", "down"))
  save_lora(lora, model.config, tmp_path / "adapters", base="some/model")
  tensors = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
  prefix = "base_model.model.model.layers."
  assert set(tensors) == {
    f"{prefix}{layer}.{name}.lora_{side}.weight"
    for layer in (0, 1)
    for name in ("self_attn.q_proj", "mlp.down_proj")
    for side in "AB"
  }
  np.testing.assert_array_equal(
    tensors[f"{prefix}1.self_attn.q_proj.lora_A.weight"],
    lora.params["layer_1"]["attention"]["q"]["a"],
  )
  settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
  assert settings["peft_type"] == "LORA" and settings["task_type"] == "CAUSAL_LM"
  assert (settings["r"], settings["lora_alpha"]) == (3, 6.0)
  assert settings["target_modules"] == ["down_proj", "q_proj"]
  assert settings["base_model_name_or_path"] == "some/model"
  again = load_lora(tmp_path / "adapters", model.config)
  assert (again.scale, again.dropout) == (lora.scale, lora.dropout)
  ours, theirs = leaves_by_path(lora.params), leaves_by_path(again.params)
  assert ours.keys() == theirs.keys()
  assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_named_adapters_of_some_layers_are_loaded(model, tmp_path):
  save_lora(random_lora(model.config), model.config, tmp_path)
  path = tmp_path / "adapter_model.safetensors"
  tensors = {n: x for n, x in load_file(path).items() if ".layers.1." in n and "q_proj" in n}
  save_file({n.replace(".weight", ".default.weight"): x for n, x in tensors.items()}, path)
  settings = json.loads((tmp_path / "adapter_config.json").read_text())
  (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": True}))
  lora = load_lora(tmp_path, model.config)
  assert set(leaves_by_path(lora.params)) == {"layer_1/attention/q/a", "layer_1/attention/q/b"}
  assert lora.scale == pytest.approx(6 / 3**0.5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"use_dora": True}, "use_dora=True is not supported; it must be False"),
    ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"peft_type": "IA3"}, "peft_type must be LORA"),
    ({"r": "many"}, "r is .many.; it must be a whole number"),
    ({"r": 0}, "r is 0; it must be 1 or more"),
    ({"r": 4}, r"8 tensors: .*q_proj.lora_A.weight is \[3, 16\], expected \[4, 16\]"),
  ],
)
def test_unsupported_settings_are_rejected(model, tmp_path, change, message):
  save_lora(random_lora(model.config, targets=("q", "k")), model.config, tmp_path)
  path = tmp_path / "adapter_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(InputError, match=message):
    load_lora(tmp_path, model.config)


def test_missing_damaged_and_mismatched_files_are_reported(model, tmp_path):
  with pytest.raises(InputError, match="adapter_config.json: not found"):
    load_lora(tmp_path, model.config)
  save_lora(random_lora(model.config), model.config, tmp_path)
  path = tmp_path / "adapter_model.safetensors"
  shallow = tiny_config(layers=model.config.layers[:1])
  with pytest.raises(InputError, match=r"14 tensors: unexpected .*layers\.1\.mlp\.down_proj"):
    load_lora(tmp_path, shallow)
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(InputError, match="adapter_model.safetensors: damaged or truncated"):
    load_lora(tmp_path, model.config)
  path.unlink()
  with pytest.raises(InputError, match="adapter_model.safetensors: not found"):
    load_lora(tmp_path, model.config)


def test_saving_no_adapters_is_rejected(model, tmp_path):
  with pytest.raises(InputError, match="must have the same rank"):
    save_lora(Lora({}, 1.0), model.config, tmp_path)
