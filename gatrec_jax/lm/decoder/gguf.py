"""What a GGUF file says of a decoder, in the words of a Hugging Face folder.

Its metadata become the fields of a config.json, and its tensors get the names and the contents that
they have in safetensors files, so that nothing else needs to know the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.families import FULL, SLIDING
from gatrec_jax.lm.decoder.rope import Rope, inverse_frequencies
from gatrec_jax.lm.folders.gguf import GgufFile, GgufTensors, can_dequantize, dequantized
from gatrec_jax.lm.folders.gguf_blocks import Words, has_blocks, words_of
from gatrec_jax.lm.folders.weights import Rule, read_rule
from gatrec_jax.lm.tokens.gguf import CONTROL, END_TOKENS

Tensors = dict[str, tuple[GgufTensors, str]]

# Architectures by llama.cpp's names, and the families that they are here. Mistral is a `llama`.
_FAMILIES = {
  "llama": "llama",
  "qwen2": "qwen2",
  "qwen3": "qwen3",
  "smollm3": "smollm3",
  "gemma2": "gemma2",
  "gemma3": "gemma3_text",
}
# Rows of queries and keys in the order of llama.cpp's rotation, which turns neighbors (2i, 2i + 1).
_INTERLEAVED = ("llama", "smollm3")
_GEMMAS = ("gemma2", "gemma3")
_NAMES = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_NORMS = {"ffn_norm": "post_attention_layernorm"}
_GEMMA_NORMS = {
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
}
_FREQUENCIES = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_CONTEXT = 8192
# Gemma models whose queries are scaled by the width of a head in another sense: by layers.
_LARGEST_GEMMAS = {("gemma2", 46), ("gemma3", 62)}


def config_fields(file: GgufFile) -> dict[str, Any]:
  """The fields of the config.json that a file's model would have.

  Raises: InputError that lists every field that is missing or that cannot be read.
  """
  architecture = file.fields.get("general.architecture")
  if not isinstance(architecture, str) or architecture not in _FAMILIES:
    raise InputError(
      f"{file.path}: general.architecture {architecture!r} is not one of {', '.join(_FAMILIES)}"
    )
  reader = _Fields(file, architecture)
  heads = reader.whole("attention.head_count")
  width = reader.whole("embedding_length")
  head_size = reader.whole("attention.key_length", width // max(heads, 1))
  if reader.whole("attention.value_length", head_size) != head_size:
    reader.problems.append("attention.value_length differs from attention.key_length")
  tokens = file.fields.get("tokenizer.ggml.tokens")
  table = file.tensors.get("token_embd.weight")
  if table is None:
    reader.problems.append("no tensor token_embd.weight")
  layers = reader.whole("block_count")
  found: dict[str, Any] = {
    "model_type": _FAMILIES[architecture],
    "vocab_size": table.shape[0] if table is not None and table.shape else 1,
    "hidden_size": width,
    "intermediate_size": reader.whole("feed_forward_length"),
    "num_hidden_layers": layers,
    "num_attention_heads": heads,
    "num_key_value_heads": reader.whole("attention.head_count_kv", heads),
    "head_dim": head_size,
    "max_position_embeddings": reader.whole("context_length"),
    "rms_norm_eps": reader.real("attention.layer_norm_rms_epsilon"),
    "rope_theta": reader.real("rope.freq_base", 10_000.0),
    "tie_word_embeddings": "output.weight" not in file.tensors,
    "attention_bias": "blk.0.attn_output.bias" in file.tensors,
    "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
    "bos_token_id": file.fields.get("tokenizer.ggml.bos_token_id"),
    "eos_token_id": _ends(file, tokens),
    "pad_token_id": file.fields.get("tokenizer.ggml.padding_token_id"),
  }
  if reader.whole("rope.dimension_count", head_size) != head_size:
    reader.problems.append("rope.dimension_count is not the size of a head")
  if reader.whole("expert_count", 0):
    reader.problems.append("expert_count: mixtures of experts cannot be read")
  if scaling := _rope_scaling(file, reader, head_size, found["rope_theta"]):
    found["rope_scaling"] = scaling
  if architecture in _GEMMAS:
    wide = (architecture, layers) in _LARGEST_GEMMAS
    found["query_pre_attn_scalar"] = width // max(heads, 1) if wide else head_size
    found["sliding_window"] = reader.whole("attention.sliding_window")
    pattern = file.fields.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):  # whether each layer has a window
      found["layer_types"] = [SLIDING if one else FULL for one in pattern]
    elif pattern is not None:
      found["sliding_window_pattern"] = reader.whole("attention.sliding_window_pattern")
    for scores in ("attn", "final"):
      name = f"{scores}_logit_softcapping"
      found[name] = reader.real(name, 0.0) or None
  if architecture == "gemma2":
    # Those of the published models, which older files do not state.
    found["attn_logit_softcapping"] = found["attn_logit_softcapping"] or 50.0
    found["final_logit_softcapping"] = found["final_logit_softcapping"] or 30.0
  if architecture == "gemma3":
    found["rope_local_base_freq"] = reader.real("rope.freq_base_swa", 10_000.0)
  if reader.problems:
    raise InputError(f"{file.path}: {'; '.join(reader.problems)}")
  return found


def named_tensors(file: GgufFile, config: DecoderConfig) -> Tensors:
  """The tensors of a file by the names of a Hugging Face model.

  Those without such a name keep their own, and are refused as unexpected where weights are checked.

  Args: config: that follows from `config_fields`.
  """
  architecture = file.fields["general.architecture"]
  norms = _GEMMA_NORMS if architecture in _GEMMAS else _NORMS
  changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
  opened, found = GgufTensors(file, changes), {}
  heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
  for name in file.tensors:
    if name == _FREQUENCIES:
      continue
    ours, part = _name(name, _BLOCK_NAMES | norms)
    if architecture in _INTERLEAVED and part in heads:
      changes[name] = _halves_of(heads[part])
    elif architecture in _GEMMAS and "norm" in name:
      changes[name] = _minus_one
    found[ours] = opened, name
  return found


def kept_words(rule: Rule, tensors: Tensors, dtype: np.dtype) -> np.ndarray | Words:
  """A parameter as `read_rule` reads it, but in its 4 or 8 bits where its type has blocks."""
  ((name, _),) = rule.sources
  opened, original = tensors[name]
  stored = opened.file.tensors[original]
  if not has_blocks(stored.shape, stored.kind):
    return read_rule(rule, tensors, dtype)
  words = words_of(stored.data, stored.shape, stored.kind)
  change = opened.changes.get(original)
  # Matrices are changed in the order of their rows alone.
  return words if change is None else words.reordered(change(np.arange(stored.shape[0])))


class _Fields:
  """The metadata of an architecture; what is wrong with them is collected."""

  def __init__(self, file: GgufFile, architecture: str) -> None:
    self.fields, self.prefix = file.fields, f"{architecture}."
    self.problems: list[str] = []

  def whole(self, name: str, default: int | None = None) -> int:
    """A count; 1 where it is missing or none, which is a problem."""
    value = self.fields.get(self.prefix + name, default)
    if isinstance(value, list) and value and all(one == value[0] for one in value):
      value = value[0]  # A list with an entry for each layer.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
      return value
    self._wrong(name, value, "a whole number")
    return 1

  def real(self, name: str, default: float | None = None) -> float:
    """A finite number, in the same way."""
    value = self.fields.get(self.prefix + name, default)
    if isinstance(value, int | float) and math.isfinite(value):
      # Stored as float32: 1e-5 is 9.99999975e-06 there.
      return float(np.format_float_positional(np.float32(value), unique=True))
    self._wrong(name, value, "a number")
    return 1.0

  def _wrong(self, name: str, value: Any, wanted: str) -> None:
    if value is None:
      self.problems.append(f"{self.prefix}{name} is missing")
    else:
      self.problems.append(f"{self.prefix}{name} is {str(value)[:60]}; it must be {wanted}")


def _ends(file: GgufFile, tokens: Any) -> list[int]:
  """Ids of the tokens that end a text or a turn."""
  fields = file.fields
  ids = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
  kinds = fields.get("tokenizer.ggml.token_type")
  if isinstance(tokens, list) and isinstance(kinds, list):
    ids += [
      number
      for number, (text, kind) in enumerate(zip(tokens, kinds, strict=False))
      if kind == CONTROL and text in END_TOKENS
    ]
  return list(dict.fromkeys(one for one in ids if isinstance(one, int)))


def _rope_scaling(
  file: GgufFile, reader: _Fields, head_size: int, theta: float
) -> Mapping[str, Any] | None:
  """The field `rope_scaling`; None where rotations are not stretched."""
  original = reader.whole("rope.scaling.original_context_length", 0)
  if _FREQUENCIES in file.tensors:
    return _llama3_scaling(file, reader, head_size, theta, original or _LLAMA3_CONTEXT)
  kind = reader.fields.get(f"{reader.prefix}rope.scaling.type", "none")
  factor = reader.real("rope.scaling.factor", reader.real("rope.scale_linear", 0.0))
  if kind == "none" and not factor:
    return None
  if kind in ("none", "linear") and factor:
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}
  if kind != "yarn":
    reader.problems.append(f"{reader.prefix}rope.scaling.type {kind!r} is not linear or yarn")
    return None
  scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor or 1.0}
  if original:
    scaling["original_max_position_embeddings"] = original
  for name in ("beta_fast", "beta_slow"):
    if f"{reader.prefix}rope.scaling.yarn_{name}" in reader.fields:
      scaling[name] = reader.real(f"rope.scaling.yarn_{name}")
  return scaling


def _llama3_scaling(
  file: GgufFile, reader: _Fields, head_size: int, theta: float, original: int
) -> Mapping[str, Any] | None:
  """The settings of Llama 3.1 behind a file's divisors of its frequencies, which are checked."""
  stored = file.tensors[_FREQUENCIES]
  if not can_dequantize(stored.kind):
    reader.problems.append(f"{_FREQUENCIES} has type {stored.kind}, which cannot be dequantized")
    return None
  divisors = dequantized(stored).ravel()
  scaling = {"rope_type": "llama3", "factor": float(divisors.max(initial=1.0))}
  scaling |= {"original_max_position_embeddings": original} | _LLAMA3
  rope = Rope(
    kind="llama3",
    theta=theta,
    factor=scaling["factor"],
    original_context=original,
    low_frequency=_LLAMA3["low_freq_factor"],
    high_frequency=_LLAMA3["high_freq_factor"],
  )
  wanted = inverse_frequencies(Rope(theta=theta), head_size)
  if divisors.shape != wanted.shape or not np.allclose(
    wanted / divisors, inverse_frequencies(rope, head_size), rtol=1e-3
  ):
    reader.problems.append(f"{_FREQUENCIES} is not what Llama 3 has")
  return scaling


def _name(name: str, blocks: Mapping[str, str]) -> tuple[str, str]:
  """A tensor's name in Hugging Face models, and its part of a layer ("" outside of layers)."""
  if name in _NAMES:
    return _NAMES[name], ""
  parts = name.split(".")
  if len(parts) == 4 and parts[0] == "blk" and parts[1].isdecimal() and parts[2] in blocks:
    return f"model.layers.{parts[1]}.{blocks[parts[2]]}.{parts[3]}", parts[2]
  return name, ""


def _halves_of(heads: int) -> Callable[[np.ndarray], np.ndarray]:
  """Puts rows of [heads · size, …] into the order that rotates i with i + size / 2."""

  def change(values: np.ndarray) -> np.ndarray:
    rest = values.shape[1:]
    paired = values.reshape(heads, -1, 2, *rest)
    return np.ascontiguousarray(np.swapaxes(paired, 1, 2)).reshape(values.shape)

  return change


def _minus_one(values: np.ndarray) -> np.ndarray:
  return values - 1
