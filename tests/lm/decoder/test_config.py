"""config.json of decoders: both forms, the defaults of transformers, clear error messages."""

import json
import shutil

import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import Layer, decoder_config, is_decoder, read_decoder_config
from gatrec_jax.lm.decoder.families import FAMILIES
from gatrec_jax.lm.decoder.rope import Rope

FOLDERS = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())
SIZES = {
  "vocab_size": 96,
  "hidden_size": 32,
  "intermediate_size": 24,
  "num_hidden_layers": 7,
  "num_attention_heads": 4,
}
LLAMA = {"model_type": "llama"} | SIZES
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}


def write(folder, fields, name="config.json"):
  (folder / name).write_text(json.dumps(fields), encoding="utf-8")
  return folder


def windows(config):
  return [layer.window for layer in config.layers]


def ropes(config):
  return [layer.rope for layer in config.layers]


@pytest.mark.parametrize("name", FOLDERS)
def test_both_forms_mean_the_same(name, tmp_path):
  (other,) = (GOLDENS / name).glob("config_*.json")
  shutil.copy(other, tmp_path / "config.json")
  first, second = (json.loads(path.read_text()) for path in (GOLDENS / name / "config.json", other))
  inner = [fields.get("text_config", fields) for fields in (first, second)]
  assert sorted("rope_parameters" in fields for fields in inner) == [False, True]
  assert sorted("torch_dtype" in fields for fields in (first, second)) == [False, True]
  assert read_decoder_config(tmp_path) == read_decoder_config(GOLDENS / name)


def test_layers_of_the_golden_folders():
  plain, llama3 = Rope(theta=10_000.0), Rope("llama3", 500.0, 8.0, 16, 1.0, 4.0)
  stretched = Rope("linear", theta=50_000.0, factor=4.0)
  smol = Rope(theta=2_000_000.0)
  gemma3 = (Layer(8, plain), Layer(8, plain), Layer(None, stretched))
  expected = {
    "llama_default": (Layer(None, plain),) * 2,
    "llama3_rope": (Layer(None, llama3),) * 2,
    "llama_linear": (Layer(None, Rope("linear", factor=3.0)),) * 2,
    "mistral": (Layer(8, plain),) * 2,
    "qwen2": (Layer(None, plain),) * 2,  # sliding_window 8 is set but not used
    "qwen2_window": (Layer(None, plain), Layer(8, plain), Layer(8, plain)),
    "smollm3": (Layer(None, smol), Layer(8, None)) * 2,
    "gemma2": (Layer(8, plain), Layer(None, plain)),
    "gemma3_text": gemma3,
    "gemma3_multimodal": gemma3,
  }
  for name, layers in expected.items():
    assert read_decoder_config(GOLDENS / name).layers == layers, name


def test_yarn_of_the_golden_folders():
  scale = 1.138629436111989  # 0.1 · ln 4 + 1
  short = ropes(read_decoder_config(GOLDENS / "qwen2_yarn"))[0]
  assert short == Rope("yarn", 10_000.0, 4.0, 16, attention_factor=scale)
  assert (short.beta_fast, short.beta_slow, short.truncate) == (32.0, 1.0, True)
  long = ropes(read_decoder_config(GOLDENS / "qwen3_yarn"))[0]
  assert (long.beta_fast, long.beta_slow, long.truncate) == (2.0, 0.25, False)


def test_a_multimodal_folder_is_read_as_its_text_model():
  config = read_decoder_config(GOLDENS / "gemma3_multimodal")
  assert (config.family, config.heads, config.kv_heads, config.head_size) == (
    ("gemma3_text", 8, 4, 8)  # the heads are those of the family, not named in the file
  )
  assert config.eos == (1, 7)
  assert config.tied and config.norm_offset and config.qk_norm
  assert (config.embedding_scale, config.query_scale) == (32**0.5, 0.5)


# What a family reads besides the sizes: pattern of layers, biases, ids, and what it ignores.
SETTINGS = {
  "llama": [{}, {"attention_bias": True, "mlp_bias": True, "sliding_window": 8}],
  "mistral": [
    {"sliding_window": None, "attention_bias": True},
    {"head_dim": 16, "num_key_value_heads": 2},
  ],
  "qwen2": [
    {"num_key_value_heads": 2},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3, "mlp_bias": True},
    {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0, "head_dim": 16},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
  ],
  "qwen3": [
    {"num_key_value_heads": 2},
    {"use_sliding_window": True, "max_window_layers": 6, "attention_bias": True},
  ],
  "smollm3": [
    {},
    {"no_rope_layer_interval": 3, "tie_word_embeddings": False, "attention_bias": True},
    {"use_sliding_window": True, "sliding_window": 8, "mlp_bias": True},
    {
      "no_rope_layers": [0, 1, 1, 0, 1, 1, 1, 1, 0],
      "use_sliding_window": True,
      "sliding_window": 8,
    },
  ],
  "gemma2": [{}, {"attn_logit_softcapping": None, "final_logit_softcapping": None}],
  "gemma3_text": [
    {},
    {"sliding_window_pattern": 2, "rope_local_base_freq": 500.0, "rope_theta": 2e6},
    {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "final_logit_softcapping": 9.0},
  ],
}
CASES = [(family, extra) for family, settings in SETTINGS.items() for extra in settings]


@pytest.mark.parametrize(("family", "extra"), CASES)
def test_defaults_are_those_of_transformers(family, extra):
  """A file with few fields means the same as in transformers' own configuration classes."""
  from transformers.models.auto.configuration_auto import CONFIG_MAPPING

  fields = SIZES | {"num_key_value_heads": 4} | extra
  theirs = CONFIG_MAPPING[family](**json.loads(json.dumps(fields)))
  ours = decoder_config(fields | {"model_type": family})
  head_size = getattr(theirs, "head_dim", None) or 8
  assert ours.head_size == head_size
  assert ours.kv_heads == theirs.num_key_value_heads
  assert ours.context == theirs.max_position_embeddings
  assert ours.epsilon == theirs.rms_norm_eps
  assert ours.tied == theirs.tie_word_embeddings
  assert ours.bos == theirs.bos_token_id
  assert ours.eos == (() if theirs.eos_token_id is None else (theirs.eos_token_id,))
  assert ours.pad == (theirs.pad_token_id or 0)
  assert ours.final_softcap == getattr(theirs, "final_logit_softcapping", None)
  assert ours.query_scale == getattr(theirs, "query_pre_attn_scalar", head_size) ** -0.5
  activation = getattr(theirs, "hidden_activation", None) or theirs.hidden_act
  assert ours.activation == {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}[activation]

  everywhere = "sliding_attention" if family == "mistral" and theirs.sliding_window else None
  kinds = getattr(theirs, "layer_types", [everywhere or "full_attention"] * 7)
  uses_rope = getattr(theirs, "no_rope_layers", [1] * 7)
  expected = []
  for number, kind in enumerate(kinds):
    numbers = theirs.rope_parameters.get(kind, theirs.rope_parameters)
    rope = Rope(numbers["rope_type"], numbers["rope_theta"], numbers.get("factor", 1.0))
    window = theirs.sliding_window if kind == "sliding_attention" else None
    expected.append(Layer(window, rope if uses_rope[number] else None))
  assert ours.layers == tuple(expected)


@pytest.mark.parametrize(
  ("family", "given", "biases"),
  [
    ("llama", True, (True, True, True)),
    ("llama", False, (False, False, False)),
    ("mistral", True, (False, False, False)),
    ("qwen2", True, (True, False, False)),
    ("qwen2", False, (True, False, False)),
    ("qwen3", True, (True, True, False)),
    ("smollm3", True, (True, True, True)),
    ("gemma2", True, (True, True, False)),
    ("gemma3_text", True, (True, True, False)),
  ],
)
def test_biases_that_the_families_have(family, given, biases):
  fields = SIZES | {"model_type": family, "num_key_value_heads": 4}
  config = decoder_config(fields | {"attention_bias": given, "mlp_bias": given})
  assert (config.qkv_bias, config.output_bias, config.mlp_bias) == biases


def test_gemma_3_has_no_cap_on_scores():
  # The field is in its files, but the model does not use it.
  fields = SIZES | {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}
  assert decoder_config(fields).attention_softcap is None


@pytest.mark.parametrize("family", FAMILIES)
def test_null_key_heads_default_to_the_number_of_heads(family):
  if family.startswith("gemma"):
    pytest.skip("null is not allowed there")
  fields = SIZES | {"model_type": family, "num_attention_heads": 2, "num_key_value_heads": None}
  assert decoder_config(fields).kv_heads == 2


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_both_names_of_the_rope_type(key):
  scaling = {key: "linear", "factor": 2}
  for fields in ({"rope_scaling": scaling}, {"rope_parameters": scaling | {"rope_theta": 1e4}}):
    assert ropes(decoder_config(LLAMA | fields))[0] == Rope("linear", 10_000.0, 2.0)


def test_defaults_of_yarn():
  yarn = {"rope_type": "yarn", "factor": 4.0}
  config = decoder_config(LLAMA | {"rope_scaling": yarn, "max_position_embeddings": 256})
  rope = ropes(config)[0]
  assert (rope.original_context, rope.beta_fast, rope.beta_slow) == (256, 32.0, 1.0)
  # A missing factor is derived from the contexts.
  yarn = {"rope_type": "yarn", "original_max_position_embeddings": 64}
  config = decoder_config(LLAMA | {"rope_scaling": yarn, "max_position_embeddings": 256})
  assert ropes(config)[0].factor == 4.0
  given = yarn | {"factor": 4.0, "attention_factor": 0.75, "mscale": 2.0, "mscale_all_dim": 1.0}
  assert ropes(decoder_config(LLAMA | {"rope_scaling": given}))[0].attention_factor == 0.75
  del given["attention_factor"]
  # (0.2 · ln 4 + 1) / (0.1 · ln 4 + 1)
  scaled = ropes(decoder_config(LLAMA | {"rope_scaling": given}))[0].attention_factor
  assert scaled == pytest.approx(1.1217504, abs=1e-6)


def test_layer_types_of_the_file_take_precedence():
  kinds = ["full_attention", "sliding_attention"] + ["full_attention"] * 5
  for family in ("qwen3", "gemma2", "gemma3_text", "smollm3"):
    fields = SIZES | {"model_type": family, "num_key_value_heads": 4, "layer_types": kinds}
    config = decoder_config(fields | {"use_sliding_window": True, "sliding_window": 8})
    assert windows(config) == [None, 8] + [None] * 5, family


def test_eos_tokens_of_the_generation_config_are_added(tmp_path):
  write(tmp_path, LLAMA | {"eos_token_id": [5, 6]})
  assert read_decoder_config(tmp_path).eos == (5, 6)
  write(tmp_path, {"eos_token_id": [6, 9]}, "generation_config.json")
  assert read_decoder_config(tmp_path).eos == (5, 6, 9)
  write(tmp_path, {"do_sample": True}, "generation_config.json")
  assert read_decoder_config(tmp_path).eos == (5, 6)


def test_configurations_are_hashable_and_compare_by_value():
  first, second = (read_decoder_config(GOLDENS / "gemma3_text") for _ in range(2))
  assert first is not second and hash(first) == hash(second) and first == second


def test_encoders_are_not_decoders():
  assert is_decoder({"model_type": "gemma3"}) and is_decoder(LLAMA)
  assert not is_decoder({"model_type": "bert"}) and not is_decoder({})


LONGROPE = {"rope_type": "longrope", "factor": 2.0}
REFUSED = {
  # what is wrong: (fields, parts of the message)
  "model_type": ({"model_type": "mamba"}, ("mamba", "llama")),
  "no model_type": ({"model_type": None}, ("model_type", "llama")),
  "mixture of experts": ({"model_type": "qwen3_moe"}, ("qwen3_moe",)),
  "rope type": ({"rope_scaling": LONGROPE}, ("longrope", "yarn")),
  "old rope type": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ("dynamic",)),
  "new rope type": ({"rope_parameters": LONGROPE}, ("longrope",)),
  "no factor": ({"rope_scaling": {"type": "linear"}}, ("linear", "factor")),
  "llama3 without bounds": (
    {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}},
    ("low_freq_factor",),
  ),
  "partial rotation": ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor", "0.5")),
  "activation": ({"hidden_act": "relu2"}, ("hidden_act", "relu2", "silu")),
  "no width": ({"hidden_size": None}, ("hidden_size",)),
  "no vocabulary": ({"vocab_size": None}, ("vocab_size",)),
  "word for a number": ({"hidden_size": "wide"}, ("wide",)),
  "list for a number": ({"num_attention_heads": [4]}, ("config.json",)),
  "no heads": ({"num_attention_heads": 0}, ("num_attention_heads",)),
  "no key heads": ({"num_key_value_heads": 0}, ("num_key_value_heads",)),
  "uneven groups": ({"num_key_value_heads": 3}, ("4", "3")),
  "odd head": ({"head_dim": 7}, ("head_dim", "7")),
  "unknown layer": (
    {"model_type": "qwen3", "layer_types": ["chunked_attention"] * 7, "num_key_value_heads": 4},
    ("chunked_attention", "sliding_attention"),
  ),
  "too few layers": (
    {"model_type": "gemma2", "layer_types": ["full_attention"] * 3},
    ("layer_types", "3", "7"),
  ),
  "window without a size": (
    {"model_type": "gemma2", "sliding_window": None},
    ("sliding_attention", "sliding_window"),
  ),
  "too few flags": (
    {"model_type": "smollm3", "no_rope_layers": [1, 0]},
    ("no_rope_layers", "2", "7"),
  ),
  "both directions": (
    {"model_type": "gemma3_text", "use_bidirectional_attention": True},
    ("use_bidirectional_attention",),
  ),
  "images without text": ({"model_type": "gemma3", "vision_config": {}}, ("gemma3", "text_config")),
  "images of another": (
    {"model_type": "gemma3n", "text_config": {"model_type": "gemma3n_text"}},
    ("gemma3n",),
  ),
  "quantized": ({"quantization_config": {"quant_method": "gptq"}}, ("quantization_config", "gptq")),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_errors_name_the_file_and_the_fault(fault, tmp_path):
  changes, parts = REFUSED[fault]
  write(tmp_path, LLAMA | changes)
  with pytest.raises(InputError) as error:
    read_decoder_config(tmp_path)
  message = str(error.value)
  assert "\n" not in message
  for part in (str(tmp_path / "config.json"), *parts):
    assert part in message


def test_broken_files_are_rejected(tmp_path):
  with pytest.raises(InputError, match=r"config\.json: not found"):
    read_decoder_config(tmp_path)
  write(tmp_path, [1, 2])
  with pytest.raises(InputError, match="a JSON object is needed"):
    read_decoder_config(tmp_path)
  (tmp_path / "config.json").write_text("{", encoding="utf-8")
  with pytest.raises(InputError, match=r"config\.json"):
    read_decoder_config(tmp_path)
