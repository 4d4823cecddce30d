"""Decoder configurations, and how they are read from a folder's config.json.

Supports both forms of config.json: the older one (`rope_theta`, `rope_scaling`,
`rope_local_base_freq`, `sliding_window_pattern`) and that of transformers 5 (`rope_parameters`,
`layer_types`). Omitted fields get the defaults of the model family (`families.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.families import FAMILIES, FULL, SLIDING, layer_kinds, rope_flags
from gatrec_jax.lm.decoder.rope import ROPE_KINDS, Rope, yarn_attention_factor
from gatrec_jax.lm.folders.fields import (
  flag,
  real,
  require_object,
  shown,
  token_id,
  token_ids,
  whole,
)
from gatrec_jax.lm.folders.source import read_json

ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
}

MOST_LAYERS = 10_000


@dataclasses.dataclass(frozen=True)
class Layer:
  """Settings that differ between the layers of a decoder.

  Attributes:
    window: number of tokens that a token attends to, including itself; None for no limit.
    rope: position embedding; None for a layer without one.
  """

  window: int | None
  rope: Rope | None


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Architecture and sizes of a decoder; hashable.

  Attributes:
    family: a key of `FAMILIES`.
    vocabulary: V. width: D, size of the hidden states. inner: size of the MLP's hidden layer.
    heads, kv_heads, head_size: of attention; kv_heads divides heads.
    layers: one entry per layer.
    context: number of positions that the model supports.
    epsilon: of the RMS norms.
    activation: `silu`, `gelu` or `gelu_tanh`.
    tied: whether the output head is the embedding table.
    qkv_bias, output_bias, mlp_bias: which projections have biases.
    qk_norm: whether queries and keys are normalized per head.
    norm_offset: whether norms scale by 1 + weight (Gemma).
    sandwich_norms: whether the outputs of attention and MLP are normalized too (Gemma).
    embedding_scale: multiplies the embeddings.
    query_scale: multiplies the attention scores.
    attention_softcap, final_softcap: c in c·tanh(x / c) of scores and logits; None for no cap.
    bos: id that begins a text; None if there is none. eos: ids that end a text.
    pad: id that pads rows; padding is always masked, so any id works.
  """

  family: str
  vocabulary: int
  width: int
  inner: int
  heads: int
  kv_heads: int
  head_size: int
  layers: tuple[Layer, ...]
  context: int
  epsilon: float = 1e-6
  activation: str = "silu"
  tied: bool = False
  qkv_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  qk_norm: bool = False
  norm_offset: bool = False
  sandwich_norms: bool = False
  embedding_scale: float = 1.0
  query_scale: float = 1.0
  attention_softcap: float | None = None
  final_softcap: float | None = None
  bos: int | None = None
  eos: tuple[int, ...] = ()
  pad: int = 0


def read_decoder_config(folder: str | Path) -> DecoderConfig:
  """Reads the configuration of a decoder folder, with the EOS ids of its generation_config.json.

  Raises: InputError that names the file and the field that is missing, wrong or not supported.
  """
  folder = Path(folder)
  path = folder / "config.json"
  if not path.is_file():
    raise InputError(f"{path}: not found; a decoder folder needs a config.json")
  config = decoder_config(require_object(read_json(path), str(path)), where=str(path))
  generation = folder / "generation_config.json"
  if generation.is_file():
    where = str(generation)
    extra = token_ids(require_object(read_json(generation), where), "eos_token_id", where)
    config = dataclasses.replace(config, eos=tuple(dict.fromkeys((*config.eos, *extra))))
  return config


def is_decoder(fields: Mapping[str, Any]) -> bool:
  """Whether a config.json with these fields describes a decoder that is supported here."""
  family = fields.get("model_type")
  return isinstance(family, str) and family in (*FAMILIES, "gemma3")


def decoder_config(fields: Mapping[str, Any], *, where: str = "config.json") -> DecoderConfig:
  """Converts the fields of a config.json to a `DecoderConfig`.

  Args: fields: the parsed file. where: the file's name, for messages.
  Raises: InputError as in `read_decoder_config`.
  """
  family = fields.get("model_type")
  if family == "gemma3":  # The multimodal form, whose text model is a gemma3_text.
    inner = fields.get("text_config")
    if not isinstance(inner, dict):
      raise InputError(f"{where}: model_type gemma3 without a text_config")
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    outer = {name: fields[name] for name in tokens if name in fields}
    fields, family = inner | outer | {"model_type": "gemma3_text"}, "gemma3_text"
  if not isinstance(family, str) or family not in FAMILIES:
    raise InputError(f"{where}: model_type {shown(family)} is not one of {', '.join(FAMILIES)}")
  if quantization := fields.get("quantization_config"):
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    raise InputError(
      f"{where}: quantization_config {shown(method)}: only plain weights can be read; use the "
      "unquantized model, with `quantize=int8` to save memory"
    )
  known = {name: value for name, value in fields.items() if value is not None}
  # In these fields None is a value: it turns a feature off.
  off = (
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "bos_token_id",
    "eos_token_id",
  )
  known |= {name: None for name in off if name in fields and fields[name] is None}
  defaults = dict(FAMILIES[family])
  if "num_key_value_heads" in fields and fields["num_key_value_heads"] is None:
    defaults.pop("num_key_value_heads", None)
  try:
    return _build(family, defaults | known, known, where)
  except KeyError as error:
    raise InputError(f"{where}: has no {error.args[0]}") from None


def _build(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> DecoderConfig:
  gemma = family in ("gemma2", "gemma3_text")
  width, heads = (whole(fields, name, where) for name in ("hidden_size", "num_attention_heads"))
  kv_heads = (
    whole(fields, "num_key_value_heads", where) if "num_key_value_heads" in fields else heads
  )
  head_size = whole(fields, "head_dim", where) if "head_dim" in fields else width // heads
  # Gemma's files may contain an obsolete hidden_act that is not used.
  activation = fields["hidden_activation" if gemma else "hidden_act"]
  if not isinstance(activation, str) or activation not in ACTIVATIONS:
    raise InputError(
      f"{where}: hidden_act {shown(activation)} is not one of {', '.join(ACTIVATIONS)}"
    )
  if heads % kv_heads:
    raise InputError(f"{where}: {heads} attention heads are not a multiple of {kv_heads} key heads")
  if head_size % 2 or not head_size:
    raise InputError(f"{where}: head_dim {head_size} is odd; rotary embeddings need an even one")
  if fields.get("use_bidirectional_attention"):
    raise InputError(
      f"{where}: use_bidirectional_attention is set; only causal decoders are supported"
    )
  bias = flag(fields, "attention_bias", where)
  scalar = real(fields, "query_pre_attn_scalar", where, positive=True) if gemma else head_size
  return DecoderConfig(
    family=family,
    vocabulary=whole(fields, "vocab_size", where),
    width=width,
    inner=whole(fields, "intermediate_size", where),
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    layers=_layers(family, fields, given, where),
    context=whole(fields, "max_position_embeddings", where),
    epsilon=real(fields, "rms_norm_eps", where, low=0.0),
    activation=ACTIVATIONS[activation],
    tied=flag(fields, "tie_word_embeddings", where),
    qkv_bias=family == "qwen2" or (bias and family != "mistral"),
    output_bias=bias and family not in ("qwen2", "mistral"),
    mlp_bias=flag(fields, "mlp_bias", where) and family in ("llama", "smollm3"),
    qk_norm=family in ("qwen3", "gemma3_text"),
    norm_offset=gemma,
    sandwich_norms=gemma,
    embedding_scale=width**0.5 if gemma else 1.0,
    query_scale=scalar**-0.5,
    # transformers reads this field of Gemma 3 but does not apply it.
    attention_softcap=_cap(fields, "attn_logit_softcapping", where) if family == "gemma2" else None,
    final_softcap=_cap(fields, "final_logit_softcapping", where),
    bos=token_id(fields, "bos_token_id", where),
    eos=token_ids(fields, "eos_token_id", where),
    pad=max(0, whole(fields, "pad_token_id", where, low=-1)) if fields["pad_token_id"] else 0,
  )


def _layers(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> tuple[Layer, ...]:
  count = whole(fields, "num_hidden_layers", where, high=MOST_LAYERS)
  kinds = layer_kinds(family, fields, given, count, where)
  window = fields.get("sliding_window")
  if SLIDING in kinds:
    if not window:
      raise InputError(f"{where}: has sliding_attention layers but no sliding_window")
    window = whole(fields, "sliding_window", where)
  ropes = {kind: _rope(family, fields, kind, where) for kind in sorted(set(kinds))}
  with_rope = [True] * count if family != "smollm3" else rope_flags(fields, count, where)
  return tuple(
    Layer(
      window=window if kind == SLIDING else None, rope=ropes[kind] if with_rope[layer] else None
    )
    for layer, kind in enumerate(kinds)
  )


def _rope(family: str, fields: Mapping[str, Any], kind: str, where: str) -> Rope:
  """Reads the position embedding of the layers of one kind (sliding or full)."""
  local = family == "gemma3_text" and kind == SLIDING
  base = "rope_local_base_freq" if local else "rope_theta"
  nested = require_object(fields.get("rope_parameters") or {}, f"{where}: rope_parameters")
  if {SLIDING, FULL} & set(nested):
    numbers = nested.get(kind) or {}
  elif local:  # Gemma 3 extends only its global layers.
    numbers = {}
  else:
    numbers = fields.get("rope_scaling") or nested
  numbers = require_object(numbers, f"{where}: rope_scaling")
  numbers = {name: value for name, value in numbers.items() if value is not None}
  rope_type = numbers.get("rope_type", numbers.get("type", "default"))
  if not isinstance(rope_type, str) or rope_type not in ROPE_KINDS:
    raise InputError(f"{where}: rope type {shown(rope_type)} is not one of {', '.join(ROPE_KINDS)}")
  number = functools.partial(real, where=where, positive=True)
  known = {"partial_rotary_factor": fields.get("partial_rotary_factor", 1.0)} | numbers
  if (partial := number(known, "partial_rotary_factor")) != 1.0:
    raise InputError(f"{where}: partial_rotary_factor {partial} is not supported; it must be 1")
  theta = number(numbers, "rope_theta") if "rope_theta" in numbers else number(fields, base)
  if rope_type == "default":
    return Rope(theta=theta)
  context = whole(fields, "max_position_embeddings", where)
  original = context
  for holder in (numbers, fields):
    if holder.get("original_max_position_embeddings"):
      original = whole(holder, "original_max_position_embeddings", where)
  if "factor" in numbers:
    factor = number(numbers, "factor")
  elif rope_type == "yarn":
    factor = context / original
  else:
    raise InputError(f"{where}: rope type {rope_type} without a factor")
  if rope_type == "linear":
    return Rope(kind="linear", theta=theta, factor=factor)
  if rope_type == "llama3":
    return Rope(
      kind="llama3",
      theta=theta,
      factor=factor,
      original_context=original,
      low_frequency=number(numbers, "low_freq_factor"),
      high_frequency=number(numbers, "high_freq_factor"),
    )
  scales = (
    real(numbers, name, where) if name in numbers else 0.0 for name in ("mscale", "mscale_all_dim")
  )
  implied = yarn_attention_factor(factor, *scales)
  return Rope(
    kind="yarn",
    theta=theta,
    factor=factor,
    original_context=original,
    beta_fast=number(numbers, "beta_fast") if numbers.get("beta_fast") else 32.0,
    beta_slow=number(numbers, "beta_slow") if numbers.get("beta_slow") else 1.0,
    truncate=flag(numbers, "truncate", where, default=True),
    attention_factor=(
      number(numbers, "attention_factor") if "attention_factor" in numbers else implied
    ),
  )


def _cap(fields: Mapping[str, Any], name: str, where: str) -> float | None:
  return None if fields.get(name) is None else real(fields, name, where, positive=True)
