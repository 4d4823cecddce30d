"""Parameter counts of published models, from their configurations, without allocating them."""

import pytest

from gatrec_jax.lm.decoder.config import decoder_config
from gatrec_jax.lm.decoder.model import parameter_count
from gatrec_jax.lm.folders.load import weight_bytes

GEMMA3 = {
  "model_type": "gemma3_text",
  "hidden_size": 5376,
  "intermediate_size": 21504,
  "num_hidden_layers": 62,
  "num_attention_heads": 32,
  "num_key_value_heads": 16,
  "head_dim": 128,
  "query_pre_attn_scalar": 168,
  "sliding_window": 1024,
  "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
# config.json on the hub, and the number of elements in the files (for Gemma, the text model).
MODELS = {
  "Llama-3-8B": (
    {
      "model_type": "llama",
      "hidden_size": 4096,
      "intermediate_size": 14336,
      "num_hidden_layers": 32,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "vocab_size": 128256,
      "rope_theta": 500000.0,
      "rms_norm_eps": 1e-5,
      "max_position_embeddings": 8192,
      "tie_word_embeddings": False,
    },
    8_030_261_248,
  ),
  "Qwen3-32B": (
    {
      "model_type": "qwen3",
      "hidden_size": 5120,
      "intermediate_size": 25600,
      "num_hidden_layers": 64,
      "num_attention_heads": 64,
      "num_key_value_heads": 8,
      "head_dim": 128,
      "vocab_size": 151936,
      "rope_theta": 1e6,
      "max_position_embeddings": 40960,
      "tie_word_embeddings": False,
    },
    32_762_123_264,
  ),
  "Gemma-3-27B": ({"model_type": "gemma3", "text_config": GEMMA3}, 27_009_346_304),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_published_models(name):
  fields, count = MODELS[name]
  config = decoder_config(fields)
  assert parameter_count(config) == count
  # The name table has the same tensors.
  assert weight_bytes(config, dtype="bfloat16") == 2 * count
  # One byte per weight and a few scales; embedding and head keep two bytes.
  least = count + (1 if config.tied else 2) * config.vocabulary * config.width
  assert least < weight_bytes(config, dtype="bfloat16", quantize="int8") < 1.001 * least
