"""Writes GGUF files from Hugging Face folders, as llama.cpp's converter does."""

import json

import gguf
import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
import numpy as np
from safetensors.numpy import load_file

from gatrec_jax.lm.folders.load import load_decoder

ARCHITECTURES = {"gemma3_text": "gemma3"}
NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}


def write_gguf(folder, path, *, kind=None, without=(), more=None):
  """Args: kind: of the matrices, for rows of 32 numbers. without: keys that are left out.

  more: keys in addition, or with another value: numbers and texts.
  """
  config = load_decoder(folder).config
  architecture = ARCHITECTURES.get(config.family, config.family)
  writer = gguf.GGUFWriter(path, architecture)
  for key, value in (_metadata(config, architecture) | (more or {})).items():
    if key in without:
      continue
    if isinstance(value, str):
      writer.add_string(key, value)
    elif isinstance(value, bool):
      writer.add_bool(key, value)
    elif isinstance(value, float):
      writer.add_float32(key, value)
    elif isinstance(value, int):
      writer.add_uint32(key, value)
    else:
      writer.add_array(key, value)
  for name, values in _tensors(folder, config, architecture).items():
    if name in without:
      continue
    if kind is not None and values.ndim == 2 and values.shape[1] % 32 == 0:
      own = gguf.GGMLQuantizationType[kind]
      writer.add_tensor(name, gguf.quants.quantize(values, own), raw_dtype=own)
    else:
      writer.add_tensor(name, values)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def bpe_fields(folder, *, cut):
  """The keys of a tokenizer with merges of bytes. Args: cut: llama.cpp's name for its words."""
  tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
  tokens, kinds = _tokens(tokenizer)
  merges = [one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]]
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": cut,
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": kinds,
    "tokenizer.ggml.merges": merges,
  }


def _tokens(tokenizer):
  ids = dict(tokenizer["model"]["vocab"])
  added = {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
  tokens = [text for text, _ in sorted((ids | added).items(), key=lambda pair: pair[1])]
  return tokens, [3 if text in added else 1 for text in tokens]


def _metadata(config, architecture):
  prefix = f"{architecture}."
  found = {
    f"{prefix}block_count": len(config.layers),
    f"{prefix}context_length": config.context,
    f"{prefix}embedding_length": config.width,
    f"{prefix}feed_forward_length": config.inner,
    f"{prefix}attention.head_count": config.heads,
    f"{prefix}attention.head_count_kv": config.kv_heads,
    f"{prefix}attention.key_length": config.head_size,
    f"{prefix}attention.value_length": config.head_size,
    f"{prefix}attention.layer_norm_rms_epsilon": float(config.epsilon),
  }
  rope = next(layer.rope for layer in reversed(config.layers) if layer.rope is not None)
  found[f"{prefix}rope.freq_base"] = float(rope.theta)
  if rope.kind in ("linear", "yarn"):
    found[f"{prefix}rope.scaling.type"] = rope.kind
    found[f"{prefix}rope.scaling.factor"] = float(rope.factor)
  if rope.kind in ("yarn", "llama3"):
    found[f"{prefix}rope.scaling.original_context_length"] = rope.original_context
  if rope.kind == "yarn":
    found[f"{prefix}rope.scaling.yarn_beta_fast"] = float(rope.beta_fast)
    found[f"{prefix}rope.scaling.yarn_beta_slow"] = float(rope.beta_slow)
  windows = [layer.window for layer in config.layers if layer.window is not None]
  if architecture in ("gemma2", "gemma3"):
    found[f"{prefix}attention.sliding_window"] = windows[0]
    flags = [layer.window is not None for layer in config.layers]
    found[f"{prefix}attention.sliding_window_pattern"] = flags
  if config.attention_softcap:
    found[f"{prefix}attn_logit_softcapping"] = float(config.attention_softcap)
  if config.final_softcap:
    found[f"{prefix}final_logit_softcapping"] = float(config.final_softcap)
  if config.bos is not None:
    found["tokenizer.ggml.bos_token_id"] = config.bos
  if config.eos:
    found["tokenizer.ggml.eos_token_id"] = config.eos[0]
  return found


def _tensors(folder, config, architecture):
  names = NAMES | (GEMMA_NAMES if architecture.startswith("gemma") else {})
  theirs = {}
  for path in sorted(folder.glob("*.safetensors")):
    theirs |= load_file(path)
  found = {}
  for name, values in theirs.items():
    values = values.astype(np.float32)
    parts = name.removeprefix("model.layers.").split(".")
    block = f"blk.{parts.pop(0)}." if parts[0].isdecimal() else ""
    kind = parts.pop()
    if ".".join(parts) not in names or (config.tied and name == "lm_head.weight"):
      continue
    part = names[".".join(parts)]
    if architecture in ("llama", "smollm3") and part in ("attn_q", "attn_k"):
      heads = config.heads if part == "attn_q" else config.kv_heads
      # Row r of the first half of a head comes before row r of its second half.
      halves = values.reshape(heads, 2, -1, *values.shape[1:])
      values = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(values.shape)
    if architecture.startswith("gemma") and "norm" in part:
      values = values + 1
    found[f"{block}{part}.{kind}"] = values
  if any(layer.rope and layer.rope.kind == "llama3" for layer in config.layers):
    found["rope_freqs.weight"] = _llama3_divisors(config)
  return found


def _llama3_divisors(config):
  """As llama.cpp's converter computes them, one wavelength after another."""
  rope = config.layers[0].rope
  low, high = rope.low_frequency, rope.high_frequency
  long, short = rope.original_context / low, rope.original_context / high
  found = []
  for pair in range(config.head_size // 2):
    wavelength = 2 * np.pi * rope.theta ** (2 * pair / config.head_size)
    if wavelength < short:
      found.append(1.0)
    elif wavelength > long:
      found.append(rope.factor)
    else:
      smooth = (rope.original_context / wavelength - low) / (high - low)
      found.append(1 / ((1 - smooth) / rope.factor + smooth))
  return np.array(found, np.float32)


def quantized_bytes(kind, rows, columns, *, seed=0):
  """[rows, bytes] uint8 of a matrix of a type: any integers, and scales that are finite."""
  block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
  raw = np.random.default_rng(seed).integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
  # The upper byte of a float16: below 0xFC, and small.
  for place in {"Q6_K": (209,)}.get(kind, (1, 3) if kind[-1] in "1K" else (1,)):
    raw[..., place] &= 0xA7
  return raw.reshape(rows, -1)
